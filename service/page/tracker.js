// Objects that are followed through a source of frames: what is prompted on the current frame, and the answers.
// Knows nothing of how it is shown.

import { Measure } from "./measure.js";
import { IN_FLIGHT, open } from "./session.js";
import { Steps } from "./steps.js";

// Of a camera so many frames are on their way: more would only be older when they are answered.
const LIVE_IN_FLIGHT = 2;

// After these there is no session: everything begins anew.
const GONE = new Set(["session_not_found", "session_expired", "session_corrupt", "artefact_mismatch"]);

/**
 * @typedef {import("./session.js").Answer} Answer
 * @typedef {import("./frames.js").Frame} Frame
 * @typedef {import("./frames.js").Clip | import("./frames.js").Camera} Source
 * @typedef {{x: number, y: number, positive: boolean}} Point
 *
 * As the API has it: a text, an object, or what is removed. Objects have their ids from here, so that a corrected
 * frame has the same ones.
 * @typedef {{text?: string, object?: number, points?: Point[], box?: number[],
 *   remove?: {object?: number, text?: string}}} Prompt
 */

/** Tells of `change` whenever there is something new to show. */
export class Tracker extends EventTarget {
  measure = new Measure();
  /** @type {import("./session.js").Session | null} opened when something is prompted */
  session = null;
  /** @type {Frame | null} the current one */
  frame = null;
  /** @type {Answer[]} by frame */
  answers = [];
  /** @type {Error | null} why it stopped, or what was refused */
  problem = null;
  isRunning = false;
  /** Whether an answer is awaited that changes the current frame. */
  isBusy = false;
  /** Whether the session was lost for good: `restart`. */
  isGone = false;

  /** @type {Steps<Prompt[]>} the current frame's */
  #steps = new Steps([]);
  // The current frame's prompts as its answer has them.
  #taken = this.#steps.now;
  /** @type {Set<string>} followed since an earlier frame */
  #texts = new Set();
  // The highest id of an object of an earlier frame.
  #highest = 0;
  // Whether more frames are to be sent; what runs, or waits for an answer, ends with these.
  #goesOn = false;
  #running = Promise.resolve();
  #settled = Promise.resolve();
  #ended = false;
  #previews = false;

  /** @param {Source} source @param {object} asked what the session is opened with */
  constructor(source, asked) {
    super();
    this.source = source;
    this.asked = source.isLive ? asked : { ...asked, frames_total: source.count };
  }

  /** The current frame's, once there is one. @returns {Answer | null} */
  get answer() {
    return (this.frame && this.answers[this.frame.index]) ?? null;
  }

  get isDone() {
    return this.answers.length >= this.source.count;
  }

  /** Whether the current frame is the one that may be prompted: the last that was answered. */
  get isCurrent() {
    return this.frame !== null && this.frame.index >= this.answers.length - 1;
  }

  /** Of the current frame. @returns {Prompt[]} */
  get prompts() {
    return this.#steps.now;
  }

  /** Texts that are followed. */
  get texts() {
    const removed = this.prompts.map(({ remove }) => remove?.text);
    const own = this.prompts.flatMap(({ text }) => text ?? []);
    return [...[...this.#texts].filter((text) => !removed.includes(text)), ...own];
  }

  /** Whether the object was followed before the current frame: a text may have begun it here. @param {number} id */
  wasKnown(id) {
    const before = this.frame && this.answers[this.frame.index - 1];
    return Boolean(before?.objects.some(({ object }) => object === id));
  }

  /** An id for a new object. */
  newObject() {
    return 1 + Math.max(this.#highest, ...idsOf(this.answer?.objects), ...idsOf(this.prompts));
  }

  /** Show the first frame; of a camera what it sees, until something is prompted. */
  async begin() {
    this.#put(await this.source.frame(0));
    if (this.source.isLive) this.#preview();
  }

  /** Replace the current frame's prompts, while nothing runs. @param {Prompt[]} prompts */
  edit(prompts) {
    if (this.isGone) return;
    this.#steps.put(prompts);
    this.#prompted();
  }

  get canUndo() {
    return this.#steps.canUndo && !this.isRunning && !this.isGone;
  }

  get canRedo() {
    return this.#steps.canRedo && !this.isRunning && !this.isGone;
  }

  undo() {
    if (!this.canUndo) return;
    this.#steps.undo();
    this.#prompted();
  }

  redo() {
    if (!this.canRedo) return;
    this.#steps.redo();
    this.#prompted();
  }

  /** Follow into the frames that come, until `pause`, a number of frames, the last one, or a problem. */
  async run(frames = Infinity) {
    await this.#settled;
    if (this.isRunning || this.isGone || !this.session || this.isDone) return;
    this.isRunning = this.#goesOn = true;
    this.problem = null;
    this.measure.restart();
    this.#running = this.#run(Math.min(this.source.count, this.session.index + frames));
    await this.#running;
  }

  /** Return when what is on its way is answered; then nothing runs. */
  async pause() {
    this.#goesOn = false;
    await this.#running;
  }

  /** Forget the session, and the source. */
  async end() {
    this.#ended = true;
    await this.#forget();
    this.source.close();
    this.frame?.close();
  }

  /** Forget the session, and begin with the first frame again. */
  async restart() {
    await this.#forget();
    [this.answers, this.problem, this.isGone] = [[], null, false];
    this.#past();
    this.#texts.clear();
    this.#highest = 0;
    await this.begin();
  }

  /** Look at a frame that was answered. @param {number} index */
  async look(index) {
    if (this.isRunning || this.isBusy) return;
    const frame = await this.source.frame(index);
    // Meanwhile it may have gone on.
    if (this.isRunning || this.isBusy) frame.close();
    else this.#put(frame);
  }

  async #forget() {
    this.#goesOn = false;
    this.#steps.retreat(this.#taken);
    await this.#leave();
    await this.#running;
    await this.#settled;
    // One that was being opened.
    await this.#leave();
  }

  async #leave() {
    const { session } = this;
    this.session = null;
    // What is not deleted expires.
    await session?.delete().catch(() => {});
  }

  async #preview() {
    if (this.#previews) return;
    this.#previews = true;
    const waits = () => !this.#ended && !this.session && !this.prompts.length && !this.isBusy;
    try {
      while (waits()) {
        const frame = await this.source.frame(0);
        if (waits()) this.#put(frame);
        else frame.close();
      }
    } catch (problem) {
      this.#failed(problem);
    }
    this.#previews = false;
  }

  /** @param {number} end index behind the last frame */
  async #run(end) {
    this.#tell();
    try {
      await this.#stream(end);
    } catch (problem) {
      this.#failed(problem);
    }
    this.isRunning = false;
    if (!this.#ended) await this.#stand().catch((problem) => this.#failed(problem));
    this.#tell();
  }

  /** Keep as many frames in flight as there may be. @param {number} end */
  async #stream(end) {
    const room = this.source.isLive ? LIVE_IN_FLIGHT : IN_FLIGHT;
    /** @type {Promise<void>[]} */
    const coming = [];
    while (this.#goesOn && this.session && this.session.index < end) {
      if (this.session.inFlight >= room) {
        await coming.shift();
      } else {
        const frame = await this.source.frame(this.session.index);
        const file = await frame.file();
        // Meanwhile it may have been told to stop.
        if (this.#goesOn && this.session) coming.push(this.#follow(frame, this.session.add(file)));
        else frame.close();
      }
    }
    await Promise.all(coming);
  }

  /** A frame becomes the current one with its answer. @param {Frame} frame @param {Promise<Answer>} coming */
  async #follow(frame, coming) {
    try {
      const answer = await coming;
      this.#past();
      this.measure.note(answer.timings_ms);
      this.#answered(answer, frame);
    } catch (problem) {
      frame.close();
      this.#failed(problem);
    }
  }

