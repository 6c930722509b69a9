// One tracking session: its frames in order, over a WebSocket, through whatever happens on the way.
//
// Several frames may be in flight. Those that have no answer are kept here with their images: when the
// connection breaks, another is made with the session's id and they are sent again. The service answers what it
// had answered already the same way.

import { Problem, ask, askJson } from "./api.js";
import { Connection } from "./connection.js";

/** Frames that may be on their way at once: the service keeps the answers of so many, to give them again. */
export const IN_FLIGHT = 4;

const PATIENCE_MS = 60_000;
const FIRST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 5_000;

/** What may pass: a worker that died, a store that restarts, a full queue, a key's rate. */
const PASSING = new Set(["unavailable", "store_unavailable", "overloaded", "quota_exceeded"]);

/**
 * @typedef {{frame: number, revision: number, objects: any[], image: {width: number, height: number},
 *   memory_bytes: number, timings_ms: Record<string, number>}} Answer
 * @typedef {{frame: number, revision?: number, follows?: number, prompts: object[], known_image?: boolean}} Request
 * @typedef {{request: Request, image: Blob | null, spare: Blob | null, resolve: (answer: Answer) => void,
 *   reject: (problem: Problem) => void, times: number}} Sent  `spare` is sent where the service does not know
 *   the image; `times`: how often it was sent.
 * @typedef {{session: string, variant: string, next_frame: number, revision: number, oldest_answer: number,
 *   expires_at: string, objects: number[], memory_bytes: number}} State
 */

/**
 * @param {object} asked what `POST /v1/sessions` takes
 * @returns {Promise<Session>}
 */
export async function open(asked) {
  return new Session(await askJson("v1/sessions", { json: asked }));
}

/** Tells of `change` when where it stands is another. */
export class Session extends EventTarget {
  /** @type {Sent[]} without an answer, in their order */
  #waiting = [];
  /** How many of them went out over this connection. */
  #sent = 0;
  /** @type {Connection | null} */
  #connection = null;
  /** @type {{sent: Sent, answer: Answer} | null} the last that was answered */
  #last = null;
  #pause = FIRST_PAUSE_MS;
  /** Since when an answer is waited for. */
  #since = 0;
  #timer = 0;
  /** Nothing is sent: what a refusal comes from is being asked. */
  #held = false;

  /** @param {State} state as `GET /v1/sessions/{id}` describes it */
  constructor(state) {
    super();
    this.id = state.session;
    this.variant = state.variant;
    /** Index of the frame that comes next, and of the answer before it how often it was corrected. */
    this.nextFrame = state.next_frame;
    this.revision = state.revision;
    /** Connections that were made, and frames that were sent more than once. */
    this.connections = 0;
    this.resent = 0;
    /** @type {"closed" | "connecting" | "open" | "waiting"} */
    this.standing = "closed";
    /** Index of the frame that is added next. */
    this.index = state.next_frame;
  }

  get inFlight() {
    return this.#waiting.length;
  }

  /** Whether another frame may be put. */
  get hasRoom() {
    return this.#waiting.length < IN_FLIGHT;
  }

  /**
   * Follow the objects into the next frame. The promise fails with a Problem.
   * @param {Blob} image
   * @param {object[]} prompts
   * @returns {Promise<Answer>}
   */
  add(image, prompts = []) {
    const frame = this.index;
    this.index += 1;
    // Which answer it goes on from: a store may have lost that one.
    const follows = frame === this.nextFrame ? this.revision : 0;
    return this.#put({ frame, follows, prompts }, image, null);
  }

  /**
   * Answer the last frame anew: `prompts` replace those that it had. Nothing else may be in flight.
   * @param {Blob} image the frame's, which is sent only where the service does not know it any more
   * @param {object[]} prompts
   * @returns {Promise<Answer>}
   */
  correct(image, prompts) {
    const request = { frame: this.nextFrame - 1, revision: this.revision + 1, prompts, known_image: true };
    return this.#put(request, null, image);
  }

