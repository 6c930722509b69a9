// Video mode: frames of a clip or a camera, what is prompted on the current one, and what is followed.

import { Aim } from "./aim.js";
import { Problem, inWords } from "./api.js";
import { FollowedObjects, listFollowedTexts } from "./followed.js";
import { markFootage, startFootage } from "./footage.js";
import { button, part } from "./list.js";
import { Scene } from "./scene.js";
import { inWordsBack, showMeasure, showSession } from "./standing.js";
import { Tracker } from "./tracker.js";
import { VideoControls } from "./video_controls.js";
import { View } from "./view.js";

const element = (name) => document.getElementById(`video-${name}`);
// To a tenth of a pixel, which is enough.
const near = (value) => Math.round(value * 10) / 10;

/** @param {import("./app.js").Shared} shared */
export function startVideo(shared) {
  /** @type {VideoMode | null} made when it is first looked at */
  let mode = null;
  let [shown, admitted] = [false, false];
  const begin = () => {
    if (shown && admitted) (mode ??= new VideoMode(shared)).enter();
  };
  return {
    admitted: () => ((admitted = true), begin()),
    enter: () => ((shown = true), begin()),
    leave: () => ((shown = false), mode?.leave()),
    key: (/** @type {KeyboardEvent} */ event) => mode?.controls.key(event) ?? false,
  };
}