  /** Stand where the session stands, which may be before what is shown: a store may lose frames. */
  async #stand() {
    const next = this.session?.nextFrame ?? 0;
    if (!this.session || !this.frame || this.frame.index < Math.max(1, next)) return;
    this.#past();
    this.#put(await this.source.frame(Math.max(0, next - 1)));
  }

  #prompted() {
    this.problem = null;
    // Of what is prompted while an answer is awaited, the newest alone is sent.
    if (!this.isBusy) this.#settled = this.#settle();
    this.#tell();
  }

  async #settle() {
    this.isBusy = true;
    while (this.prompts !== this.#taken && this.frame && !this.isGone) {
      const prompts = this.prompts;
      try {
        this.#answered(await this.#send(this.frame, prompts));
        this.#taken = prompts;
      } catch (problem) {
        this.#failed(problem);
        // What was refused is prompted no more.
        this.#steps.retreat(this.#taken);
      }
    }
    this.isBusy = false;
    if (this.source.isLive) this.#preview();
    this.#tell();
  }

  /** @param {Frame} frame @param {Prompt[]} prompts @returns {Promise<Answer>} */
  async #send(frame, prompts) {
    const file = await frame.file();
    if (this.session === null) {
      this.session = await open(this.asked);
      this.session.changed = () => this.#tell();
    }
    return frame.index < this.session.nextFrame
      ? this.session.correct(file, prompts)
      : this.session.add(file, prompts);
  }

  /** The current frame is the past: the next has no prompts yet. */
  #past() {
    this.#highest = Math.max(this.#highest, ...idsOf(this.answers[this.answers.length - 1]?.objects));
    this.#texts = new Set(this.texts);
    this.#steps = new Steps([]);
    this.#taken = this.#steps.now;
  }

  /** @param {Frame} frame */
  #put(frame) {
    this.frame?.close();
    this.frame = frame;
    this.#tell();
  }

  /** @param {Answer} answer @param {Frame} [frame] where it is another than the current one */
  #answered(answer, frame) {
    if (frame) this.frame?.close();
    this.frame = frame ?? this.frame;
    this.answers[answer.frame] = answer;
    this.answers.length = answer.frame + 1;
    // Nobody looks back at what a camera saw.
    if (this.source.isLive) delete this.answers[answer.frame - 2];
    this.#tell();
  }

  /** @param {any} problem */
  #failed(problem) {
    this.#goesOn = false;
    if (problem.kind === "ended") return;
    // Of several frames in flight, the first tells why.
    this.problem ??= problem;
    if (GONE.has(problem.kind)) [this.session, this.isGone] = [null, true];
    if (this.session) this.answers.length = Math.min(this.answers.length, this.session.nextFrame);
    this.#tell();
  }

  #tell() {
    this.dispatchEvent(new Event("change"));
  }
}

/** @param {{object?: number}[] | undefined} objects */
function idsOf(objects) {
  return (objects ?? []).map(({ object }) => object ?? 0);
}
