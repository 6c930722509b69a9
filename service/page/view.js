// @ts-check
/**
 * A picture on a canvas, with masks, boxes and points: zoomed and moved by mouse, fingers or keys, sharp at any
 * size. It says where is clicked, dragged and hovered, in pixels of the picture.
 */

import { Gestures } from "./gestures.js";

/** Pixels of the screen. */
const OUTLINE = 1.75;
const RADIUS = 6;
const LARGEST_SCALE = 40;

/**
 * @typedef {{x: number, y: number}} Point
 * @typedef {{mask: import("./rle.js").Mask, colour: string, strong?: boolean, faint?: boolean}} Layer
 * @typedef {Point & {positive: boolean, colour: string}} Dot
 * @typedef {{box: number[], colour: string, positive?: boolean, dashed?: boolean}} Frame `box` is xyxy
 * @typedef {object} Events in pixels of the picture; `isNegative`: the other button, or Alt
 * @property {(point: Point, isNegative: boolean) => void} [clicked]
 * @property {(box: number[], isNegative: boolean) => void} [dragged] while `dragsBoxes`
 * @property {(point: Point | null, at: Point) => void} [hovered] `at` in pixels of the canvas' element
 */

export class View {
  /** @param {HTMLCanvasElement} canvas @param {Events} events */
  constructor(canvas, events) {
    this.canvas = canvas;
    this.events = events;
    /** Whether dragging draws a box; else it moves the picture. */
    this.dragsBoxes = false;
    /** @type {ImageBitmap | HTMLCanvasElement | null} */
    this._picture = null;
    /** @type {Layer[]} */
    this._layers = [];
    /** @type {Dot[]} */
    this._dots = [];
    /** @type {Frame[]} */
    this._frames = [];
    /** @type {number[] | null} the box that is being drawn, xyxy */
    this._drawn = null;
    /** @type {Point | null} the keyboard's cursor */
    this._cursor = null;
    /** Screen pixels per pixel of the picture, and where the picture's corner lies. */
    this._scale = 1;
    this._left = 0;
    this._top = 0;
    this._isFitted = true;
    this._pending = 0;
    new Gestures(this);
    new ResizeObserver(() => this._resized()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  get picture() {
    return this._picture;
  }

  /**
   * Show another picture; one of the same size is looked at as the one before.
   * @param {ImageBitmap | HTMLCanvasElement | null} picture
   */
  setPicture(picture) {
    const isAlike = picture?.width === this._picture?.width && picture?.height === this._picture?.height;
    this._picture = picture;
    if (isAlike) this.draw();
    else this.fit();
  }

  /** @param {{layers?: Layer[], dots?: Dot[], frames?: Frame[]}} marks what is left out stays */
  setMarks({ layers, dots, frames }) {
    this._layers = layers ?? this._layers;
    this._dots = dots ?? this._dots;
    this._frames = frames ?? this._frames;
    this.draw();
  }

  /** @param {number[] | null} box the one that is being drawn, xyxy */
  setDrawn(box) {
    this._drawn = box;
    this.draw();
  }

  get cursor() {
    return this._cursor;
  }

  /** @param {Point | null} point the keyboard's cursor, kept inside the picture and in sight */
  setCursor(point) {
    this._cursor = point && this.within(point);
    if (this._cursor) this._keepInSight(this._cursor);
    this.draw();
  }

  /** The whole picture, as large as it goes. */
  fit() {
    this._isFitted = true;
    if (this._picture) {
      const { clientWidth, clientHeight } = this.canvas;
      const { width, height } = this._picture;
      this._scale = Math.min(clientWidth / width, clientHeight / height) || 1;
      this._left = (clientWidth - width * this._scale) / 2;
      this._top = (clientHeight - height * this._scale) / 2;
    }
    this.draw();
  }

  /** @param {number} factor @param {Point} [at] stays where it is, pixels of the element; default: the middle */
  zoom(factor, at = { x: this.canvas.clientWidth / 2, y: this.canvas.clientHeight / 2 }) {
    if (!this._picture) return;
    const { clientWidth, clientHeight } = this.canvas;
    const smallest = Math.min(1, clientWidth / this._picture.width, clientHeight / this._picture.height) / 2;
    const scale = Math.min(LARGEST_SCALE, Math.max(smallest, this._scale * factor));
    this._left = at.x - ((at.x - this._left) * scale) / this._scale;
    this._top = at.y - ((at.y - this._top) * scale) / this._scale;
    this._scale = scale;
    this._isFitted = false;
    this.draw();
  }

  /** @param {number} right @param {number} down pixels of the screen */
  move(right, down) {
    this._left += right;
    this._top += down;
    this._isFitted = false;
    this.draw();
  }

  /** @param {Point} at pixels of the element @returns {Point} pixels of the picture, perhaps outside of it */
  inPicture({ x, y }) {
    return { x: (x - this._left) / this._scale, y: (y - this._top) / this._scale };
  }

  /** @param {Point} point pixels of the picture @returns {Point} pixels of the element */
  onScreen({ x, y }) {
    return { x: this._left + x * this._scale, y: this._top + y * this._scale };
  }

  /** @param {Point} point @returns {Point} the nearest in the picture */
  within({ x, y }) {
    const { width = 0, height = 0 } = this._picture ?? {};
    return { x: Math.min(Math.max(x, 0), width - 0.01), y: Math.min(Math.max(y, 0), height - 0.01) };
  }

  /** @param {Point} point */
  isInside({ x, y }) {
    return this._picture !== null && x >= 0 && y >= 0 && x < this._picture.width && y < this._picture.height;
  }

  /** Draw with the next frame of the screen. */
  draw() {
    this._pending ||= requestAnimationFrame(() => {
      this._pending = 0;
      const { canvas } = this;
      const ratio = devicePixelRatio;
      const [width, height] = [canvas.clientWidth * ratio, canvas.clientHeight * ratio].map(Math.round);
      if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
      const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
      context.setTransform(1, 0, 0, 1, 0, 0);
      context.clearRect(0, 0, width, height);
      if (!this._picture) return;
      const scale = this._scale * ratio;
      context.setTransform(scale, 0, 0, scale, this._left * ratio, this._top * ratio);
      paint(context, this._picture, this._layers, this._scale);
      this._paintMarks(context);
    });
  }

  /** @param {CanvasRenderingContext2D} context */
  _paintMarks(context) {
    for (const frame of this._frames) this._outline(context, frame);
    if (this._drawn) this._outline(context, { box: this._drawn, colour: "#fff", dashed: true });
    context.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    for (const dot of this._dots) this._dot(context, dot);
    if (this._cursor) this._cross(context, this.onScreen(this._cursor));
  }

  /** @param {CanvasRenderingContext2D} context @param {Frame} frame */
  _outline(context, { box: [x0, y0, x1, y1], colour, positive = true, dashed = false }) {
    const line = new Path2D();
    line.rect(x0, y0, x1 - x0, y1 - y0);
    if (!positive) {
      line.moveTo(x0, y0);
      line.lineTo(x1, y1);
    }
    context.setLineDash([]);
    context.lineWidth = 4 / this._scale;
    context.strokeStyle = "rgb(0 0 0 / 0.55)";
    context.stroke(line);
    context.setLineDash(dashed ? [6 / this._scale, 4 / this._scale] : []);
    context.lineWidth = 2 / this._scale;
    context.strokeStyle = colour;
    context.stroke(line);
    context.setLineDash([]);
  }

  /** @param {CanvasRenderingContext2D} context @param {Dot} dot */
  _dot(context, { x, y, positive, colour }) {
    const at = this.onScreen({ x, y });
    context.beginPath();
    context.arc(at.x, at.y, RADIUS, 0, 2 * Math.PI);
    context.fillStyle = positive ? colour : "#fff";
    context.fill();
    context.lineWidth = 2;
    context.strokeStyle = positive ? "#fff" : "#b91c1c";
    context.stroke();
    // A plus or a minus: colour alone tells too little.
    context.beginPath();
    context.moveTo(at.x - 3, at.y);
    context.lineTo(at.x + 3, at.y);
    if (positive) {
      context.moveTo(at.x, at.y - 3);
      context.lineTo(at.x, at.y + 3);
    }
    context.lineWidth = 1.5;
    context.stroke();
  }

  /** @param {CanvasRenderingContext2D} context @param {Point} at */
  _cross(context, { x, y }) {
    for (const [width, colour] of /** @type {[number, string][]} */ ([[4, "#000"], [1.5, "#fff"]])) {
      context.beginPath();
      context.moveTo(x - 12, y);
      context.lineTo(x + 12, y);
      context.moveTo(x, y - 12);
      context.lineTo(x, y + 12);
      context.lineWidth = width;
      context.strokeStyle = colour;
      context.stroke();
    }
  }

  /** @param {Point} point */
  _keepInSight(point) {
    const { x, y } = this.onScreen(point);
    const { clientWidth, clientHeight } = this.canvas;
    this._left += Math.max(0, 16 - x) - Math.max(0, x - clientWidth + 16);
    this._top += Math.max(0, 16 - y) - Math.max(0, y - clientHeight + 16);
  }

  _resized() {
    if (this._isFitted) this.fit();
    else this.draw();
  }
}

/**
 * A picture and its masks, in a context whose unit is the picture's pixel.
 * @param {CanvasRenderingContext2D} context
 * @param {ImageBitmap | HTMLCanvasElement} picture
 * @param {Layer[]} layers
 * @param {number} scale pixels of the screen per pixel of the picture
 */
export function paint(context, picture, layers, scale) {
  context.imageSmoothingEnabled = scale < 3;
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, 0, 0);
  context.lineJoin = "round";
  for (const { mask, colour, strong = false, faint = false } of layers) {
    context.globalAlpha = strong ? 0.6 : faint ? 0.15 : 0.42;
    context.fillStyle = colour;
    context.fill(mask.path, "evenodd");
    context.globalAlpha = faint ? 0.4 : 1;
    context.lineWidth = (strong ? 2 * OUTLINE : OUTLINE) / scale;
    context.strokeStyle = colour;
    context.stroke(mask.path);
  }
  context.globalAlpha = 1;
}
