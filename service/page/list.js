// The lists beside the picture: what is asked, and what was found.

import { colourOfPrompt, nameOf, partsOf } from "./prompts.js";

const element = (name) => document.getElementById(`image-${name}`);

/**
 * A prompt with what it found.
 * @typedef {{prompt: import("./prompts.js").Prompt, said: string, failed: boolean, count: number | null}} Row
 * `said`: why it is not asked, or why it was refused; `count`: null while it is not answered.
 */

// What the lists show: one that is the same is left alone, with what is focused and what was read out.
const listed = { prompts: "", segments: "" };

/** Whether a list is to show something else than before. */
function changes(name, shown) {
  const told = JSON.stringify(shown);
  if (listed[name] === told) return false;
  listed[name] = told;
  return true;
}

/**
 * @param {Row[]} rows
 * @param {import("./prompts.js").Prompts} prompts
 */
export function listPrompts(rows, prompts) {
  if (!changes("prompts", [rows.map(({ prompt, said, count }) => [prompt, said, count]), prompts.selected])) return;
  const focused = document.activeElement?.closest?.("#image-prompts li")?.dataset.id;
  const list = element("prompts");
  list.replaceChildren(...rows.map((row) => promptItem(row, prompts)));
  if (focused) (list.querySelector(`[data-id="${focused}"] button`) ?? element("text")).focus();
}

function promptItem({ prompt, said, failed, count }, prompts) {
  const item = document.createElement("li");
  item.dataset.id = String(prompt.id);
  const name = nameOf(prompt, prompts.list);
  const selected = prompts.selected === prompt;
  const chip = button("", () => prompts.select(selected ? null : prompt.id));
  chip.setAttribute("aria-pressed", String(selected));
  chip.title = selected ? "Clicks add to this" : "Have clicks add to this";
  chip.append(swatch(colourOfPrompt(prompt)), part("b", name), part("span", partsOf(prompt)));
  const told = part("span", count === null ? (said ? "" : "…") : String(count));
  told.className = "count";
  if (count !== null) told.title = `${count} found`;
  chip.append(told);
  const remove = button("×", () => prompts.remove(prompt.id));
  remove.setAttribute("aria-label", `Take ${name} away`);
  remove.className = "remove";
  item.append(chip, remove);
  if (said) {
    const why = part("p", said);
    why.className = failed ? "error" : "why";
    if (failed) why.setAttribute("role", "alert");
    item.append(why);
  }
  return item;
}

/**
 * @param {(import("./answers.js").Segment & {prompt: number, colour: string})[]} segments in the order of their
 *   prompts
 * @param {(place: number) => void} hover is told which is to stand out; -1: none
 * @param {(prompt: number) => void} select
 */
export function listSegments(segments, hover, select) {
  if (!changes("segments", segments.map(({ prompt, label, score }) => [prompt, label, score]))) return;
  element("segments").replaceChildren(
    ...segments.map((segment, place) => {
      const item = document.createElement("li");
      const row = button("", () => select(segment.prompt));
      const bar = document.createElement("meter");
      [bar.min, bar.max, bar.value] = [0, 1, segment.score];
      bar.ariaHidden = "true";
      row.append(swatch(segment.colour), part("b", segment.label), bar, part("span", segment.score.toFixed(2)));
      for (const name of ["pointerenter", "focus"]) row.addEventListener(name, () => hover(place));
      for (const name of ["pointerleave", "blur"]) row.addEventListener(name, () => hover(-1));
      item.append(row);
      return item;
    }),
  );
}

/** Have the row of a segment stand out, by its place in the list; -1: none. @param {number} place */
export function markSegment(place) {
  [...element("segments").children].forEach((item, index) => item.classList.toggle("hovered", index === place));
}

/** A button for each text to try. @param {string[]} texts @param {(text: string) => void} add @param {boolean} able */
export function listTexts(texts, add, able) {
  const buttons = texts.map((text) => button(text, () => add(text)));
  for (const each of buttons) each.disabled = !able;
  element("try").replaceChildren(...(texts.length ? [part("span", "Try"), ...buttons] : []));
}

export function button(text, press) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = text;
  made.addEventListener("click", press);
  return made;
}

export function part(name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

export function swatch(colour) {
  const made = part("i", "");
  made.className = "swatch";
  made.style.background = colour;
  return made;
}
