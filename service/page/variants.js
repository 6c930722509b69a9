// @ts-check
/** What the service's variants can do, and which of them is asked. */

import { call } from "./api.js";

/**
 * @typedef {object} Variant as `GET /v1/variants` has it
 * @property {string} name
 * @property {string[]} prompts kinds that it can serve; empty until one of its workers was ready
 * @property {number} score_threshold
 * @property {number} workers_ready
 * @property {boolean} synthetic
 * @property {boolean} default
 */

/** What a kind of prompt is called where a variant lacks it. */
const NAMES = new Map([
  ["text", "texts"],
  ["exemplar_box", "exemplars"],
  ["exemplar_point", "exemplars by a click"],
  ["points", "clicks"],
  ["box", "boxes"],
  ["mask", "masks"],
]);

/** Fires "change" when the list or the choice is another. */
export class Variants extends EventTarget {
  constructor() {
    super();
    /** @type {Variant[]} */
    this.all = [];
    /** Name of the one that is asked; empty while none is known. */
    this.chosen = "";
  }

  /** @returns {Variant | undefined} */
  get current() {
    return this.all.find(({ name }) => name === this.chosen);
  }

  /** Ask the service. Fails with a Problem. */
  async load() {
    const { variants } = await call("GET", "/v1/variants");
    const before = JSON.stringify(this.all);
    this.all = variants;
    if (!this.current) this.chosen = (this.all.find((each) => each.default) ?? this.all[0])?.name ?? "";
    if (JSON.stringify(this.all) !== before) this.dispatchEvent(new Event("change"));
  }

  /** @param {string} name */
  choose(name) {
    this.chosen = name;
    this.dispatchEvent(new Event("change"));
  }

  /**
   * Why a kind of prompt cannot be asked for now.
   * @param {string} kind such as "text", as in a variant's `prompts`
   * @returns {string} a sentence; empty: it can
   */
  whyNot(kind) {
    const { current } = this;
    if (!current) return "The service has not said yet what it can do.";
    if (!current.prompts.length) return `No worker of ${current.name} has been ready yet.`;
    if (current.prompts.includes(kind)) return "";
    return `${current.name} takes no ${NAMES.get(kind) ?? kind}.`;
  }
}
