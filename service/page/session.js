// @ts-check
/**
 * One tracking session: its frames in order, over a WebSocket, through whatever happens on the way.
 *
 * Several frames may be in flight. Those that have no answer are kept here with their images: when the
 * connection breaks, another is made with the session's id and they are sent again. The server answers what
 * it had answered already the same way.
 */

import { Connection } from "./connection.js";
import { Problem, call } from "./api.js";

/** Frames that may be on their way at once: the server keeps the answers of so many, to give them again. */
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
 *   reject: (problem: Problem) => void, times: number}} Sent  `spare` is sent where the server does not know
 *   the image; `times`: how often it was sent.
 * @typedef {{session: string, variant: string, next_frame: number, revision: number, oldest_answer: number,
 *   expires_at: string, objects: number[], memory_bytes: number}} State
 */

/**
 * @param {object} asked what `POST /v1/sessions` takes
 * @returns {Promise<Session>}
 */
export async function open(asked) {
  return new Session(await call("POST", "/v1/sessions", asked));
}

export class Session {
  /** @param {State} state as `GET /v1/sessions/{id}` describes it */
  constructor(state) {
    this.id = state.session;
    this.variant = state.variant;
    /** Index of the frame that comes next, and of the answer before it how often it was corrected. */
    this.nextFrame = state.next_frame;
    this.revision = state.revision;
    /** Connections that were made, and frames that were sent more than once. */
    this.connections = 0;
    this.resent = 0;
    /** Called whenever something above, or `standing`, has changed. */
    this.changed = () => {};
    /** @type {"closed" | "connecting" | "open" | "waiting"} */
    this.standing = "closed";
    /** @type {Sent[]} without an answer, in their order */
    this._waiting = [];
    /** How many of them went out over this connection. */
    this._sent = 0;
    /** Index of the frame that is added next. */
    this.index = state.next_frame;
    /** @type {Connection | null} */
    this._connection = null;
    /** @type {{sent: Sent, answer: Answer} | null} the last that was answered */
    this._last = null;
    this._pause = FIRST_PAUSE_MS;
    this._since = 0;
    this._timer = 0;
    /** Nothing is sent: what a refusal comes from is being asked. */
    this._held = false;
  }

  get inFlight() {
    return this._waiting.length;
  }

  /** Whether another frame may be put. */
  get hasRoom() {
    return this._waiting.length < IN_FLIGHT;
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
    return this._put({ frame, follows, prompts }, image, null);
  }

  /**
   * Answer the last frame anew: `prompts` replace those that it had. Nothing else may be in flight.
   * @param {Blob} image the frame's, which is sent only where the server does not know it any more
   * @param {object[]} prompts
   * @returns {Promise<Answer>}
   */
  correct(image, prompts) {
    const request = { frame: this.nextFrame - 1, revision: this.revision + 1, prompts, known_image: true };
    return this._put(request, null, image);
  }

  /** Where the session stands, as the server sees it. @returns {Promise<State>} */
  async state() {
    return call("GET", this._path());
  }

  /** Hang up. What is in flight is sent again over the next connection, which is made at once. */
  cut() {
    this._hangUp();
    this._since = performance.now();
    this._connect();
  }

  /**
   * Hang up, come back with nothing but the session's id, and ask for the last answer once more.
   * @returns {Promise<{state: State, same: boolean | null}>} `same`: whether it is that answer, to the bit;
   *   null where none is known
   */
  async reconnect() {
    this.cut();
    const state = await this.state();
    if (this._last === null || this.inFlight || state.next_frame !== this.nextFrame) {
      return { state, same: null };
    }
    const { sent, answer } = this._last;
    const again = await this._put(sent.request, sent.image, sent.spare);
    return { state, same: JSON.stringify(again.objects) === JSON.stringify(answer.objects) };
  }

  /** Hang up and have the server forget the session. Who waits for a frame is told so. */
  async delete() {
    this._give(new Problem("cancelled", "The session was ended."));
    await call("DELETE", this._path());
  }

