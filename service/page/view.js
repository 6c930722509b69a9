// A picture on a canvas that can be zoomed and moved, with what was found and what was asked drawn over it.
// Positions are pixels of the picture, from its top left corner.

import { gestures } from "./gestures.js";
import { paintCrosshair, paintMarks, paintSegments } from "./paint.js";

const MAX_SCALE = 40;
// Above it a picture's pixels are shown as squares.
const SMOOTH_BELOW = 3;

/**
 * The scale at which the whole of a picture is seen, in screen pixels per pixel of the picture.
 * @param {{width: number, height: number}} picture
 * @param {{clientWidth: number, clientHeight: number}} room
 */
export function fittingScale({ width, height }, { clientWidth, clientHeight }) {
  const margin = Math.min(24, clientWidth * 0.03);
  return Math.min((clientWidth - 2 * margin) / width, (clientHeight - 2 * margin) / height, 8);
}

/**
 * Tells of `point` ({x, y, positive}) and `box` ({box, positive}) that were drawn with the tool, and of `hover`
 * ({segment}, or null) as CustomEvents with that detail.
 */
export class View extends EventTarget {
  /** What is drawn: "object" and "example" draw points and boxes, "move" moves the picture. */
  tool = "object";
  /** Whether points and boxes are of what is meant; the Shift key and the right button say the opposite. */
  positive = true;
  /** @type {import("./paint.js").Shown[]} what was found; the first lies on top */
  segments = [];
  /** @type {import("./paint.js").Mark[]} what was asked */
  marks = [];
  /** @type {import("./paint.js").Shown | null} */
  hovered = null;
  /** @type {number[] | null} a box that is being drawn */
  draft = null;
  /** @type {{x: number, y: number} | null} where the keyboard points */
  crosshair = null;

  /** @type {CanvasImageSource | null} */
  #picture = null;
  #context;
  #tip;
  // Screen pixels per pixel of the picture, and where its corner lies, in screen pixels.
  #scale = 1;
  #left = 0;
  #top = 0;
  #fitted = true;

  /**
   * @param {HTMLCanvasElement} canvas fills its parent
   * @param {HTMLElement} tip says what the pointer is over; positioned in the same parent
   */
  constructor(canvas, tip) {
    super();
    this.canvas = canvas;
    this.#tip = tip;
    this.#context = canvas.getContext("2d");
    this.width = 0;
    this.height = 0;
    new ResizeObserver(() => this.#resize()).observe(canvas);
    gestures(this);
  }

  /** Whether there is a picture. */
  get shows() {
    return this.#picture !== null;
  }

  get scale() {
    return this.#scale;
  }

  /**
   * Have another picture, or the next frame: of the same size it stays where it was zoomed to.
   * @param {CanvasImageSource | null} picture @param {number} width pixels @param {number} height pixels
   */
  show(picture, width, height) {
    const same = width === this.width && height === this.height && this.shows;
    this.#picture = picture;
    [this.width, this.height] = [width, height];
    this.crosshair = this.draft = null;
    if (same) this.draw();
    else this.fit();
  }

  /** Draw anew, at once. */
  draw() {
    const context = this.#context;
    const ratio = this.canvas.width / Math.max(1, this.canvas.clientWidth);
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    if (!this.#picture) return;
    context.setTransform(this.#scale * ratio, 0, 0, this.#scale * ratio, this.#left * ratio, this.#top * ratio);
    context.imageSmoothingEnabled = this.#scale < SMOOTH_BELOW;
    context.imageSmoothingQuality = "high";
    context.drawImage(this.#picture, 0, 0, this.width, this.height);
    paintSegments(context, this.segments, this.#scale, this.hovered);
    const drafted = this.draft && { box: this.draft, positive: true, colour: "#444" };
    paintMarks(context, drafted ? [...this.marks, drafted] : this.marks, this.#scale);
    if (this.crosshair && document.activeElement === this.canvas) {
      paintCrosshair(context, this.crosshair, this.#scale);
    }
  }

  /** Show the whole picture. */
  fit() {
    const { clientWidth, clientHeight } = this.canvas;
    this.#fitted = true;
    if (!this.shows || !clientWidth) return this.draw();
    this.#scale = this.#fittingScale();
    this.#left = (clientWidth - this.width * this.#scale) / 2;
    this.#top = (clientHeight - this.height * this.#scale) / 2;
    this.draw();
  }

  /** Zoom, and keep what is at a place of the canvas where it is. @param {number} factor */
  zoom(factor, x = this.canvas.clientWidth / 2, y = this.canvas.clientHeight / 2) {
    const least = Math.min(1, this.#fittingScale());
    const scale = Math.min(MAX_SCALE, Math.max(least, this.#scale * factor));
    this.#left = x - ((x - this.#left) * scale) / this.#scale;
    this.#top = y - ((y - this.#top) * scale) / this.#scale;
    this.#scale = scale;
    this.#fitted = false;
    this.move(0, 0);
  }

  /** Move the picture by screen pixels; some of it stays in sight. */
  move(dx, dy) {
    const held = (corner, size, room) => Math.min(room * 0.8, Math.max(room * 0.2 - size, corner));
    this.#left = held(this.#left + dx, this.width * this.#scale, this.canvas.clientWidth);
    this.#top = held(this.#top + dy, this.height * this.#scale, this.canvas.clientHeight);
    if (dx || dy) this.#fitted = false;
    this.draw();
  }

  /** The position in the picture of a place of the canvas; it may lie outside. */
  at(x, y) {
    return { x: (x - this.#left) / this.#scale, y: (y - this.#top) / this.#scale };
  }

  /** The place of the canvas of a position in the picture. */
  placeOf({ x, y }) {
    return { x: x * this.#scale + this.#left, y: y * this.#scale + this.#top };
  }

  /** Whether a position lies in the picture. */
  inside({ x, y }) {
    return this.shows && x >= 0 && y >= 0 && x < this.width && y < this.height;
  }

  /** Have a segment stand out; with a position its label and score are shown there. */
  hover(segment, position) {
    const changed = segment !== this.hovered;
    this.hovered = segment;
    this.#tip.hidden = !segment || !position;
    if (segment && position) {
      const { x, y } = this.placeOf(position);
      this.#tip.textContent = `${segment.label} ${segment.score.toFixed(2)}`;
      this.#tip.style.translate = `${Math.min(x + 14, this.canvas.clientWidth - 130)}px ${Math.max(y - 34, 4)}px`;
    }
    if (!changed) return;
    this.draw();
    this.tell("hover", { segment });
  }

  /** The segment on top at a position, or null. */
  over({ x, y }) {
    return this.segments.find((segment) => segment.mask?.has(x, y)) ?? null;
  }

  /** @param {"point" | "box" | "hover"} name @param {object} detail */
  tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  #fittingScale() {
    return fittingScale(this, this.canvas);
  }

  #resize() {
    const ratio = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(this.canvas.clientWidth * ratio);
    this.canvas.height = Math.round(this.canvas.clientHeight * ratio);
    if (this.#fitted) this.fit();
    else this.move(0, 0);
  }
}
