// Objects that are followed through a source of frames: what is prompted on the current frame, and the answers.
// Knows nothing of how it is shown.

import { Problem } from "./api.js";
import { Measure } from "./measure.js";
import { IN_FLIGHT, open } from "./session.js";

/** Of a camera, so many frames are on their way: more would only be older when they are answered. */
const LIVE_IN_FLIGHT = 2;

/** After these the session is no more: everything begins anew. */
const GONE = new Set(["session_not_found", "session_expired", "artefact_mismatch"]);

let keys = 0;

/**
 * @typedef {import("./session.js").Answer} Answer
 * @typedef {import("./frames.js").Frame} Frame
 * @typedef {import("./frames.js").Clip | import("./frames.js").Camera} Source
 * @typedef {{x: number, y: number, positive: boolean}} Point
 * @typedef {{key: number, text?: string, object?: number, points?: Point[], box?: number[], mask?: object,
 *   remove?: {object: number} | {text: string}}} Prompt  One of the current frame, as the API takes it but for
 *   its key, by which the page knows it again.
 */

export class Tracker {
  /**
   * @param {Source} source
   * @param {object} asked what the session is opened with
   * @param {() => void} changed called whenever there is something new to show
   */
  constructor(source, asked, changed) {
    this.source = source;
    this.asked = source.count < Infinity ? { ...asked, frames_total: source.count } : asked;
    this.changed = changed;
    this.measure = new Measure();
    /** @type {import("./session.js").Session | null} opened when something is to be followed */
    this.session = null;
    /** @type {Frame | null} the current one */
    this.frame = null;
    /** @type {Answer[]} by frame */
    this.answers = [];
    /** @type {Problem | null} */
    this.problem = null;
    this.isRunning = false;
    this.isBusy = false;
    this.#forget();
  }

  /** The current frame's, once there is one. @returns {Answer | null} */
  get answer() {
    return (this.frame && this.answers[this.frame.index]) ?? null;
  }

  /** Whether all frames are answered. */
  get isDone() {
    return this.answers.length >= this.source.count;
  }

  /** Texts that are followed. */
  get texts() {
    const removed = this.prompts.map(({ remove }) => remove && "text" in remove && remove.text);
    const own = this.prompts.flatMap(({ text }) => (text ? [text] : []));
    return [...[...this.#texts].filter((text) => !removed.includes(text)), ...own];
  }

  /** Whether the object was followed before the frame that `edit` prompts. @param {number} id */
  isKnown(id) {
    const before = this.frame && this.answers[this.frame.index - (this.isRunning ? 0 : 1)];
    return Boolean(before?.objects.some(({ object }) => object === id));
  }

  /** Show the first frame. */
  async begin() {
    this.#put(await this.source.frame(0));
    this.changed();
  }

  /**
   * Replace the current frame's prompts; while it runs, prompt the frame that is sent next.
   * @param {Prompt[]} prompts
   */
  edit(prompts) {
    this.problem = null;
    if (this.isRunning) {
      this.#coming = prompts;
      this.changed();
      return;
    }
    this.#undone = [];
    this.#done.push(this.prompts);
    this.#show(prompts);
  }

  get canUndo() {
    return !this.isRunning && this.#done.length > 0;
  }

  get canRedo() {
    return !this.isRunning && this.#undone.length > 0;
  }

  undo() {
    if (!this.canUndo) return;
    this.#undone.push(this.prompts);
    this.#show(/** @type {Prompt[]} */ (this.#done.pop()));
  }

  redo() {
    if (!this.canRedo) return;
    this.#done.push(this.prompts);
    this.#show(/** @type {Prompt[]} */ (this.#undone.pop()));
  }

  /** The prompts that `edit` is to change. */
  get editable() {
    return this.isRunning ? this.#coming : this.prompts;
  }

  /** Follow into the frames that come, until `pause`, the last one, or a problem. */
  async run() {
    this.#goesOn = this.session !== null;
    if (this.isRunning || !this.#goesOn) return;
    this.isRunning = true;
    this.problem = null;
    this.measure.restart();
    this.changed();
    await this.#settled;
    try {
      await this.#stream();
    } catch (problem) {
      this.#failed(/** @type {Problem} */ (problem));
    }
    this.isRunning = false;
    await this.#resume();
    this.changed();
  }

  /** What is on its way is still answered; then nothing runs. */
  pause() {
    this.#goesOn = false;
  }

  /** Hang up, and come back with the session's id. */
  async reconnect() {
    return this.session?.reconnect();
  }

  /** Forget the session. */
  async end() {
    this.#goesOn = false;
    const { session } = this;
    this.session = null;
    // What is not deleted expires.
    await session?.delete().catch(() => {});
  }

  /** End the session, and begin with the first frame again. */
  async restart() {
    await this.end();
    this.answers = [];
    this.problem = null;
    this.#forget();
    await this.begin();
  }

  /** Look at a frame that was answered. @param {number} index */
  async look(index) {
    if (this.isRunning || this.isBusy) return;
    this.#put(await this.source.frame(index));
    this.changed();
  }

  /** Whether the current frame is the one that may be prompted. */
  get isCurrent() {
    return this.frame !== null && this.frame.index >= this.answers.length - 1;
  }

  #forget() {
    /** @type {Prompt[]} */
    this.prompts = [];
    /** @type {Prompt[]} for the frame that is sent next */
    this.#coming = [];
    /** @type {Prompt[][]} */
    this.#done = [];
    /** @type {Prompt[][]} */
    this.#undone = [];
    /** @type {Set<string>} followed since an earlier frame */
    this.#texts = new Set();
    /** @type {Prompt[]} what the server took last */
    this.#taken = [];
    this.#settled = Promise.resolve();
    /** Whether more frames are to be sent. */
    this.#goesOn = false;
  }

  /** Keep as many frames in flight as there may be. */
  async #stream() {
    const room = this.source.isLive ? LIVE_IN_FLIGHT : IN_FLIGHT;
    /** @type {Promise<void>[]} */
    const coming = [];
    while (this.#goesOn && this.session && this.session.index < this.source.count) {
      if (this.session.inFlight >= room) {
        await coming.shift();
      } else {
        const frame = await this.source.frame(this.session.index);
        // Meanwhile it may have been told to stop.
        if (this.#goesOn) coming.push(this.#follow(frame));
      }
    }
    await Promise.all(coming);
  }

  /** Stand where the session stands, which may be before what was shown: a store may lose frames. */
  async #resume() {
    const next = this.session?.nextFrame ?? 0;
    if (!this.session || !this.frame || this.frame.index < next) return;
    this.#step([]);
    if (this.source.isLive) this.frame = { ...this.frame, index: next };
    else this.#put(await this.source.frame(Math.max(0, next - 1)));
  }

  /** @param {Frame} frame */
  #put(frame) {
    this.frame?.picture.close();
    this.frame = frame;
  }

