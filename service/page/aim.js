// What clicks, boxes and texts make of the current frame's prompts, and which object they are of.

import { Problem } from "./api.js";

export class Aim {
  /** The object that clicks are of; null: the next begins another. @type {number | null} */
  target = null;
  /** Whether it was chosen by hand: then boxes are of it as well. */
  isChosen = false;
  #tracker;

  /** @param {import("./tracker.js").Tracker} tracker */
  constructor(tracker) {
    this.#tracker = tracker;
  }

  /** @param {number | null} object null: the next click begins another */
  choose(object) {
    this.target = object;
    this.isChosen = object !== null;
  }

  /** What is there no more, since it was undone or removed, is no target: what was shown before it is. */
  check() {
    const { answer, prompts, isBusy } = this.#tracker;
    const there = (each) => prompts.some(({ object }) => object === each) || inAnswer(answer, each);
    if (this.target === null || isBusy || there(this.target)) return;
    const last = prompts.findLast(({ object }) => object !== undefined);
    this.target = last?.object ?? null;
    this.isChosen = false;
  }

  /**
   * A click. Throws a Problem where it is of no object.
   * @param {{x: number, y: number, positive: boolean}} point
   * @param {number | null} over the object that it hit
   */
  point(point, over) {
    if (this.target === null && !point.positive) {
      if (over === null) throw told("A − takes away from an object: click on one, or choose it in the list first.");
      this.choose(over);
    }
    const own = this.#own(this.target);
    this.#show({ ...own, points: [...(own.points ?? []), point] });
  }

  /** Throws a Problem. @param {number[]} box */
  box(box) {
    this.#show({ ...this.#own(this.isChosen ? this.target : null), box });
  }

  /** Throws a Problem for one that is followed. @param {string} text */
  text(text) {
    if (this.#tracker.texts.includes(text)) throw told(`“${text}” is followed already.`);
    this.#tracker.edit([...this.#tracker.prompts, { text }]);
  }

  /** Follow an object no more. Throws a Problem for one that a text finds. @param {number} object */
  remove(object) {
    const { prompts, texts, answer } = this.#tracker;
    const label = answer?.objects.find((each) => each.object === object)?.label;
    if (texts.includes(label)) throw told(`“${label}” would find it again: take that text away.`);
    const rest = prompts.filter((each) => each.object !== object);
    const known = this.#tracker.wasKnown(object);
    if (this.target === object) this.choose(null);
    this.#tracker.edit(known ? [...rest, { remove: { object } }] : rest);
  }

  /** Follow a text and what it found no more. @param {string} text */
  removeText(text) {
    const { prompts } = this.#tracker;
    const rest = prompts.filter((each) => each.text !== text);
    this.#tracker.edit(rest.length < prompts.length ? rest : [...rest, { remove: { text } }]);
  }

  /** The prompt that the current frame has for an object, or one for another. @param {number | null} object */
  #own(object) {
    const { prompts, answer } = this.#tracker;
    if (object === null) return { object: this.#tracker.newObject() };
    const own = prompts.find((each) => each.object === object);
    if (!own && !this.#tracker.wasKnown(object) && inAnswer(answer, object)) {
      throw told("A text found it on this very frame: it can be refined from the next frame on.");
    }
    return own ?? { object };
  }

  /** @param {import("./tracker.js").Prompt} prompt */
  #show(prompt) {
    const { prompts } = this.#tracker;
    if (this.target !== prompt.object) [this.target, this.isChosen] = [prompt.object ?? null, false];
    const rest = prompts.filter(({ object }) => object !== prompt.object);
    const place = prompts.findIndex(({ object }) => object === prompt.object);
    rest.splice(place < 0 ? rest.length : place, 0, prompt);
    this.#tracker.edit(rest);
  }
}

function inAnswer(answer, object) {
  return Boolean(answer?.objects.some((each) => each.object === object));
}

/** @param {string} words */
function told(words) {
  return new Problem("invalid_argument", words);
}
