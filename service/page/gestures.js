// @ts-check
/** What hands do on a view: click, drag, pinch, wheel, and the same by keys. */

/** A pointer that moved less, in pixels of the screen, has clicked. */
const STILL = 5;
/** What an arrow moves the cursor by, pixels of the screen; with Shift. */
const STEP = 8;
const LEAP = 48;
const ARROWS = new Map([
  ["ArrowLeft", [-1, 0]],
  ["ArrowRight", [1, 0]],
  ["ArrowUp", [0, -1]],
  ["ArrowDown", [0, 1]],
]);

/** @typedef {import("./view.js").Point} Point */

export class Gestures {
  /** @param {import("./view.js").View} view */
  constructor(view) {
    this.view = view;
    /** @type {Map<number, Point>} pointers that are down, pixels of the element */
    this._down = new Map();
    /** @type {{at: Point, isNegative: boolean, isStill: boolean, moves: boolean} | null} */
    this._begun = null;
    /** @type {Point | null} the first corner of a box that is drawn by keys */
    this._corner = null;
    const { canvas } = view;
    canvas.addEventListener("pointerdown", (event) => this._pressed(event));
    canvas.addEventListener("pointermove", (event) => this._moved(event));
    canvas.addEventListener("pointerup", (event) => this._released(event));
    canvas.addEventListener("pointercancel", (event) => this._given(event));
    canvas.addEventListener("pointerleave", () => view.events.hovered?.(null, { x: 0, y: 0 }));
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("wheel", (event) => this._wheeled(event), { passive: false });
    canvas.addEventListener("keydown", (event) => this._typed(event));
    canvas.addEventListener("blur", () => this._forget());
  }

  /** @param {PointerEvent} event */
  _pressed(event) {
    if (!this.view.picture) return;
    const at = place(event);
    this.view.canvas.setPointerCapture(event.pointerId);
    this._down.set(event.pointerId, at);
    this._forget();
    if (this._down.size > 1) {
      // A second finger: what the first one began is a pinch.
      this._begun = null;
      return;
    }
    const isNegative = event.button === 2 || event.altKey;
    const moves = event.button === 1 || !this.view.dragsBoxes;
    this._begun = { at, isNegative, isStill: true, moves };
  }

  /** @param {PointerEvent} event */
  _moved(event) {
    const { view } = this;
    const at = place(event);
    const before = this._down.get(event.pointerId);
    if (!before) {
      const point = view.inPicture(at);
      view.events.hovered?.(view.isInside(point) ? point : null, at);
      return;
    }
    this._down.set(event.pointerId, at);
    if (this._down.size > 1) this._pinched(event.pointerId, before, at);
    else if (this._begun) this._dragged(this._begun, before, at);
  }

  /** @param {NonNullable<Gestures["_begun"]>} begun @param {Point} before @param {Point} at */
  _dragged(begun, before, at) {
    const { view } = this;
    if (begun.isStill && Math.hypot(at.x - begun.at.x, at.y - begun.at.y) < STILL) return;
    if (begun.isStill) before = begun.at;
    begun.isStill = false;
    view.events.hovered?.(null, at);
    if (begun.moves) view.move(at.x - before.x, at.y - before.y);
    else view.setDrawn(this._boxTo(view.inPicture(begun.at), view.inPicture(at)));
  }

  /** @param {number} id @param {Point} before @param {Point} at */
  _pinched(id, before, at) {
    const [other] = [...this._down].filter(([each]) => each !== id).map(([, point]) => point);
    const factor = Math.hypot(at.x - other.x, at.y - other.y) / Math.hypot(before.x - other.x, before.y - other.y);
    this.view.move((at.x - before.x) / 2, (at.y - before.y) / 2);
    if (Number.isFinite(factor)) this.view.zoom(factor, { x: (at.x + other.x) / 2, y: (at.y + other.y) / 2 });
  }

  /** @param {PointerEvent} event */
  _released(event) {
    const { view } = this;
    const begun = this._begun;
    this._given(event);
    if (!begun || event.button === 1) return;
    const [from, to] = [view.inPicture(begun.at), view.inPicture(place(event))];
    if (begun.isStill) {
      if (view.isInside(to)) view.events.clicked?.(to, begun.isNegative);
    } else if (!begun.moves) {
      this._boxed(this._boxTo(from, to), begun.isNegative);
    }
  }

  /** @param {PointerEvent} event */
  _given(event) {
    this._down.delete(event.pointerId);
    this._begun = null;
    this.view.setDrawn(null);
  }

  /** @param {WheelEvent} event */
  _wheeled(event) {
    if (!this.view.picture) return;
    event.preventDefault();
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 24 : 1;
    this.view.zoom(Math.exp(-event.deltaY * lines * 0.002), place(event));
  }

  /** @param {KeyboardEvent} event */
  _typed(event) {
    const { view } = this;
    if (!view.picture || event.ctrlKey || event.metaKey) return;
    const arrow = ARROWS.get(event.key);
    const cursor = view.cursor ?? { x: view.picture.width / 2, y: view.picture.height / 2 };
    if (arrow) {
      const step = (event.shiftKey ? LEAP : STEP) * (view.inPicture({ x: 1, y: 0 }).x - view.inPicture({ x: 0, y: 0 }).x);
      view.setCursor({ x: cursor.x + arrow[0] * step, y: cursor.y + arrow[1] * step });
      view.setDrawn(this._corner && this._boxTo(this._corner, view.cursor ?? cursor));
      view.events.hovered?.(view.cursor, view.onScreen(view.cursor ?? cursor));
    } else if (event.key === "Enter" || event.key === " ") {
      if (view.cursor) this._placed(view.cursor, event.altKey);
      else view.setCursor(cursor);
    } else if (event.key === "Escape" && this._corner) {
      this._forget();
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }

  /** A click by keys, or one of a box's corners. @param {Point} point @param {boolean} isNegative */
  _placed(point, isNegative) {
    if (!this.view.dragsBoxes) {
      this.view.events.clicked?.(point, isNegative);
    } else if (this._corner) {
      const box = this._boxTo(this._corner, point);
      this._forget();
      this._boxed(box, isNegative);
    } else {
      this._corner = point;
    }
  }

  /** @param {number[]} box @param {boolean} isNegative */
  _boxed(box, isNegative) {
    if (box[2] - box[0] >= 1 && box[3] - box[1] >= 1) this.view.events.dragged?.(box, isNegative);
  }

  /** @param {Point} from @param {Point} to @returns {number[]} xyxy, inside the picture */
  _boxTo(from, to) {
    const [one, other] = [this.view.within(from), this.view.within(to)];
    const box = [Math.min(one.x, other.x), Math.min(one.y, other.y), Math.max(one.x, other.x), Math.max(one.y, other.y)];
    return box.map((edge) => Math.round(edge * 10) / 10);
  }

  _forget() {
    this._corner = null;
    this.view.setDrawn(null);
  }
}

/** @param {MouseEvent} event @returns {Point} pixels of the element */
function place({ offsetX, offsetY }) {
  return { x: offsetX, y: offsetY };
}
