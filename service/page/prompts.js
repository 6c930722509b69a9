// What is asked of a picture: concepts (every instance of a text, or of what is shown by examples) and objects
// (one, by clicks and a box), with undo. A state is never changed, it is followed by another.

import { colourOf } from "./paint.js";

/**
 * @typedef {{x: number, y: number, positive: boolean}} Point
 * @typedef {{box?: number[], point?: {x: number, y: number}, positive: boolean}} Exemplar
 * @typedef {{id: number, kind: "concept", text: string, exemplars: Exemplar[]}} Concept
 * @typedef {{id: number, kind: "object", points: Point[], box: number[] | null}} Thing
 * @typedef {Concept | Thing} Prompt
 * @typedef {{prompts: Prompt[], selected: number | null}} State `selected`: the id of the prompt that the next
 *   click adds to
 */

/** @type {State} */
const EMPTY = { prompts: [], selected: null };

/** Tells of `change` whenever the state is another. */
export class Prompts extends EventTarget {
  /** @type {State[]} */
  #states = [EMPTY];
  #place = 0;
  #ids = 0;

  get #state() {
    return this.#states[this.#place];
  }

  get list() {
    return this.#state.prompts;
  }

  /** The prompt that clicks add to, if any. */
  get selected() {
    return this.list.find(({ id }) => id === this.#state.selected) ?? null;
  }

  get canUndo() {
    return this.#place > 0;
  }

  get canRedo() {
    return this.#place + 1 < this.#states.length;
  }

  undo() {
    if (this.canUndo) this.#go(this.#place - 1);
  }

  redo() {
    if (this.canRedo) this.#go(this.#place + 1);
  }

  /** Begin anew, with nothing to undo: another picture. */
  reset() {
    this.#states = [EMPTY];
    this.#go(0);
  }

  clear() {
    if (this.list.length) this.#follow(EMPTY);
  }

  /** Select a prompt, or none: the next click begins another object. @param {number | null} id */
  select(id) {
    if (id === this.#state.selected) return;
    // Nothing that is undone: it is part of the state that it selects in.
    this.#states[this.#place] = { ...this.#state, selected: id };
    this.dispatchEvent(new Event("change"));
  }

  /** @param {number} id */
  remove(id) {
    const prompts = this.list.filter((each) => each.id !== id);
    const selected = this.#state.selected === id ? null : this.#state.selected;
    this.#follow({ prompts, selected });
  }

  /** A text, all of whose instances are to be found; one that is there already is selected. @param {string} text */
  addText(text) {
    const known = this.list.find((each) => each.kind === "concept" && each.text === text);
    if (known) return this.select(known.id);
    this.#add({ id: ++this.#ids, kind: "concept", text, exemplars: [] });
  }

  /** A click on the selected object, or on another. @param {Point} point */
  addPoint(point) {
    const to = this.selected?.kind === "object" ? this.selected : null;
    if (to) this.#change({ ...to, points: [...to.points, point] });
    else this.#add({ id: ++this.#ids, kind: "object", points: [point], box: null });
  }

  /** The box of the selected object, unless it has one: then of another. @param {number[]} box */
  addBox(box) {
    const to = this.selected?.kind === "object" && !this.selected.box ? this.selected : null;
    if (to) this.#change({ ...to, box });
    else this.#add({ id: ++this.#ids, kind: "object", points: [], box });
  }

  /** An example of the selected concept, or of one without a text. @param {Exemplar} exemplar */
  addExemplar(exemplar) {
    const to = this.selected?.kind === "concept" ? this.selected : null;
    if (to) this.#change({ ...to, exemplars: [...to.exemplars, exemplar] });
    else this.#add({ id: ++this.#ids, kind: "concept", text: "", exemplars: [exemplar] });
  }

  #add(prompt) {
    this.#follow({ prompts: [...this.list, prompt], selected: prompt.id });
  }

  #change(prompt) {
    const prompts = this.list.map((each) => (each.id === prompt.id ? prompt : each));
    this.#follow({ prompts, selected: prompt.id });
  }

  #follow(state) {
    this.#states = [...this.#states.slice(0, this.#place + 1), state];
    this.#go(this.#place + 1);
  }

  #go(place) {
    this.#place = place;
    this.dispatchEvent(new Event("change"));
  }
}

/** @param {Prompt} prompt */
export const colourOfPrompt = (prompt) => colourOf(prompt.id - 1);

/** What it is called. @param {Prompt} prompt @param {Prompt[]} list that it is of */
export function nameOf(prompt, list) {
  if (prompt.kind === "concept" && prompt.text) return prompt.text;
  const alike = list.filter((each) => each.kind === prompt.kind && !each.text);
  return `${prompt.kind === "object" ? "object" : "like example"} ${alike.indexOf(prompt) + 1}`;
}

/** What it is made of beside its text, in words. @param {Prompt} prompt */
export function partsOf(prompt) {
  const counted = (count, one, many) => (count ? [count === 1 ? `1 ${one}` : `${count} ${many}`] : []);
  if (prompt.kind === "concept") return counted(prompt.exemplars.length, "example", "examples").join();
  return [...counted(prompt.points.length, "click", "clicks"), ...(prompt.box ? ["box"] : [])].join(", ");
}

/** The prompt as the API has it. @param {Prompt} prompt */
export function asked(prompt) {
  if (prompt.kind === "object") {
    return { ...(prompt.points.length && { points: prompt.points }), ...(prompt.box && { box: prompt.box }) };
  }
  return {
    ...(prompt.text && { text: prompt.text }),
    ...(prompt.exemplars.length && { exemplars: prompt.exemplars }),
  };
}

/** The kinds of prompt that a variant needs for it. @param {Prompt} prompt */
export function kindsOf(prompt) {
  if (prompt.kind === "object") {
    return [...(prompt.points.length ? ["points"] : []), ...(prompt.box ? ["box"] : [])];
  }
  const shown = prompt.exemplars.map((each) => (each.box ? "exemplar_box" : "exemplar_point"));
  return [...(prompt.text ? ["text"] : []), ...new Set(shown)];
}

/** Its clicks and boxes, to be drawn. @param {Prompt} prompt @param {boolean} selected */
export function marksOf(prompt, selected) {
  const colour = colourOfPrompt(prompt);
  const marks =
    prompt.kind === "concept"
      ? prompt.exemplars
      : [
          ...(prompt.box ? [{ box: prompt.box, positive: true }] : []),
          ...prompt.points.map(({ x, y, positive }) => ({ point: { x, y }, positive })),
        ];
  return marks.map((mark) => ({ ...mark, colour, faint: !selected }));
}
