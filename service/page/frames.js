// Where frames come from: a clip, each of whose frames may be asked for, or a camera.

import { Problem } from "./api.js";

/** Frames are sent no larger than this: a student looks at them in its own size, which is smaller. */
const LONGEST_SIDE_PX = 1280;
const JPEG_QUALITY = 0.92;
/** Of a clip whose own rate the browser does not tell, frames per second; and the highest that is believed. */
const USUAL_RATE = 25;
const HIGHEST_RATE = 60;
/** How long a clip is listened to for its rate. */
const LISTEN_MS = 2_000;

/** @typedef {{index: number, picture: ImageBitmap, file: Blob}} Frame  the file has what the picture shows */

/** Draws what a video element shows, always at one size: a session's frames have one. */
class Camcorder {
  /** @param {HTMLVideoElement} video whose size is known */
  constructor(video) {
    const scale = Math.min(1, LONGEST_SIDE_PX / Math.max(video.videoWidth, video.videoHeight));
    this.canvas = document.createElement("canvas");
    this.canvas.width = Math.max(1, Math.round(video.videoWidth * scale));
    this.canvas.height = Math.max(1, Math.round(video.videoHeight * scale));
    this.video = video;
  }

  /** @param {number} index @returns {Promise<Frame>} */
  async frame(index) {
    const { width, height } = this.canvas;
    const context = /** @type {CanvasRenderingContext2D} */ (this.canvas.getContext("2d"));
    context.drawImage(this.video, 0, 0, width, height);
    const [picture, file] = await Promise.all([
      createImageBitmap(this.canvas),
      new Promise((resolve) => this.canvas.toBlob(resolve, "image/jpeg", JPEG_QUALITY)),
    ]);
    return { index, picture, file };
  }
}

/** A video file. Frames are asked for by index, in any order, one at a time. */
export class Clip {
  isLive = false;
  #camcorder;
  #first;

  /**
   * @param {Camcorder} camcorder
   * @param {number} first seconds at which the first frame is shown
   * @param {number} rate frames per second
   */
  constructor(camcorder, first, rate) {
    this.#camcorder = camcorder;
    this.#first = first;
    this.rate = rate;
    this.count = Math.max(1, Math.round((camcorder.video.duration - first) * rate));
    this.width = camcorder.canvas.width;
    this.height = camcorder.canvas.height;
  }

  /**
   * @param {string | Blob} source an address of this host, or a file
   * @returns {Promise<Clip>} Fails with a Problem for what the browser cannot play.
   */
  static async open(source) {
    const video = silent();
    video.preload = "auto";
    video.src = typeof source === "string" ? source : URL.createObjectURL(source);
    await happens(video, "loadeddata");
    if (!video.videoWidth || !Number.isFinite(video.duration)) throw unreadable();
    const { first, rate } = await timesOf(video);
    return new Clip(new Camcorder(video), first, rate);
  }

  /** @param {number} index @returns {Promise<Frame>} */
  async frame(index) {
    const { video } = this.#camcorder;
    // The middle of the time that it is shown for.
    const seconds = this.#first + (index + 0.5) / this.rate;
    if (Math.abs(video.currentTime - seconds) > 1e-4) {
      const sought = happens(video, "seeked");
      video.currentTime = Math.min(seconds, video.duration);
      await sought;
    }
    return this.#camcorder.frame(index);
  }

  close() {
    const { video } = this.#camcorder;
    if (video.src.startsWith("blob:")) URL.revokeObjectURL(video.src);
    video.removeAttribute("src");
    video.load();
  }
}

/** What the camera sees when it is asked. */
export class Camera {
  isLive = true;
  count = Infinity;
  #camcorder;

  /** @param {Camcorder} camcorder */
  constructor(camcorder) {
    this.#camcorder = camcorder;
    this.width = camcorder.canvas.width;
    this.height = camcorder.canvas.height;
  }

  /** @returns {Promise<Camera>} Fails with a Problem that says why there is none. */
  static async open() {
    if (!navigator.mediaDevices) {
      throw new Problem("no_camera", "Browsers give the camera to pages over https or on localhost only.");
    }
    const video = silent();
    try {
      // The camera that looks away from who holds the phone, where there is one.
      const wanted = { video: { facingMode: "environment", width: { ideal: 1280 } } };
      video.srcObject = await navigator.mediaDevices.getUserMedia(wanted);
    } catch (error) {
      throw new Problem("no_camera", whyNone(/** @type {DOMException} */ (error).name));
    }
    await video.play();
    if (!video.videoWidth) await happens(video, "resize");
    return new Camera(new Camcorder(video));
  }

  /** @param {number} index @returns {Promise<Frame>} */
  async frame(index) {
    // One that was not taken yet.
    const { video } = this.#camcorder;
    if (video.requestVideoFrameCallback) await new Promise((resolve) => video.requestVideoFrameCallback(resolve));
    return this.#camcorder.frame(index);
  }

  close() {
    const stream = /** @type {MediaStream} */ (this.#camcorder.video.srcObject);
    for (const track of stream.getTracks()) track.stop();
  }
}

function silent() {
  const video = document.createElement("video");
  video.muted = video.playsInline = true;
  return video;
}

/**
 * @param {HTMLVideoElement} video
 * @param {string} event
 * @returns {Promise<void>} Fails with a Problem where the video fails first.
 */
function happens(video, event) {
  return new Promise((resolve, reject) => {
    const asked = new AbortController();
    const { signal } = asked;
    video.addEventListener(event, () => (asked.abort(), resolve()), { signal });
    video.addEventListener("error", () => (asked.abort(), reject(unreadable())), { signal });
  });
}

function unreadable() {
  return new Problem(
    "unsupported_video",
    "This browser cannot play that file as a video. MP4 (H.264) and WebM go everywhere; " +
      "POST /v1/videos/track takes whatever FFmpeg reads.",
  );
}

/** @param {string} name of the DOMException */
function whyNone(name) {
  if (name === "NotAllowedError") {
    return "The camera is not allowed for this page: allow it beside the page's address, and try again.";
  }
  return name === "NotFoundError" ? "There is no camera here." : "The camera is in use elsewhere.";
}

/**
 * When a video shows its frames, from playing its beginning.
 * @param {HTMLVideoElement} video
 * @returns {Promise<{first: number, rate: number}>} the first one's time, seconds, and frames per second
 */
async function timesOf(video) {
  /** @type {number[]} */
  const times = [];
  if (video.requestVideoFrameCallback) {
    const over = new Promise((resolve) => {
      const note = (/** @type {number} */ _, /** @type {{mediaTime: number}} */ { mediaTime }) => {
        times.push(mediaTime);
        if (times.length < 8) video.requestVideoFrameCallback(note);
        else resolve(null);
      };
      video.requestVideoFrameCallback(note);
      video.addEventListener("ended", resolve, { once: true });
      setTimeout(resolve, LISTEN_MS);
    });
    await video.play();
    await over;
    video.pause();
  }
  // Frames may have been skipped: the smallest step is one frame.
  const steps = times.slice(1).map((time, index) => time - times[index]);
  const step = Math.min(...steps.filter((each) => each > 1 / HIGHEST_RATE / 2));
  const span = times[times.length - 1] - times[0];
  const rate = Number.isFinite(step) ? Math.min(HIGHEST_RATE, Math.round(span / step) / span) : USUAL_RATE;
  // Playing began somewhere on the grid of frames; its first is less than a frame away from the start.
  const first = times.length ? times[0] % (1 / rate) : 0;
  return { first: first > 0.9 / rate ? 0 : first, rate };
}
