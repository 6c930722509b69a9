// Image mode's controls: the tools, the text to find, the threshold, undo, zoom, and their keys.

const element = (name) => document.getElementById(`image-${name}`);
const choice = (name) => /** @type {HTMLInputElement} */ (document.querySelector(`[name=image-${name}]:checked`)).value;
const radio = (name, value) => document.querySelector(`[name=image-${name}][value="${value}"]`);

/** The kinds of prompt that a tool makes, of a click and of a box. */
export const KINDS = {
  object: { point: "points", box: "box" },
  example: { point: "exemplar_point", box: "exemplar_box" },
};
const HOW = {
  object: "Click on an object, or drag a box around it; Shift or the right button takes away.",
  example: "Drag a box around one of a kind, or click on it: all of its kind are found.",
  move: "Drag to move the picture; the wheel or two fingers zoom.",
};

export class Controls {
  #prompts;
  #view;
  #variants;
  #rescored;
  // Until somebody moves it, the slider stands where the variant's threshold is.
  #moved = false;

  /**
   * @param {import("./prompts.js").Prompts} prompts
   * @param {import("./view.js").View} view
   * @param {import("./variants.js").Variants} variants
   * @param {{rescored: () => void, again: () => void}} told of another threshold, and that what failed is to be
   *   asked again
   */
  constructor(prompts, view, variants, { rescored, again }) {
    [this.#prompts, this.#view, this.#variants, this.#rescored] = [prompts, view, variants, rescored];
    for (const each of document.querySelectorAll("[name=image-tool], [name=image-sign]")) {
      each.addEventListener("change", () => this.#hold());
    }
    element("threshold").addEventListener("input", () => {
      this.#moved = true;
      this.#score();
      this.#rescored();
    });
    const press = (name, action) => element(name).addEventListener("click", action);
    press("undo", () => prompts.undo());
    press("redo", () => prompts.redo());
    press("clear", () => prompts.clear());
    press("in", () => view.zoom(1.25));
    press("out", () => view.zoom(0.8));
    press("fit", () => view.fit());
    press("again", again);
    element("concept").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#find();
    });
    this.#hold();
    this.#score();
  }

  /** Concepts are shown from this score on. */
  get threshold() {
    return Number(element("threshold").value);
  }

  /** Enable what the variant can do, and say why the rest is not. */
  able() {
    const { chosen } = this.#variants;
    if (chosen && !this.#moved) element("threshold").value = String(chosen.score_threshold);
    const why = this.#variants.whyNot("text");
    for (const name of ["text", "find-button"]) element(name).disabled = Boolean(why);
    element("text-why").textContent = why;
    const reasons = Object.entries(KINDS).map(([tool, { point, box }]) => {
      const reason = this.#variants.whyNot(point, box);
      radio("tool", tool).disabled = Boolean(reason);
      return reason;
    });
    element("tool-why").textContent = [...new Set(reasons)].filter((each) => each && each !== why).join(" ");
    // One that was taken for want of another is not kept.
    const able = ["object", "example", "move"].find((tool) => !radio("tool", tool).disabled);
    if (radio("tool", choice("tool")).disabled) radio("tool", able).checked = true;
    this.#hold();
    this.#score();
  }

  /** Enable what there is to undo. */
  show() {
    element("undo").disabled = !this.#prompts.canUndo;
    element("redo").disabled = !this.#prompts.canRedo;
    element("clear").disabled = !this.#prompts.list.length;
  }

  /** Whether the key meant something. @param {KeyboardEvent} event */
  key(event) {
    if (event.altKey) return false;
    const prompts = this.#prompts;
    const command = event.ctrlKey || event.metaKey;
    const name = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const action = command
      ? { z: () => (event.shiftKey ? prompts.redo() : prompts.undo()), y: () => prompts.redo() }[name]
      : {
          "/": () => element("text").focus(),
          o: () => this.#choose("tool", "object"),
          e: () => this.#choose("tool", "example"),
          m: () => this.#choose("tool", "move"),
          x: () => this.#choose("sign", choice("sign") === "+" ? "-" : "+"),
          n: () => prompts.select(null),
          Delete: () => this.#remove(event.shiftKey),
          Backspace: () => this.#remove(event.shiftKey),
        }[name];
    action?.();
    return Boolean(action);
  }

  /** Ask for a text, and have the picture in sight, which on a phone it may not be. @param {string} text */
  find(text) {
    this.#prompts.addText(text);
    this.#view.canvas.scrollIntoView({ block: "nearest" });
  }

  #remove(all) {
    if (all) this.#prompts.clear();
    else if (this.#prompts.selected) this.#prompts.remove(this.#prompts.selected.id);
  }

  #choose(name, value) {
    if (radio(name, value).disabled) return;
    radio(name, value).checked = true;
    this.#hold();
  }

  /** Hold the chosen tool. */
  #hold() {
    const tool = (this.#view.tool = choice("tool"));
    this.#view.positive = choice("sign") === "+";
    element("how").textContent = HOW[tool];
    element("canvas").dataset.tool = tool;
    element("tool-error").textContent = "";
  }

  #find() {
    const texts = element("text").value.split(",").map((each) => each.trim());
    const said = texts.some(Boolean) ? "" : "Type what to find, such as “dog”; several with commas between them.";
    element("text-error").textContent = said;
    for (const text of texts) if (text) this.find(text);
    element("text").value = "";
  }

  #score() {
    element("score").textContent = this.threshold.toFixed(2);
  }
}
