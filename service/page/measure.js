// What tracking takes: frames per second as they come, and where their time goes.

// Frames that are looked back on.
const FRAMES = 20;

export class Measure {
  /** @type {number[]} when answers came, milliseconds */
  #times = [];
  /** @type {Record<string, number>[]} */
  #stages = [];

  /** A pause is no slow frame. */
  restart() {
    this.#times = [];
  }

  /** A frame was answered. @param {Record<string, number>} timings milliseconds by stage */
  note(timings) {
    this.#times = [...this.#times, performance.now()].slice(-FRAMES);
    this.#stages = [...this.#stages, timings].slice(-FRAMES);
  }

  /** Answers per second, of the last ones; 0 while too few are known. */
  get framesPerSecond() {
    const span = this.#times[this.#times.length - 1] - this.#times[0];
    return span > 0 ? (1000 * (this.#times.length - 1)) / span : 0;
  }

  /** The median of a frame's whole time in the service, milliseconds. */
  get totalMs() {
    return median(this.#stages.map((each) => each.total ?? 0));
  }

  /** The medians of the stages, the longest first. @returns {{stage: string, ms: number}[]} */
  get stages() {
    const names = new Set(this.#stages.flatMap(Object.keys));
    names.delete("total");
    return [...names]
      .map((stage) => ({ stage, ms: median(this.#stages.map((each) => each[stage] ?? 0)) }))
      .filter(({ ms }) => ms > 0)
      .sort((one, other) => other.ms - one.ms);
  }
}

/** @param {number[]} values */
function median(values) {
  return [...values].sort((one, other) => one - other)[values.length >> 1] ?? 0;
}
