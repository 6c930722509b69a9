// What clicks, boxes and texts make of the prompts of a frame, and which object they are of.

import { Problem } from "./api.js";
import { newKey } from "./tracker.js";

/**
 * @typedef {import("./tracker.js").Prompt} Prompt
 * @typedef {{key?: number, object?: number}} Target  an object by its id, or by the prompt that begins it
 */

export class Aim {
  /** @type {Target | null} what points are of; null: the next begins another object */
  target = null;
  /** Whether the target was chosen by hand: then boxes are of it as well. */
  isChosen = false;
  #tracker;

  /** @param {import("./tracker.js").Tracker} tracker */
  constructor(tracker) {
    this.#tracker = tracker;
  }

  /** @param {number | null} id null: none */
  choose(id) {
    this.target = id === null ? null : { object: id, key: this.#promptOf(id)?.key };
    this.isChosen = id !== null;
  }

  /** Look for what a new object was called in the answer. */
  learn() {
    const { answer, prompts } = this.#tracker;
    const index = prompts.findIndex(({ key }) => key === this.target?.key);
    const found = index >= 0 && answer?.objects.find(({ prompt }) => prompt === index);
    if (found && this.target) this.target.object = found.object;
  }

  /**
   * A click. Throws a Problem where it is of no object.
   * @param {{x: number, y: number, positive: boolean}} point
   * @param {number | null} over id of the object that it hit
   */
  point(point, over) {
    if (!this.target && !point.positive) {
      if (over === null) throw told("A − click takes away from an object: click on one, or choose it first.");
      this.choose(over);
    }
    this.#add({ points: [point] }, this.target);
  }

  /** @param {number[]} box */
  box(box) {
    this.#add({ box }, this.isChosen ? this.target : null);
  }

  /** @param {string} text Throws a Problem for one that is followed. */
  text(text) {
    if (this.#tracker.texts.includes(text)) throw told(`“${text}” is followed already.`);
    this.#tracker.edit([...this.#tracker.editable, { key: newKey(), text }]);
  }

  /** Follow an object no more. Throws a Problem where the API has no way to say that. @param {number} id */
  remove(id) {
    const own = this.#promptOf(id);
    const known = this.#tracker.isKnown(id);
    if (!own && !known) {
      throw told("A text found it on this frame: take the text away, or the object on the next frame.");
    }
    const rest = this.#tracker.editable.filter((each) => each !== own);
    this.#tracker.edit(known ? [...rest, { key: newKey(), remove: { object: id } }] : rest);
    if (this.target?.object === id) this.choose(null);
  }

  /** Follow a text and what it found no more. @param {string} text */
  removeText(text) {
    const { editable } = this.#tracker;
    const rest = editable.filter((each) => each.text !== text);
    const isOwn = rest.length < editable.length;
    this.#tracker.edit(isOwn ? rest : [...rest, { key: newKey(), remove: { text } }]);
  }

  /** @param {{points: any[]} | {box: number[]}} shown @param {Target | null} target */
  #add(shown, target) {
    const prompts = this.#tracker.editable;
    const own = target && prompts.find(({ key, object }) => key === target.key || same(object, target.object));
    if (own) {
      const points = [...(own.points ?? []), ...("points" in shown ? shown.points : [])];
      const changed = { ...own, ...shown, ...(points.length ? { points } : {}) };
      this.#tracker.edit(prompts.map((each) => (each === own ? changed : each)));
      return;
    }
    const prompt = { key: newKey(), ...(target ? this.#known(target) : {}), ...shown };
    this.target = { ...target, key: prompt.key };
    if (!target) this.isChosen = false;
    this.#tracker.edit([...prompts, prompt]);
  }

  /** What names an object to the service. @param {Target} target */
  #known({ object }) {
    const found = this.#tracker.answer?.objects.find((each) => each.object === object);
    // A text found it on this very frame: without its mask a click would begin something else.
    const hint = found?.mask && !this.#tracker.isKnown(found.object) ? { mask: found.mask } : {};
    return { object, ...hint };
  }

  /** The prompt that shows an object on this frame; none where a text found it. @param {number} id */
  #promptOf(id) {
    const { editable, prompts, answer } = this.#tracker;
    const index = answer?.objects.find(({ object }) => object === id)?.prompt;
    const key = index === undefined ? undefined : prompts[index]?.key;
    return editable.find((each) => !each.text && (same(each.object, id) || same(each.key, key)));
  }
}

function same(one, other) {
  return one !== undefined && one === other;
}

/** @param {string} words */
function told(words) {
  return new Problem("invalid_argument", words);
}
