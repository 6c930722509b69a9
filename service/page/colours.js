// Colours of followed objects: an object keeps its own, also where a correction of the frame gives it another id.

import { colourOf } from "./paint.js";

/** Two boxes that share more of their union are of the same object. */
const SAME = 0.6;

export class Colours {
  /** @type {Map<number, number>} the places of colours, by the objects' ids */
  #places = new Map();

  /** @param {number} id */
  of(id) {
    return colourOf(this.#places.get(id) ?? 0);
  }

  /**
   * Give each object a colour.
   * @param {any[]} objects of an answer
   * @param {any[]} before of the answer that it corrects; empty: none
   */
  give(objects, before) {
    const known = this.#places;
    const places = new Map(before.length ? [] : known);
    for (const { object: id, box } of objects) {
      const same = before.find((each) => box && each.box && likeness(box, each.box) > SAME);
      const place = known.get(same?.object ?? id);
      if (place !== undefined && !taken(places, id, place)) places.set(id, place);
    }
    for (const { object: id } of objects) {
      let place = 0;
      while (!places.has(id) && taken(places, id, place)) place += 1;
      if (!places.has(id)) places.set(id, place);
    }
    this.#places = places;
  }
}

/** Whether another object has that colour. */
function taken(places, id, place) {
  return [...places].some(([other, its]) => other !== id && its === place);
}

/** Intersection over union of two boxes. @param {number[]} one @param {number[]} other */
function likeness(one, other) {
  const area = ([x0, y0, x1, y1]) => Math.max(0, x1 - x0) * Math.max(0, y1 - y0);
  const both = area([...[0, 1].map((i) => Math.max(one[i], other[i])), ...[2, 3].map((i) => Math.min(one[i], other[i]))]);
  return both / (area(one) + area(other) - both || 1);
}
