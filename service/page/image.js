// Image mode: a picture, what is asked of it, and what was found.

import { Answers } from "./answers.js";
import { inWords } from "./api.js";
import { Controls, KINDS } from "./controls.js";
import { listPrompts, listSegments, listTexts, markSegment } from "./list.js";
import { markSample, startPictures } from "./pictures.js";
import { Prompts, colourOfPrompt, kindsOf, marksOf, nameOf } from "./prompts.js";
import { startTake } from "./take.js";
import { View } from "./view.js";

const element = (name) => document.getElementById(`image-${name}`);

/** @param {import("./app.js").Shared} shared */
export function startImage(shared) {
  const mode = new ImageMode(shared);
  return { admitted: () => mode.admitted(), key: (event) => mode.controls.key(event) };
}

class ImageMode {
  #variants;
  #failed;
  #prompts = new Prompts();
  #answers;
  #view = new View(element("canvas"), element("tip"));
  #take = startTake();
  #openFirst;
  /** @type {ImageBitmap | null} */
  #bitmap = null;
  /** @type {string[]} to try on the picture */
  #texts = [];
  #opening = new AbortController();
  /** @type {(import("./answers.js").Segment & {prompt: number, colour: string})[]} as they are listed */
  #segments = [];

  /** @param {import("./app.js").Shared} shared */
  constructor({ variants, failed }) {
    this.#variants = variants;
    this.#failed = failed;
    this.#answers = new Answers(variants, failed);
    this.controls = new Controls(this.#prompts, this.#view, variants, {
      rescored: () => this.#show(),
      again: () => this.#want(),
    });
    this.#openFirst = startPictures(
      (file, name, texts) => this.#open(file, name, texts),
      (text) => (element("error").textContent = text),
    );
    this.#prompts.addEventListener("change", () => this.#want());
    this.#answers.addEventListener("change", () => this.#show());
    this.#variants.addEventListener("change", () => this.#able());
    this.#view.addEventListener("point", ({ detail }) => this.#draw("point", detail));
    this.#view.addEventListener("box", ({ detail }) => this.#draw("box", detail));
    this.#view.addEventListener("hover", ({ detail: { segment } }) => markSegment(this.#segments.indexOf(segment)));
  }

  /** Requests are let in: now, or again with another key. */
  admitted() {
    if (this.#answers.picture) this.#want();
    else this.#openFirst();
  }

  /** Send a picture and show it; what was there before stays if it is refused. */
  async #open(file, name, texts = []) {
    this.#opening.abort();
    const { signal } = (this.#opening = new AbortController());
    element("error").textContent = "";
    const waits = this.#variants.chosen?.workers_ready === 0;
    element("busy").textContent = waits ? "Waiting for a worker…" : "Sending the picture…";
    element("busy").hidden = false;
    try {
      const decoding = createImageBitmap(file).catch(() => null);
      const picture = await this.#answers.send(file, name, signal);
      const bitmap = await decoding;
      if (signal.aborted) return;
      if (bitmap) this.#have(picture, bitmap, texts);
      else element("error").textContent = `This browser cannot show ${name}; saved as JPEG or PNG it could.`;
    } catch (error) {
      if (signal.aborted) return;
      element("error").textContent = `${name}: ${inWords(error)}`;
      this.#failed(error);
    }
    element("busy").hidden = true;
  }

  #have(picture, bitmap, texts) {
    this.#bitmap?.close();
    this.#bitmap = bitmap;
    this.#texts = texts;
    this.#answers.have(picture);
    this.#view.show(bitmap, picture.width, picture.height);
    this.#view.fit();
    markSample(picture.name);
    const size = `${picture.width} by ${picture.height} pixels`;
    element("canvas").setAttribute("aria-label", `Picture ${picture.name}, ${size}`);
    this.#prompts.reset();
    this.#offer();
  }

  #offer() {
    const able = !this.#variants.whyNot("text");
    listTexts(this.#texts, (text) => this.controls.find(text), able);
  }

  /** The variant is another, or can do more. */
  #able() {
    this.controls.able();
    this.#offer();
    this.#want();
  }

  /** A click or a box was drawn, with whichever tool. */
  #draw(kind, { x, y, box, positive }) {
    const { tool } = this.#view;
    const why = this.#variants.whyNot(KINDS[tool][kind]);
    element("tool-error").textContent = why;
    if (why) return;
    // To a tenth of a pixel, which is enough, and what is read easily in the request.
    const near = (value) => Math.round(value * 10) / 10;
    const drawn = kind === "box" ? { box: box.map(near) } : { point: { x: near(x), y: near(y) } };
    if (tool === "example") this.#prompts.addExemplar({ ...drawn, positive });
    else if (drawn.box) this.#prompts.addBox(drawn.box);
    else this.#prompts.addPoint({ ...drawn.point, positive });
  }

  /** Why a prompt is not asked, in words; empty: it is. */
  #blocked(prompt) {
    return kindsOf(prompt).map((kind) => this.#variants.whyNot(kind)).find(Boolean) ?? "";
  }

  #want() {
    this.#answers.want(this.#prompts.list.filter((each) => !this.#blocked(each)));
    this.#show();
  }

  #show() {
    const rows = this.#prompts.list.map((prompt) => this.#row(prompt));
    this.#segments = rows.flatMap(({ prompt, kept }) => {
      const its = { prompt: prompt.id, colour: colourOfPrompt(prompt), label: nameOf(prompt, this.#prompts.list) };
      return kept.map((each) => ({ ...each, ...its }));
    });
    // The smallest lies on top.
    this.#view.segments = [...this.#segments].sort((one, other) => one.area - other.area);
    this.#view.marks = this.#prompts.list.flatMap((each) => marksOf(each, each === this.#prompts.selected));
    this.#view.hover(null);
    this.#view.draw();
    listPrompts(rows, this.#prompts);
    listSegments(
      this.#segments,
      (place) => this.#view.hover(this.#segments[place] ?? null),
      (id) => this.#prompts.select(id),
    );
    this.#tell(rows);
    this.#offerTaking(rows);
  }

  /** A prompt with what it found, and what is to be said of it. */
  #row(prompt) {
    const all = this.#answers.found(prompt) ?? null;
    const { threshold } = this.controls;
    // The threshold is for concepts: an object is answered whatever its score.
    const kept = (all ?? []).filter(({ score }) => prompt.kind === "object" || score >= threshold);
    const refused = this.#answers.refused(prompt);
    const said = this.#blocked(prompt) || refused;
    return { prompt, kept, said, failed: Boolean(refused), count: all && kept.length, hidden: (all ?? []).length - kept.length };
  }

  #tell(rows) {
    const answered = rows.length > 0 && rows.every(({ count, said }) => count !== null || said);
    const hidden = rows.reduce((sum, row) => sum + row.hidden, 0);
    const below = hidden ? `, ${hidden} below the score` : "";
    element("count").textContent = answered ? `${this.#segments.length || "nothing"}${below}` : "";
    element("prompts").ariaBusy = String(this.#answers.asks);
    element("ask-error").textContent = this.#answers.failure;
    element("again").hidden = !this.#answers.failure || this.#answers.asks;
    element("took").textContent = this.#answers.took ? took(this.#answers.took) : "";
    this.controls.show();
  }

  #offerTaking(rows) {
    const asked = rows.filter(({ said }) => !said).map(({ prompt }) => prompt);
    const { picture } = this.#answers;
    const { segments: shown, marks } = this.#view;
    const request = this.#answers.request(asked, this.controls.threshold);
    const taken = { bitmap: this.#bitmap, picture, request, segments: this.#segments, shown, marks };
    this.#take(asked.length && picture ? taken : null);
  }
}

/** @param {Record<string, number>} ms by stage */
function took({ total, ...stages }) {
  const parts = Object.entries(stages).filter(([, each]) => each >= 0.5);
  const named = parts.map(([name, each]) => `${name.replaceAll("_", " ")} ${Math.round(each)}`);
  return `${Math.round(total)} ms${named.length ? `: ${named.join(", ")}` : ""}`;
}
