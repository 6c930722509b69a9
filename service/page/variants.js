// The configured variants: which is chosen, what it can do, and in words why it cannot do the rest.

import { askJson } from "./api.js";

const KINDS = {
  text: "texts",
  exemplar_box: "boxes as examples",
  exemplar_point: "clicks as examples",
  points: "clicks",
  box: "boxes",
  mask: "masks",
};

/** Tells of `change` when the list or the choice is another. */
export class Variants extends EventTarget {
  /** @type {any[]} as GET /v1/variants lists them */
  list = [];
  #chosen = "";

  /** Ask for the list. Throws Problem. */
  async load() {
    const list = (await askJson("v1/variants")).variants;
    const same = JSON.stringify(list) === JSON.stringify(this.list);
    this.list = list;
    if (!same) this.dispatchEvent(new Event("change"));
  }

  /** The chosen one, else the service's default; undefined where none is configured. */
  get chosen() {
    const named = (name) => this.list.find((each) => each.name === name);
    return named(this.#chosen) ?? this.list.find((each) => each.default) ?? this.list[0];
  }

  /** @param {string} name */
  choose(name) {
    this.#chosen = name;
    this.dispatchEvent(new Event("change"));
  }

  /**
   * Why the chosen one can take none of these kinds of prompt; empty: it can.
   * @param {...keyof typeof KINDS} kinds
   */
  whyNot(...kinds) {
    const chosen = this.chosen;
    if (!chosen) return "No variant is configured.";
    if (kinds.some((kind) => chosen.prompts.includes(kind))) return "";
    if (!chosen.prompts.length) {
      return `What ${chosen.name} can do is known once one of its workers is ready; none is yet.`;
    }
    const able = chosen.prompts.map((each) => KINDS[each] ?? each).join(", ");
    const lacking = kinds.map((kind) => `no ${KINDS[kind]}`).join(" and ");
    return `${chosen.name} takes ${lacking}, but ${able}.`;
  }
}
