// One tracking session: its frames in order, over a WebSocket, through whatever happens on the way.
//
// Several frames may be in flight. Those that have no answer are kept here with their images: when the connection
// breaks, another is made with the session's id and they are sent again. The service answers what it had answered
// already the same way.

import { Problem, ask, askJson } from "./api.js";
import { Connection } from "./connection.js";

/** Frames that may be on their way at once: the service keeps the answers of so many, to give them again. */
export const IN_FLIGHT = 4;

const PATIENCE_MS = 60_000;
const FIRST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 5_000;

// A worker that died, a store that restarts, a full queue, a key's rate.
const PASSING = new Set(["unavailable", "store_unavailable", "overloaded", "quota_exceeded"]);

/**
 * @typedef {{frame: number, revision: number, objects: any[], image: {width: number, height: number},
 *   memory_bytes: number, timings_ms: Record<string, number>}} Answer
 * @typedef {{frame: number, revision?: number, follows?: number, prompts: object[],
 *   known_image?: boolean}} Request
 *
 * A frame; `spare` is its image where that is sent only if the service does not know it any more, `times` how
 * often it was sent.
 * @typedef {{request: Request, image: Blob | null, spare: Blob | null, times: number,
 *   resolve: (answer: Answer) => void, reject: (problem: Problem) => void}} Sent
 *
 * As `GET /v1/sessions/{id}` has it.
 * @typedef {{session: string, variant: string, next_frame: number, revision: number, oldest_answer: number,
 *   expires_at: string, objects: number[], memory_bytes: number}} State
 */

/** @param {object} asked what `POST /v1/sessions` takes @returns {Promise<Session>} */
export async function open(asked) {
  const opened = await askJson("v1/sessions", { json: asked });
  return new Session(opened.session, opened.next_frame, opened.revision ?? 0);
}

export class Session {
  /** Called whenever something below has changed. */
  changed = () => {};
  /** @type {"closed" | "connecting" | "open" | "waiting"} */
  standing = "closed";
  /** @type {Problem | null} why it waits, and tries again */
  trouble = null;
  /** Connections that were made, and frames that were sent more than once. */
  connections = 0;
  resent = 0;

  /** @type {Sent[]} without an answer, in their order */
  #waiting = [];
  // How many of them went out over this connection.
  #sent = 0;
  /** @type {Connection | null} */
  #connection = null;
  /** @type {{sent: Sent, answer: Answer} | null} the last that was answered */
  #last = null;
  #pauseMs = FIRST_PAUSE_MS;
  // When the first that waits began to, or the last answer came.
  #since = 0;
  #timer = 0;
  // Nothing is sent: what a refusal comes from is being asked.
  #held = false;

  /** @param {string} id @param {number} nextFrame @param {number} revision */
  constructor(id, nextFrame, revision) {
    this.id = id;
    /** Index of the frame that comes next, and how often the one before it was corrected. */
    this.nextFrame = nextFrame;
    this.revision = revision;
    /** Index of the frame that is added next: those between are in flight. */
    this.index = nextFrame;
  }

  get inFlight() {
    return this.#waiting.length;
  }

  /**
   * Follow the objects into the next frame. The promise fails with a Problem.
   * @param {Blob} image @param {object[]} prompts @returns {Promise<Answer>}
   */
  add(image, prompts = []) {
    const frame = this.index++;
    // Which answer it goes on from: a store may have lost that one.
    const follows = frame === this.nextFrame ? this.revision : 0;
    return this.#put({ frame, follows, prompts }, image, null);
  }

  /**
   * Answer the last frame anew: `prompts` replace those that it had. Nothing else may be in flight.
   * @param {Blob} image the frame's, which is sent only where the service does not know it any more
   * @param {object[]} prompts @returns {Promise<Answer>}
   */
  correct(image, prompts) {
    const request = { frame: this.nextFrame - 1, revision: this.revision + 1, prompts, known_image: true };
    return this.#put(request, null, image);
  }

