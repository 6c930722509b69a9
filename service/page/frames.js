// Where frames come from: a clip, each of whose frames may be asked for, or a camera.

import { Problem } from "./api.js";

// Frames are no larger than this: a student looks at them in its own size, which is smaller.
const LONGEST_SIDE = 1280;
const JPEG_QUALITY = 0.92;
// Frames per second of a clip whose own rate the browser does not tell, and the highest that is believed.
const USUAL_RATE = 25;
const HIGHEST_RATE = 60;
// A clip's rate is told by so many frames; how long they are waited for.
const LISTEN_FRAMES = 5;
const LISTEN_MS = 2_000;

/** A picture of a clip or a camera. `close` it. */
export class Frame {
  /** @type {Promise<Blob> | null} */
  #file = null;

  /** @param {number} index @param {ImageBitmap} picture */
  constructor(index, picture) {
    this.index = index;
    this.picture = picture;
  }

  /** What the picture shows, encoded. @returns {Promise<Blob>} */
  file() {
    this.#file ??= encoded(this.picture);
    return this.#file;
  }

  close() {
    this.picture.close();
  }
}

/** A video file. Frames are asked for by index, in any order. */
export class Clip {
  isLive = false;
  // What was asked for before: it is waited for, since every seek is told of by the same event.
  #before = Promise.resolve();
  #video;
  #first;
  #size;

  /**
   * Made by `openClip`.
   * @param {HTMLVideoElement} video @param {number} first seconds at which its first frame is shown
   * @param {number} rate frames per second
   */
  constructor(video, first, rate) {
    this.#video = video;
    this.#first = first;
    this.#size = sizeOf(video);
    this.rate = rate;
    this.count = Math.max(1, Math.round((video.duration - first) * rate));
  }

  /** @param {number} index @returns {Promise<Frame>} */
  frame(index) {
    const frame = this.#before.then(() => this.#sought(index));
    this.#before = frame.then(() => {}, () => {});
    return frame;
  }

