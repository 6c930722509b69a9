// @ts-check
/** A session's WebSocket: a text message of JSON, then the frame's image, and so on; answers are text. */

import { Problem, key, problemOf } from "./api.js";

// Longer than the server takes for a frame: who says nothing for so long is gone.
const SILENCE_MS = 75_000;

/** Close codes of RFC 6455 for what would be refused again, and the kinds that they stand for. */
const REFUSED = new Map([
  [1008, "invalid_argument"],
  [1009, "payload_too_large"],
]);

/**
 * @typedef {object} Events
 * @property {() => void} opened
 * @property {(answer: any) => void} answered
 * @property {(problem: Problem) => void} refused the first frame without an answer, or the whole connection
 * @property {(problem: Problem) => void} broke no more comes
 */

export class Connection {
  /**
   * @param {string} path
   * @param {Events} events none of them after `close`
   */
  constructor(path, events) {
    this._events = events;
    this._timer = 0;
    /** Answers that are still to come. */
    this._owed = 0;
    this._key = key();
    this._socket = new WebSocket(new URL(path, location.href.replace(/^http/, "ws")));
    this._socket.onopen = () => events.opened();
    this._socket.onmessage = (message) => this._read(JSON.parse(message.data));
    this._socket.onclose = (closing) => this._closed(closing);
  }

  get isOpen() {
    return this._socket.readyState === WebSocket.OPEN;
  }

  /**
   * @param {object} request
   * @param {Blob | null} image null where the server knows it
   */
  send(request, image) {
    // The first message brings the key: a page cannot set the handshake's headers.
    this._socket.send(JSON.stringify(this._key ? { ...request, key: this._key } : request));
    this._key = "";
    if (image) this._socket.send(image);
    this._owed += 1;
    this._listen();
  }

  close() {
    clearTimeout(this._timer);
    this._socket.onopen = this._socket.onmessage = this._socket.onclose = null;
    this._socket.close();
  }

  _listen() {
    clearTimeout(this._timer);
    if (!this._owed) return;
    this._timer = setTimeout(() => {
      this.close();
      this._events.broke(new Problem("unavailable", "The server said nothing for too long."));
    }, SILENCE_MS);
  }

  /** @param {any} body */
  _read(body) {
    this._owed -= 1;
    this._listen();
    const problem = problemOf(body);
    if (problem) this._events.refused(problem);
    else this._events.answered(body);
  }

  /** @param {CloseEvent} closing */
  _closed(closing) {
    clearTimeout(this._timer);
    const kind = REFUSED.get(closing.code);
    if (kind) this._events.refused(new Problem(kind, closing.reason || "The server hung up."));
    else this._events.broke(new Problem("unavailable", "The connection broke."));
  }
}