  /** @param {Prompt[]} prompts */
  #show(prompts) {
    this.prompts = prompts;
    // Of what is prompted while an answer is awaited, the newest alone is sent.
    if (!this.isBusy) this.#settled = this.#settle();
    this.changed();
  }

  async #settle() {
    this.isBusy = true;
    while (this.prompts !== this.#taken) {
      const prompts = this.prompts;
      try {
        this.#answered(await this.#send(/** @type {Frame} */ (this.frame), prompts), null);
        this.#taken = prompts;
      } catch (problem) {
        this.#failed(/** @type {Problem} */ (problem));
        this.#takeBack();
      }
    }
    this.isBusy = false;
    this.changed();
  }

  /** What was refused is prompted no more. */
  #takeBack() {
    this.prompts = this.#taken;
    const index = this.#done.indexOf(this.#taken);
    if (index >= 0) this.#done.length = index;
    this.#undone = [];
  }

  /** @param {Frame} frame @param {Prompt[]} prompts @returns {Promise<Answer>} */
  async #send(frame, prompts) {
    const wired = prompts.map(wire);
    if (this.session === null) {
      const session = await open(this.asked);
      session.changed = this.changed;
      this.session = session;
    }
    return frame.index < this.session.nextFrame
      ? this.session.correct(frame.file, wired)
      : this.session.add(frame.file, wired);
  }

  /** A frame behind the current one, which becomes the current one with its answer. @param {Frame} frame */
  async #follow(frame) {
    const prompts = this.#coming;
    this.#coming = [];
    try {
      const answer = await this.#send(frame, prompts);
      this.#step(prompts);
      this.#answered(answer, frame);
      this.measure.note(answer.timings_ms);
    } catch (problem) {
      this.#failed(/** @type {Problem} */ (problem));
    }
  }

  /** Its prompts are the past's. @param {Prompt[]} prompts the next frame's */
  #step(prompts) {
    this.#texts = new Set(this.texts);
    this.prompts = this.#taken = prompts;
    [this.#done, this.#undone] = [[], []];
  }

  /** @param {Answer} answer @param {Frame | null} frame where it is another one than the current */
  #answered(answer, frame) {
    if (frame) this.#put(frame);
    this.answers[answer.frame] = answer;
    this.answers.length = answer.frame + 1;
    // Nobody looks back at what a camera saw.
    if (this.source.isLive) delete this.answers[answer.frame - 2];
    this.changed();
  }

  /** @param {Problem} problem */
  #failed(problem) {
    this.#goesOn = false;
    // Of several frames in flight, the first tells why.
    if (problem.kind !== "cancelled") this.problem ??= problem;
    if (GONE.has(problem.kind)) this.session = null;
    if (this.session) this.answers.length = Math.min(this.answers.length, this.session.nextFrame);
    this.changed();
  }
}

/** A key for a new prompt. */
export function newKey() {
  keys += 1;
  return keys;
}

/** @param {Prompt} prompt */
function wire({ key: _, ...prompt }) {
  return prompt;
}