  /** Where the session stands, as the service sees it. @returns {Promise<State>} */
  async state() {
    return askJson(this.#path());
  }

  /** Hang up. What is in flight is sent again over the next connection, which is made at once. */
  cut() {
    this.#hangUp();
    this.#since = performance.now();
    this.#connect();
  }

  /**
   * Hang up, come back with nothing but the session's id, and ask for the last answer once more.
   * @returns {Promise<{state: State, same: boolean | null}>} `same`: whether it is that answer, to the bit;
   *   null where none is known
   */
  async reconnect() {
    this.cut();
    const state = await this.state();
    if (this.#last === null || this.inFlight || state.next_frame !== this.nextFrame) {
      return { state, same: null };
    }
    const { sent, answer } = this.#last;
    const again = await this.#put(sent.request, sent.image, sent.spare);
    return { state, same: JSON.stringify(again.objects) === JSON.stringify(answer.objects) };
  }

  /** Hang up and have the service forget the session. Who waits for a frame is told so. */
  async delete() {
    this.#give(new Problem("cancelled", "The session was ended."));
    await ask(this.#path(), { method: "DELETE" });
  }

  #path() {
    return `v1/sessions/${encodeURIComponent(this.id)}`;
  }

  /**
   * @param {Request} request
   * @param {Blob | null} image
   * @param {Blob | null} spare
   * @returns {Promise<Answer>}
   */
  #put(request, image, spare) {
    const answer = new Promise((resolve, reject) => {
      this.#waiting.push({ request, image, spare, resolve, reject, times: 0 });
    });
    if (this.#waiting.length === 1) this.#since = performance.now();
    this.#pump();
    return answer;
  }

  #pump() {
    if (this.#connection === null && this.standing === "closed" && !this.#held) this.#connect();
    if (this.#connection?.isOpen) {
      for (const each of this.#waiting.slice(this.#sent)) {
        this.#connection.send(each.request, each.image);
        this.#sent += 1;
        if (each.times) this.resent += 1;
        each.times += 1;
      }
    }
    this.#changed();
  }

  #connect() {
    clearTimeout(this.#timer);
    this.connections += 1;
    this.standing = "connecting";
    this.#connection = new Connection(`${this.#path()}/stream`, {
      opened: () => {
        this.standing = "open";
        this.#pump();
      },
      answered: (answer) => this.#answered(answer),
      refused: (problem) => this.#refused(problem),
      broke: (problem) => this.#broke(problem),
    });
    this.#changed();
  }

  /** @param {Answer} answer */
  #answered(answer) {
    const sent = /** @type {Sent} */ (this.#waiting.shift());
    this.#sent -= 1;
    this.#pause = FIRST_PAUSE_MS;
    this.#since = performance.now();
    this.#last = { sent, answer };
    this.nextFrame = answer.frame + 1;
    this.revision = answer.revision;
    sent.resolve(answer);
    this.#pump();
  }

  /** The first that waits was refused; what was sent behind it is refused as well. @param {Problem} problem */
  async #refused(problem) {
    const first = this.#waiting[0];
    this.#hangUp();
    if (problem.kind === "image_required" && first?.spare) {
      first.request = { ...first.request };
      delete first.request.known_image;
      [first.image, first.spare] = [first.spare, null];
      this.#connect();
    } else if (PASSING.has(problem.kind)) {
      this.#later(problem);
    } else {
      this.#held = true;
      const meant = await this.#meant(problem);
      this.#held = false;
      this.#give(meant);
    }
  }

  /** @param {Problem} problem */
  #broke(problem) {
    this.#hangUp();
    if (this.#waiting.length) this.#later(problem);
    else this.#changed();
  }

  /** Try again after a pause, while patience lasts. @param {Problem} problem */
  #later(problem) {
    if (performance.now() - this.#since > PATIENCE_MS) {
      this.#give(problem);
      return;
    }
    this.standing = "waiting";
    this.#timer = setTimeout(() => this.#connect(), this.#pause * (0.5 + Math.random() / 2));
    this.#pause = Math.min(2 * this.#pause, LONGEST_PAUSE_MS);
    this.#changed();
  }

  /**
   * What a refusal comes from: a gap behind an answer that we have means that the store lost frames.
   * @param {Problem} problem
   * @returns {Promise<Problem>}
   */
  async #meant(problem) {
    if (problem.kind !== "frame_gap" && problem.kind !== "session_rolled_back") return problem;
    const state = await this.state().catch(() => null);
    if (state === null || state.next_frame > this.nextFrame) return problem;
    if (state.next_frame === this.nextFrame && state.revision >= this.revision) return problem;
    [this.nextFrame, this.revision, this.#last] = [state.next_frame, state.revision, null];
    return new Problem("session_rolled_back", problem.detail);
  }

  /** Nobody waits any more. @param {Problem} problem */
  #give(problem) {
    this.#hangUp();
    const waiting = this.#waiting.splice(0);
    this.index = this.nextFrame;
    for (const each of waiting) each.reject(problem);
    this.#changed();
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }

  #hangUp() {
    clearTimeout(this.#timer);
    this.#connection?.close();
    this.#connection = null;
    this.#sent = 0;
    this.standing = "closed";
  }
}
