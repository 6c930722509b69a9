// A frame with what is followed on it, drawn in a view.

import { Colours } from "./colours.js";
import { decode } from "./rle.js";

/**
 * An object of the frame as it is drawn and listed; `text` found it, unless it is empty.
 * @typedef {import("./paint.js").Shown & {id: number, text: string, visible: boolean, area: number,
 *   chosen: boolean}} Followed
 */

export class Scene {
  /** @type {Followed[]} in the order of their ids */
  objects = [];
  #view;
  #colours = new Colours();
  /** @type {ImageBitmap | null} */
  #picture = null;
  /** @type {import("./session.js").Answer | null} */
  #answer = null;
  /** @type {Map<number, import("./rle.js").Mask>} of the answer, by object */
  #masks = new Map();

  /** @param {import("./view.js").View} view */
  constructor(view) {
    this.#view = view;
  }

  /** Show nothing, and forget the colours. */
  clear() {
    [this.objects, this.#picture, this.#answer] = [[], null, null];
    this.#colours = new Colours();
    [this.#view.segments, this.#view.marks] = [[], []];
    this.#view.hover(null);
    this.#view.show(null, 0, 0);
  }

  /** @param {import("./tracker.js").Tracker} tracker @param {number | null} target the object that is chosen */
  show({ frame, answer, prompts, isCurrent }, target) {
    if (answer && answer !== this.#answer) this.#take(answer);
    this.#answer = answer;
    this.objects = (answer?.objects ?? []).map((each) => this.#object(each, target));
    const drawn = this.objects.filter(({ mask }) => mask);
    // The smallest lies on top.
    this.#view.segments = drawn.sort((one, other) => one.area - other.area);
    this.#view.marks = isCurrent ? prompts.flatMap((each) => this.#marks(each, target)) : [];
    const { hovered } = this.#view;
    if (hovered) this.#keepHovered(drawn.find(({ id }) => id === hovered.id) ?? null);
    if (frame && frame.picture !== this.#picture) {
      this.#picture = frame.picture;
      this.#view.show(frame.picture, frame.picture.width, frame.picture.height);
    } else {
      this.#view.draw();
    }
  }

  /** The object stands out, in the picture; null: none does. @param {number | null} id */
  hover(id) {
    this.#view.hover(this.#view.segments.find((each) => each.id === id) ?? null);
  }

  /** @param {import("./session.js").Answer} answer */
  #take(answer) {
    const before = this.#answer;
    const corrects = before?.frame === answer.frame && before.revision !== answer.revision;
    this.#colours.give(answer.objects, corrects ? before.objects : []);
    this.#masks = new Map(answer.objects.flatMap(({ object, mask }) => (mask ? [[object, decode(mask)]] : [])));
  }

  /** The pointer rests where it was, and so does what it tells. @param {Followed | null} object */
  #keepHovered(object) {
    if (object) this.#view.hovered = object;
    else this.#view.hover(null);
  }

  #object({ object: id, label: text, score, visible, box = null, area }, target) {
    const [mask, colour] = [this.#masks.get(id) ?? null, this.#colours.of(id)];
    const label = `${text || "object"} ${id}`;
    return { id, label, text, score, visible, box, area, mask, colour, chosen: id === target };
  }

  /** @param {import("./tracker.js").Prompt} prompt @returns {import("./paint.js").Mark[]} */
  #marks({ object = 0, points = [], box }, target) {
    const its = { colour: this.#colours.of(object), faint: object !== target };
    return [
      ...(box ? [{ box, positive: true, ...its }] : []),
      ...points.map(({ x, y, positive }) => ({ point: { x, y }, positive, ...its })),
    ];
  }
}
