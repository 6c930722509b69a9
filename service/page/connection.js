// A session's WebSocket: a text message of JSON, then the frame's image, and so on; answers are text.

import { Problem, key, socketUrl } from "./api.js";

// Longer than the server takes for a frame: who says nothing for so long is gone.
const SILENCE_MS = 75_000;

// Close codes of RFC 6455 for what would be refused again, and the kinds that they stand for.
const REFUSED = new Map([
  [1008, "invalid_argument"],
  [1009, "payload_too_large"],
]);

/**
 * What a connection tells of; nothing after `close`.
 * @typedef {object} Events
 * @property {() => void} opened
 * @property {(answer: any) => void} answered
 * @property {(problem: Problem) => void} refused the first frame without an answer, or the whole connection
 * @property {(problem: Problem) => void} broke no more comes
 */

export class Connection {
  #socket;
  #events;
  // The first message brings it: a page cannot set the handshake's headers.
  #key = key.get();
  // Answers that are still to come.
  #owed = 0;
  #timer = 0;

  /** @param {string} path @param {Events} events */
  constructor(path, events) {
    this.#events = events;
    this.#socket = new WebSocket(socketUrl(path));
    this.#socket.onopen = () => events.opened();
    this.#socket.onmessage = (message) => this.#read(JSON.parse(message.data));
    this.#socket.onclose = (closing) => this.#closed(closing);
  }

  get isOpen() {
    return this.#socket.readyState === WebSocket.OPEN;
  }

  /** @param {object} request @param {Blob | null} image null where the server knows it */
  send(request, image) {
    this.#socket.send(JSON.stringify(this.#key ? { ...request, key: this.#key } : request));
    this.#key = "";
    if (image) this.#socket.send(image);
    this.#owed += 1;
    this.#listen();
  }

  close() {
    clearTimeout(this.#timer);
    this.#socket.onopen = this.#socket.onmessage = this.#socket.onclose = null;
    this.#socket.close();
  }

  #listen() {
    clearTimeout(this.#timer);
    if (!this.#owed) return;
    this.#timer = setTimeout(() => {
      this.close();
      this.#events.broke(new Problem("unavailable", "The service said nothing for too long."));
    }, SILENCE_MS);
  }

  #read(body) {
    this.#owed -= 1;
    this.#listen();
    if (body.type) this.#events.refused(Problem.of(body));
    else this.#events.answered(body);
  }

  /** @param {CloseEvent} closing */
  #closed(closing) {
    clearTimeout(this.#timer);
    const kind = REFUSED.get(closing.code);
    if (kind) this.#events.refused(new Problem(kind, closing.reason || "The service hung up."));
    else this.#events.broke(new Problem("unavailable", "The connection broke."));
  }
}
