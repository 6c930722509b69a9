// One value after another, with undo and redo.

/** @template T */
export class Steps {
  /** @type {T[]} */
  #before = [];
  /** @type {T[]} */
  #after = [];

  /** @param {T} now */
  constructor(now) {
    this.now = now;
  }

  get canUndo() {
    return this.#before.length > 0;
  }

  get canRedo() {
    return this.#after.length > 0;
  }

  /** @param {T} next */
  put(next) {
    this.#before.push(this.now);
    this.#after = [];
    this.now = next;
  }

  undo() {
    this.#after.push(this.now);
    this.now = /** @type {T} */ (this.#before.pop());
  }

  redo() {
    this.#before.push(this.now);
    this.now = /** @type {T} */ (this.#after.pop());
  }

  /** Back to a value that it had, as if nothing had come after it. @param {T} value */
  retreat(value) {
    const place = this.#before.indexOf(value);
    if (place >= 0) this.#before.length = place;
    this.#after = [];
    this.now = value;
  }
}