  _path() {
    return `/v1/sessions/${encodeURIComponent(this.id)}`;
  }

  /**
   * @param {Request} request
   * @param {Blob | null} image
   * @param {Blob | null} spare
   * @returns {Promise<Answer>}
   */
  _put(request, image, spare) {
    const answer = new Promise((resolve, reject) => {
      this._waiting.push({ request, image, spare, resolve, reject, times: 0 });
    });
    if (this._waiting.length === 1) this._since = performance.now();
    this._pump();
    return answer;
  }

  _pump() {
    if (this._connection === null && this.standing === "closed" && !this._held) this._connect();
    if (this._connection?.isOpen) {
      for (const each of this._waiting.slice(this._sent)) {
        this._connection.send(each.request, each.image);
        this._sent += 1;
        if (each.times) this.resent += 1;
        each.times += 1;
      }
    }
    this.changed();
  }

  _connect() {
    clearTimeout(this._timer);
    this.connections += 1;
    this.standing = "connecting";
    this._connection = new Connection(`${this._path()}/stream`, {
      opened: () => {
        this.standing = "open";
        this._pump();
      },
      answered: (answer) => this._answered(answer),
      refused: (problem) => this._refused(problem),
      broke: (problem) => this._broke(problem),
    });
    this.changed();
  }

  /** @param {Answer} answer */
  _answered(answer) {
    const sent = /** @type {Sent} */ (this._waiting.shift());
    this._sent -= 1;
    this._pause = FIRST_PAUSE_MS;
    this._since = performance.now();
    this._last = { sent, answer };
    this.nextFrame = answer.frame + 1;
    this.revision = answer.revision;
    sent.resolve(answer);
    this._pump();
  }

  /** The first that waits was refused; what was sent behind it is refused as well. @param {Problem} problem */
  async _refused(problem) {
    const first = this._waiting[0];
    this._hangUp();
    if (problem.kind === "image_required" && first?.spare) {
      first.request = { ...first.request };
      delete first.request.known_image;
      [first.image, first.spare] = [first.spare, null];
      this._connect();
    } else if (PASSING.has(problem.kind)) {
      this._later(problem);
    } else {
      this._held = true;
      const meant = await this._meant(problem);
      this._held = false;
      this._give(meant);
    }
  }

  /** @param {Problem} problem */
  _broke(problem) {
    this._hangUp();
    if (this._waiting.length) this._later(problem);
    else this.changed();
  }

  /** Try again after a pause, while patience lasts. @param {Problem} problem */
  _later(problem) {
    if (performance.now() - this._since > PATIENCE_MS) {
      this._give(problem);
      return;
    }
    this.standing = "waiting";
    this._timer = setTimeout(() => this._connect(), this._pause * (0.5 + Math.random() / 2));
    this._pause = Math.min(2 * this._pause, LONGEST_PAUSE_MS);
    this.changed();
  }

  /**
   * What a refusal comes from: a gap behind an answer that we have means that the store lost frames.
   * @param {Problem} problem
   * @returns {Promise<Problem>}
   */
  async _meant(problem) {
    if (problem.kind !== "frame_gap" && problem.kind !== "session_rolled_back") return problem;
    const state = await this.state().catch(() => null);
    if (state === null || state.next_frame > this.nextFrame) return problem;
    if (state.next_frame === this.nextFrame && state.revision >= this.revision) return problem;
    [this.nextFrame, this.revision, this._last] = [state.next_frame, state.revision, null];
    return new Problem("session_rolled_back", problem.detail);
  }

  /** Nobody waits any more. @param {Problem} problem */
  _give(problem) {
    this._hangUp();
    const waiting = this._waiting.splice(0);
    this.index = this.nextFrame;
    for (const each of waiting) each.reject(problem);
    this.changed();
  }

  _hangUp() {
    clearTimeout(this._timer);
    this._connection?.close();
    this._connection = null;
    this._sent = 0;
    this.standing = "closed";
  }
}
