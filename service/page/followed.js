// The lists beside a video: the texts and the objects that are followed. Rows stay while frames come, with what is
// focused in them.

import { button, part, swatch } from "./list.js";

const element = (name) => document.getElementById(`video-${name}`);

/** @typedef {import("./scene.js").Followed} Followed */

/** @param {string[]} texts @param {{remove: (text: string) => void}} told */
export function listFollowedTexts(texts, { remove }) {
  const list = element("texts");
  const shown = [...list.children].map(({ dataset }) => dataset.text);
  if (shown.join("\n") === texts.join("\n")) return;
  const focused = list.contains(document.activeElement);
  list.replaceChildren(
    ...texts.map((text) => {
      const item = document.createElement("li");
      item.dataset.text = text;
      const chip = part("span", text);
      chip.className = "chip";
      item.append(chip, removal(`Follow ${text} no more`, () => remove(text)));
      return item;
    }),
  );
  if (focused) (list.querySelector("button") ?? element("text")).focus();
}

export class FollowedObjects {
  #told;
  /** @type {Map<number, HTMLLIElement>} */
  #rows = new Map();

  /**
   * @param {{choose: (id: number) => void, remove: (id: number) => void, hover: (id: number | null) => void}} told
   */
  constructor(told) {
    this.#told = told;
  }

  /** @param {Followed[]} objects in their order */
  show(objects) {
    const list = element("objects");
    const ids = objects.map(({ id }) => id);
    const focused = list.contains(document.activeElement);
    for (const [id, row] of this.#rows) {
      if (ids.includes(id)) continue;
      row.remove();
      this.#rows.delete(id);
    }
    objects.forEach((object, place) => {
      const row = this.#rows.get(object.id) ?? this.#row(object.id);
      if (list.children[place] !== row) list.insertBefore(row, list.children[place] ?? null);
      fill(row, object);
    });
    if (focused && !list.contains(document.activeElement)) (list.querySelector("button") ?? element("text")).focus();
  }

  /** Have the row of an object stand out. @param {number | null} id */
  mark(id) {
    for (const [each, row] of this.#rows) row.classList.toggle("hovered", each === id);
  }

  /** @param {number} id */
  #row(id) {
    const { choose, remove, hover } = this.#told;
    const row = document.createElement("li");
    const chip = button("", () => choose(id));
    const bar = document.createElement("meter");
    [bar.min, bar.max, bar.ariaHidden] = [0, 1, "true"];
    chip.append(swatch(""), part("b", ""), bar, part("span", ""));
    for (const name of ["pointerenter", "focus"]) chip.addEventListener(name, () => hover(id));
    for (const name of ["pointerleave", "blur"]) chip.addEventListener(name, () => hover(null));
    row.append(chip, removal("", () => remove(id)));
    this.#rows.set(id, row);
    return row;
  }
}

/** @param {HTMLLIElement} row @param {Followed} object */
function fill(row, { label, text, score, visible, colour, chosen }) {
  const [chip, remove] = /** @type {HTMLCollectionOf<HTMLButtonElement>} */ (row.children);
  const [mark, called, bar, told] = /** @type {HTMLCollectionOf<HTMLElement>} */ (chip.children);
  mark.style.background = colour;
  called.textContent = label;
  /** @type {HTMLMeterElement} */ (bar).value = visible ? score : 0;
  told.textContent = visible ? score.toFixed(2) : "hidden";
  row.classList.toggle("hidden", !visible);
  chip.setAttribute("aria-pressed", String(chosen));
  chip.title = chosen ? "Clicks are of this object" : "Have clicks be of this object";
  remove.setAttribute("aria-label", `Follow no more: ${label}`);
  remove.title = "Follow no more";
  // A text would find it again: it is the text that is taken away.
  remove.hidden = text !== "";
}

function removal(label, press) {
  const made = button("×", press);
  made.className = "remove";
  made.setAttribute("aria-label", label);
  return made;
}