class VideoMode {
  #variants;
  #failed;
  #view = new View(/** @type {HTMLCanvasElement} */ (element("canvas")), element("tip"));
  #scene = new Scene(this.#view);
  #list = new FollowedObjects({
    choose: (id) => this.#choose(id),
    remove: (id) => this.#try("text-error", (aim) => aim.remove(id)),
    hover: (id) => this.#scene.hover(id),
  });
  /** @type {Tracker | null} */
  #tracker = null;
  /** @type {Aim | null} */
  #aim = null;
  #openFirst;
  // Of the footage that is being opened; 0: none is. The frame that is to be looked at.
  #opening = 0;
  /** @type {number | null} */
  #looking = null;
  /** @type {string[]} to try on this video */
  #texts = [];
  // Where it is said what was refused, and the problem that was said last.
  #place = "run-error";
  /** @type {Error | null} */
  #said = null;
  #offered = "";
  #pending = 0;

  /** @param {import("./app.js").Shared} shared */
  constructor({ variants, failed }) {
    this.#variants = variants;
    this.#failed = failed;
    this.controls = new VideoControls(this.#view, {
      run: () => this.#run(),
      step: () => this.#run(1),
      look: (index) => this.#look(index),
      back: () => this.#tracker?.frame && this.#look(this.#tracker.frame.index - 1),
      undo: () => this.#tracker?.undo(),
      redo: () => this.#tracker?.redo(),
      another: () => this.#choose(null),
      remove: () => this.#aim?.target && this.#try("text-error", (aim) => aim.remove(aim.target)),
      anew: () => this.#anew(),
      hangUp: () => this.#hangUp(),
      follow: (text) => this.#follow(text),
    });
    this.#openFirst = startFootage((footage) => this.#open(footage));
    variants.addEventListener("change", () => this.#able());
    this.#view.addEventListener("point", ({ detail }) => this.#draw("points", detail));
    this.#view.addEventListener("box", ({ detail }) => this.#draw("box", detail));
    this.#view.addEventListener("hover", ({ detail: { segment } }) => this.#list.mark(segment?.id ?? null));
    this.#able();
  }

  /** It is looked at. */
  enter() {
    if (!this.#tracker && !this.#opening) this.#openFirst();
  }

  /** It is not looked at any more: nothing runs on, and no camera is on. */
  leave() {
    this.#tracker?.pause();
    if (this.#tracker?.source.isLive) this.#have(null, []);
  }

  /** Open footage; what was there before stays if it is refused. @param {import("./footage.js").Footage} footage */
  async #open({ name, texts, open }) {
    const opening = performance.now();
    this.#opening = opening;
    element("error").textContent = "";
    this.#show();
    try {
      const source = await open();
      // Meanwhile somebody chose another, or left.
      if (opening !== this.#opening || element("canvas").offsetParent === null) return source.close();
      this.#have(source, texts);
      markFootage(name);
      element("canvas").setAttribute("aria-label", `Frame of ${name}`);
      await this.#tracker?.begin();
    } catch (error) {
      if (opening === this.#opening) element("error").textContent = inWords(error);
    } finally {
      if (opening === this.#opening) this.#opening = 0;
      this.#show();
    }
  }

  /** @param {import("./tracker.js").Source | null} source @param {string[]} texts */
  #have(source, texts) {
    this.#tracker?.end();
    this.#scene.clear();
    [this.#looking, this.#texts] = [null, texts];
    const tracker = source && new Tracker(source, { variant: this.#variant });
    this.#tracker = tracker;
    this.#aim = tracker && new Aim(tracker);
    tracker?.addEventListener("change", () => tracker === this.#tracker && this.#changed());
    this.#say("");
    this.#able();
  }

  get #variant() {
    return this.#variants.chosen?.name ?? "";
  }

  /** What the variant can do is known, or the variant is another: a session is of one. */
  #able() {
    const why = this.#variants.whyNot("text");
    this.controls.able(why);
    element("text-why").textContent = why;
    const tracker = this.#tracker;
    if (tracker && tracker.asked.variant !== this.#variant) {
      tracker.asked = { ...tracker.asked, variant: this.#variant };
      if (tracker.session) this.#anew();
    }
    this.#show();
  }

  /** Texts to try, but for those that are followed. */
  #offer() {
    const able = !this.#variants.whyNot("text");
    const texts = this.#texts.filter((each) => !this.#tracker?.texts.includes(each));
    if (this.#offered === `${able} ${texts}`) return;
    this.#offered = `${able} ${texts}`;
    const buttons = texts.map((text) => button(text, () => this.#follow(text)));
    for (const each of buttons) each.disabled = !able;
    element("try").replaceChildren(...(texts.length ? [part("span", "Try"), ...buttons] : []));
  }

  /** @param {number} [frames] */
  async #run(frames) {
    const tracker = this.#tracker;
    if (!tracker || (frames && tracker.isRunning)) return;
    this.#say("");
    if (tracker.isRunning) await tracker.pause();
    else await tracker.run(frames);
  }

  /** A click or a box. @param {"points" | "box"} kind @param {any} detail */
  #draw(kind, { x, y, box, positive }) {
    // What is pointed at is to stand still.
    if (this.#tracker?.isRunning) return this.#tracker.pause();
    const over = kind === "points" ? (this.#view.over({ x, y })?.id ?? null) : null;
    return this.#try("run-error", (aim) => {
      const why = this.#variants.whyNot(kind);
      if (why) throw new Problem("unsupported_prompt", why);
      if (kind === "points") aim.point({ x: near(x), y: near(y), positive }, over);
      else if (positive) aim.box(box.map(near));
      else throw new Problem("invalid_argument", "A box shows an object; what is not of it is told by clicks.");
    });
  }

  /** @param {string} text */
  #follow(text) {
    return this.#try("text-error", (aim) => aim.text(text));
  }

  /**
   * Prompt something; while it runs, on the frame where it then stands, from which it goes on.
   * @param {string} place where it is said what was refused of that
   * @param {(aim: any) => void} act may throw a Problem
   */
  async #try(place, act) {
    const [tracker, ran] = [this.#tracker, this.#tracker?.isRunning];
    await tracker?.pause();
    if (!tracker?.frame || !this.#aim || tracker !== this.#tracker) return;
    this.#say("");
    this.#place = place;
    try {
      if (tracker.isGone) throw new Problem("session_not_found", "The session is gone: begin anew.");
      if (!tracker.isCurrent) {
        throw new Problem("invalid_argument", "Prompts are for the last frame that was tracked: go on to it first.");
      }
      act(this.#aim);
      if (ran) await tracker.run();
    } catch (error) {
      this.#say(inWords(error), place);
    }
  }

  /** @param {number | null} id */
  #choose(id) {
    if (!this.#aim) return;
    this.#aim.choose(id === this.#aim.target ? null : id);
    this.#changed();
  }

  async #anew() {
    this.#scene.clear();
    this.#say("");
    await this.#tracker?.restart().catch((error) => this.#say(inWords(error)));
  }

  async #hangUp() {
    element("survived").textContent = "";
    try {
      const back = await this.#tracker?.session?.reconnect();
      if (back) element("survived").textContent = inWordsBack(back);
    } catch (error) {
      element("survived").textContent = `Not back yet: ${inWords(error)}`;
    }
  }

  /** Look at a frame that was answered; of several that are asked for meanwhile, at the last. @param {number} index */
  async #look(index) {
    const tracker = this.#tracker;
    if (!tracker || tracker.source.isLive || tracker.isRunning) return;
    const looks = this.#looking !== null;
    this.#looking = Math.max(0, Math.min(index, tracker.answers.length - 1));
    while (!looks && this.#looking !== null && tracker === this.#tracker) {
      const wanted = this.#looking;
      await tracker.look(wanted).catch((error) => this.#say(inWords(error)));
      if (this.#looking === wanted) this.#looking = null;
    }
  }

  /** Say it beside what it is of, and nothing elsewhere. @param {string} words @param {string} [place] */
  #say(words, place = "run-error") {
    for (const name of ["run-error", "text-error"]) element(name).textContent = name === place ? words : "";
    this.#place = "run-error";
  }

  /** The picture is shown at once, since the one before is closed; the rest with the screen's next frame. */
  #changed() {
    if (!this.#tracker || !this.#aim) return;
    this.#aim.check();
    this.#scene.show(this.#tracker, this.#aim.target);
    this.#pending ||= requestAnimationFrame(() => {
      this.#pending = 0;
      this.#show();
    });
  }

  #show() {
    const tracker = this.#tracker;
    this.#list.show(this.#scene.objects);
    this.#offer();
    listFollowedTexts(tracker?.texts ?? [], {
      remove: (text) => this.#try("text-error", (aim) => aim.removeText(text)),
    });
    showSession(tracker?.session ?? null, tracker?.answer ?? null);
    if (!tracker?.session) element("survived").textContent = "";
    if (tracker) showMeasure(tracker.measure);
    this.controls.show(tracker, this.#aim, this.#opening > 0);
    const problem = tracker?.problem ?? null;
    if (problem && problem !== this.#said) {
      this.#say(inWords(problem), this.#place);
      this.#failed(problem);
    }
    this.#said = problem;
  }
}