  /** Where the session stands, as the service sees it. @returns {Promise<State>} */
  state() {
    return askJson(this.#path);
  }

  /**
   * Hang up, come back with nothing but the session's id, and ask for the last answer once more. What is in flight
   * is sent again.
   * @returns {Promise<{state: State, same: boolean | null}>} `same`: whether that answer is the same, to the bit;
   *   null where others are on their way
   */
  async reconnect() {
    this.#hangUp();
    this.#since = performance.now();
    this.#connect();
    const state = await this.state();
    if (this.#last === null || this.inFlight || state.next_frame !== this.nextFrame) return { state, same: null };
    const { sent, answer } = this.#last;
    const again = await this.#put(sent.request, sent.image, sent.spare);
    return { state, same: JSON.stringify(again.objects) === JSON.stringify(answer.objects) };
  }

  /** Hang up and have the service forget the session. Who waits for a frame is told so. */
  async delete() {
    this.#give(new Problem("ended", "The session was ended."));
    await ask(this.#path, { method: "DELETE" });
  }

  get #path() {
    return `v1/sessions/${encodeURIComponent(this.id)}`;
  }

  /** @param {Request} request @param {Blob | null} image @param {Blob | null} spare @returns {Promise<Answer>} */
  #put(request, image, spare) {
    const answer = new Promise((resolve, reject) => {
      this.#waiting.push({ request, image, spare, times: 0, resolve, reject });
    });
    if (this.#waiting.length === 1) this.#since = performance.now();
    this.#pump();
    return answer;
  }

  #pump() {
    if (this.standing === "closed" && this.#waiting.length && !this.#held) this.#connect();
    if (this.#connection?.isOpen) {
      for (const each of this.#waiting.slice(this.#sent)) {
        this.#connection.send(each.request, each.image);
        this.#sent += 1;
        if (each.times) this.resent += 1;
        each.times += 1;
      }
    }
    this.changed();
  }

  #connect() {
    clearTimeout(this.#timer);
    this.connections += 1;
    this.standing = "connecting";
    this.#connection = new Connection(`${this.#path}/stream`, {
      opened: () => {
        this.standing = "open";
        this.#pump();
      },
      answered: (answer) => this.#answered(answer),
      refused: (problem) => this.#refused(problem),
      broke: (problem) => this.#broke(problem),
    });
    this.changed();
  }

  /** @param {Answer} answer */
  #answered(answer) {
    const sent = /** @type {Sent} */ (this.#waiting.shift());
    this.#sent -= 1;
    this.#pauseMs = FIRST_PAUSE_MS;
    this.#since = performance.now();
    this.trouble = null;
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
      const { known_image: _, ...request } = first.request;
      Object.assign(first, { request, image: first.spare, spare: null });
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
    else this.changed();
  }

  /** Try again after a pause, while patience lasts. @param {Problem} problem */
  #later(problem) {
    if (performance.now() - this.#since > PATIENCE_MS) return this.#give(problem);
    this.standing = "waiting";
    this.trouble = problem;
    this.#timer = setTimeout(() => this.#connect(), this.#pauseMs * (0.5 + Math.random() / 2));
    this.#pauseMs = Math.min(2 * this.#pauseMs, LONGEST_PAUSE_MS);
    this.changed();
  }

  /**
   * What a refusal comes from: a gap behind an answer that we have means that the store lost frames.
   * @param {Problem} problem @returns {Promise<Problem>}
   */
  async #meant(problem) {
    if (problem.kind !== "frame_gap" && problem.kind !== "session_rolled_back") return problem;
    const state = await this.state().catch(() => null);
    if (state === null || state.next_frame > this.nextFrame) return problem;
    if (state.next_frame === this.nextFrame && state.revision >= this.revision) return problem;
    [this.nextFrame, this.revision, this.#last] = [state.next_frame, state.revision, null];
    return new Problem("session_rolled_back", problem.message);
  }

  /** Nobody waits any more. @param {Problem} problem */
  #give(problem) {
    this.#hangUp();
    this.trouble = null;
    const waiting = this.#waiting.splice(0);
    this.index = this.nextFrame;
    for (const each of waiting) each.reject(problem);
    this.changed();
  }

  #hangUp() {
    clearTimeout(this.#timer);
    this.#connection?.close();
    this.#connection = null;
    this.#sent = 0;
    this.standing = "closed";
  }
}
