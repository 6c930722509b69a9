// Video mode: frames of a clip or a camera, what is prompted on the current one, and what is followed.

import { Aim } from "./aim.js";
import { inWords } from "./api.js";
import { Colours } from "./colours.js";
import { FollowedObjects, listFollowedTexts } from "./followed.js";
import { markFootage, startFootage } from "./footage.js";
import { button, part } from "./list.js";
import { decode } from "./rle.js";
import { inWordsBack, showMeasure, showSession } from "./standing.js";
import { Tracker } from "./tracker.js";
import { VideoControls } from "./video_controls.js";
import { View } from "./view.js";

const element = (name) => document.getElementById(`video-${name}`);

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
  #objects = new FollowedObjects({
    choose: (id) => this.#choose(id),
    remove: (id) => this.#try("text-error", (aim) => aim.remove(id)),
    hover: (id) => this.#view.hover(this.#view.segments.find((each) => each.id === id) ?? null),
  });
  #colours = new Colours();
  /** @type {Tracker | null} */
  #tracker = null;
  /** @type {Aim | null} */
  #aim = null;
  #openFirst;
  // The footage that is being opened, and the frame that is to be looked at.
  #opening = 0;
  /** @type {number | null} */
  #looking = null;
  // What is shown: the picture, its answer, and that in the lists what was told is to be shown anew.
  #picture = null;
  #answer = null;
  #pending = 0;
  /** @type {string[]} to try on this video */
  #texts = [];
  #variant = "";
  /** @type {Map<object, import("./rle.js").Mask>} of the answer that is shown */
  #masks = new Map();

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
    this.#view.addEventListener("hover", ({ detail: { segment } }) => this.#objects.mark(segment?.id ?? null));
    this.#variant = variants.chosen?.name ?? "";
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

  /** Open other footage; what was there before stays if it is refused. @param {import("./footage.js").Footage} footage */
  async #open({ name, texts, open }) {
    const opening = ++this.#opening;
    element("error").textContent = "";
    this.controls.busy("Opening the video…");
    try {
      const source = await open();
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
    this.#colours = new Colours();
    [this.#answer, this.#looking, this.#texts] = [null, null, texts];
    this.#say("");
    this.#tracker = source && new Tracker(source, { variant: this.#variant });
    this.#aim = this.#tracker && new Aim(this.#tracker);
    if (!source) this.#view.show((this.#picture = null), 0, 0);
    const tracker = this.#tracker;
    tracker?.addEventListener("change", () => tracker === this.#tracker && this.#changed());
    this.#able();
  }

  /** What the variant can do is known, or the variant is another: a session is of one. */
  #able() {
    const why = this.#variants.whyNot("text");
    this.controls.able(why);
    element("text-why").textContent = why;
    const texts = this.#texts.map((text) => button(text, () => this.#follow(text)));
    for (const each of texts) each.disabled = Boolean(why);
    element("try").replaceChildren(...(texts.length ? [part("span", "Try"), ...texts] : []));
    const variant = this.#variants.chosen?.name ?? "";
    if (variant === this.#variant) return;
    this.#variant = variant;
    if (!this.#tracker) return;
    this.#tracker.asked.variant = variant;
    if (this.#tracker.session) this.#anew();
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
  async #draw(kind, { x, y, box, positive }) {
    const tracker = this.#tracker;
    // What is pointed at is to stand still.
    if (!tracker || tracker.isRunning) return tracker?.pause();
    const near = (/** @type {number} */ value) => Math.round(value * 10) / 10;
    const over = kind === "points" ? (this.#view.over({ x, y })?.id ?? null) : null;
    this.#try("run-error", (aim) => {
      if (kind === "box") aim.box(box.map(near));
      else aim.point({ x: near(x), y: near(y), positive }, over);
    }, kind);
  }

  /** Prompt a text; while it runs, on the frame at which it then stands. @param {string} text */
  async #follow(text) {
    const tracker = this.#tracker;
    if (!tracker) return;
    const ran = tracker.isRunning;
    await tracker.pause();
    if (this.#try("text-error", (aim) => aim.text(text), "text") && ran) await tracker.run();
  }

  /**
   * Prompt something, and say beside it what was refused of that.
   * @param {string} place of the words @param {(aim: any) => void} act @param {any} [kind] of the prompt
   */
  #try(place, act, kind) {
    const tracker = this.#tracker;
    if (!tracker?.frame || !this.#aim) return false;
    this.#say("");
    const blocked = kind ? this.#variants.whyNot(kind) : "";
    const refused = tracker.isGone ? "The session is gone: begin anew." : blocked;
    const past = tracker.isCurrent ? "" : "Prompts are for the last frame that was tracked: go on to it first.";
    try {
      if (refused || past) this.#say(refused || past, place);
      else act(this.#aim);
    } catch (error) {
      this.#say(inWords(error), place);
      return false;
    }
    return !refused && !past;
  }

  /** @param {number | null} id */
  #choose(id) {
    if (!this.#aim) return;
    this.#aim.choose(id === this.#aim.target ? null : id);
    this.#show();
  }

  async #anew() {
    this.#colours = new Colours();
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

  /** Say it beside what it is of, and nothing elsewhere. @param {string} words */
  #say(words, place = "run-error") {
    for (const name of ["run-error", "text-error"]) element(name).textContent = name === place ? words : "";
  }

  /** The picture is shown at once: the one before is closed. The lists follow with the screen's next frame. */
  #changed() {
    const tracker = /** @type {Tracker} */ (this.#tracker);
    this.#aim?.check();
    const { frame, answer } = tracker;
    if (answer && answer !== this.#answer) {
      const corrects = this.#answer?.frame === answer.frame && this.#answer.revision !== answer.revision;
      this.#colours.give(answer.objects, corrects ? this.#answer.objects : []);
      this.#masks = new Map(answer.objects.filter(({ mask }) => mask).map((each) => [each, decode(each.mask)]));
    }
    this.#answer = answer;
    this.#paint();
    if (frame && frame.picture !== this.#picture) {
      this.#picture = frame.picture;
      this.#view.show(frame.picture, frame.picture.width, frame.picture.height);
    } else {
      this.#view.draw();
    }
    this.#pending ||= requestAnimationFrame(() => {
      this.#pending = 0;
      this.#show();
    });
  }

  #paint() {
    const { answer, prompts, isCurrent } = /** @type {Tracker} */ (this.#tracker);
    const shown = (answer?.objects ?? []).map((each) => this.#shown(each)).filter(({ mask }) => mask);
    // The smallest lies on top.
    this.#view.segments = shown.sort((one, other) => one.area - other.area);
    this.#view.hovered = shown.find(({ id }) => id === this.#view.hovered?.id) ?? null;
    this.#view.marks = isCurrent ? prompts.flatMap((each) => this.#marks(each)) : [];
  }

  #shown({ object: id, label, score, visible, box = null, area, ...each }) {
    const mask = this.#masks.get([...this.#masks.keys()].find(({ object }) => object === id)) ?? null;
    const name = label ? `${label} ${id}` : `object ${id}`;
    const chosen = id === this.#aim?.target;
    return { id, label: name, name, score, visible, box, area, mask, colour: this.#colours.of(id), chosen };
  }

  /** @param {import("./tracker.js").Prompt} prompt @returns {import("./paint.js").Mark[]} */
  #marks({ object = 0, points = [], box }) {
    const its = { colour: this.#colours.of(object), faint: object !== this.#aim?.target };
    return [
      ...(box ? [{ box, positive: true, ...its }] : []),
      ...points.map(({ x, y, positive }) => ({ point: { x, y }, positive, ...its })),
    ];
  }

  #show() {
    const tracker = this.#tracker;
    this.#objects.show((tracker?.answer?.objects ?? []).map((each) => this.#shown(each)));
    listFollowedTexts(tracker?.texts ?? [], { remove: (text) => this.#try("text-error", (aim) => aim.removeText(text)) });
    showSession(tracker?.session ?? null, tracker?.answer ?? null);
    if (tracker) showMeasure(tracker.measure);
    this.controls.show(tracker, this.#aim, Boolean(this.#opening));
    if (!tracker?.session) element("survived").textContent = "";
    if (tracker?.problem) {
      this.#say(inWords(tracker.problem));
      this.#failed(tracker.problem);
    }
  }
}