  /** @param {number} index @returns {Promise<Frame>} */
  async #sought(index) {
    const video = this.#video;
    // The middle of the time that it is shown for.
    const seconds = Math.min(this.#first + (index + 0.5) / this.rate, video.duration);
    if (Math.abs(video.currentTime - seconds) > 1e-4) {
      const sought = happens(video, "seeked");
      video.currentTime = seconds;
      await sought;
    }
    return new Frame(index, await createImageBitmap(video, this.#size));
  }

  close() {
    URL.revokeObjectURL(this.#video.src);
    this.#video.removeAttribute("src");
    this.#video.load();
  }
}

/** What a camera sees when it is asked. */
export class Camera {
  isLive = true;
  count = Infinity;
  #video;
  #size;
  #gone;

  /** Made by `openCamera`. @param {HTMLVideoElement} video */
  constructor(video) {
    this.#video = video;
    this.#size = sizeOf(video);
    const [track] = this.#stream.getVideoTracks();
    this.#gone = new Promise((_, reject) => {
      track.addEventListener("ended", () => reject(new Problem("no_camera", "The camera went away.")));
    });
    // Somebody asks for a frame, or nobody cares.
    this.#gone.catch(() => {});
  }

  get #stream() {
    return /** @type {MediaStream} */ (this.#video.srcObject);
  }

  /** One that was not taken yet. @param {number} index @returns {Promise<Frame>} */
  async frame(index) {
    const video = this.#video;
    const next = new Promise((resolve) => {
      if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(resolve);
      else setTimeout(resolve, 1000 / USUAL_RATE);
    });
    await Promise.race([next, this.#gone]);
    return new Frame(index, await createImageBitmap(video, this.#size));
  }

  close() {
    for (const track of this.#stream.getTracks()) track.stop();
  }
}

/**
 * @param {Blob} file @param {string} name what it is called where it is refused
 * @returns {Promise<Clip>} fails with a Problem for what the browser cannot play
 */
export async function openClip(file, name) {
  const video = silent();
  video.preload = "auto";
  video.src = URL.createObjectURL(file);
  await happens(video, "loadeddata").catch(() => {});
  if (!video.videoWidth || !Number.isFinite(video.duration)) {
    URL.revokeObjectURL(video.src);
    const other = "MP4 (H.264) and WebM play in all; POST /v1/videos/track takes whatever FFmpeg reads.";
    throw new Problem("unsupported_video", `This browser cannot play ${name}. ${other}`);
  }
  const { first, rate } = await timesOf(video);
  return new Clip(video, first, rate);
}

/** @returns {Promise<Camera>} fails with a Problem that says why there is none */
export async function openCamera() {
  if (!navigator.mediaDevices) {
    throw new Problem("no_camera", "Browsers give the camera to pages over https or on localhost only.");
  }
  const video = silent();
  try {
    // The camera that looks away from who holds the phone, where there is one.
    const wanted = { video: { facingMode: "environment", width: { ideal: LONGEST_SIDE } } };
    video.srcObject = await navigator.mediaDevices.getUserMedia(wanted);
  } catch (error) {
    throw new Problem("no_camera", whyNone(/** @type {DOMException} */ (error).name));
  }
  await video.play();
  return new Camera(video);
}

function silent() {
  const video = document.createElement("video");
  video.muted = video.playsInline = true;
  return video;
}

/** One size for all frames: a session has one. @param {HTMLVideoElement} video @returns {ImageBitmapOptions} */
function sizeOf({ videoWidth, videoHeight }) {
  const scale = Math.min(1, LONGEST_SIDE / Math.max(videoWidth, videoHeight));
  return {
    resizeWidth: Math.max(1, Math.round(videoWidth * scale)),
    resizeHeight: Math.max(1, Math.round(videoHeight * scale)),
    resizeQuality: "medium",
  };
}

/** @param {ImageBitmap} picture @returns {Promise<Blob>} */
function encoded(picture) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [picture.width, picture.height];
  canvas.getContext("2d")?.drawImage(picture, 0, 0);
  return new Promise((resolve, reject) => {
    const unable = new Problem("unsupported_video", "The browser could not encode a frame.");
    canvas.toBlob((file) => (file ? resolve(file) : reject(unable)), "image/jpeg", JPEG_QUALITY);
  });
}

/** @param {HTMLVideoElement} video @param {string} event @returns {Promise<void>} fails where the video fails first */
function happens(video, event) {
  return new Promise((resolve, reject) => {
    const over = new AbortController();
    const { signal } = over;
    video.addEventListener(event, () => (over.abort(), resolve()), { signal });
    video.addEventListener("error", () => (over.abort(), reject(broken())), { signal });
  });
}

function broken() {
  return new Problem("unsupported_video", "The browser could not go on playing this video.");
}

/** @param {string} name of the DOMException */
function whyNone(name) {
  if (name === "NotAllowedError") {
    return "The camera is not allowed for this page: allow it in the browser's address bar, and try again.";
  }
  return name === "NotFoundError" ? "There is no camera here." : "The camera is in use elsewhere.";
}

/**
 * When a video shows its frames, from playing its beginning.
 * @param {HTMLVideoElement} video
 * @returns {Promise<{first: number, rate: number}>} the first one's time, seconds, and frames per second
 */
async function timesOf(video) {
  const times = await timesShown(video);
  const steps = times.slice(1).map((time, index) => time - times[index]);
  // Frames may have been skipped: the smallest step is one frame.
  const step = Math.min(...steps.filter((each) => each > 0.5 / HIGHEST_RATE));
  const span = times[times.length - 1] - times[0];
  const rate = Number.isFinite(step) ? Math.min(HIGHEST_RATE, Math.round(span / step) / span) : USUAL_RATE;
  // Playing began somewhere on the grid of frames; its first is less than a frame away from the start.
  const first = times.length ? times[0] % (1 / rate) : 0;
  return { first: first > 0.9 / rate ? 0 : first, rate };
}

/** @param {HTMLVideoElement} video @returns {Promise<number[]>} seconds; empty where the browser does not tell */
async function timesShown(video) {
  /** @type {number[]} */
  const times = [];
  if (!video.requestVideoFrameCallback) return times;
  const over = new Promise((resolve) => {
    const note = (/** @type {number} */ _, /** @type {VideoFrameCallbackMetadata} */ { mediaTime }) => {
      times.push(mediaTime);
      if (times.length < LISTEN_FRAMES) video.requestVideoFrameCallback(note);
      else resolve(null);
    };
    video.requestVideoFrameCallback(note);
    video.addEventListener("ended", resolve, { once: true });
    setTimeout(resolve, LISTEN_MS);
  });
  await video.play();
  await over;
  video.pause();
  return times;
}
