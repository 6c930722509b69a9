// What the service finds in one picture. The picture is sent once and then named by its id; a prompt that was
// answered is not asked again, so that undoing one, or another threshold, needs no request.

import { Problem, askJson, inWords, pause } from "./api.js";
import { decode } from "./rle.js";
import { asked } from "./prompts.js";

/** Nothing below this score is asked for; the slider begins here. */
export const FLOOR = 0.2;
export const MAX_SEGMENTS = 100;
const MAX_KEPT = 256;
const MAX_TRIES = 10;

/**
 * A segment as the API has it, with its mask decoded.
 * @typedef {{score: number, box: number[], area: number, label: string, rle: any,
 *   mask: import("./rle.js").Mask}} Segment
 * A picture that was sent: its file, and for which variants it is kept.
 * @typedef {{file: Blob, name: string, id: string, width: number, height: number, keptFor: Set<string>}} Picture
 * @typedef {import("./prompts.js").Prompt} Prompt
 */

/** Tells of `change` when there is something new to show. */
export class Answers extends EventTarget {
  /** @type {Picture | null} */
  picture = null;
  /** Why the last request has no answer, in words; empty: it has one, or is under way. */
  failure = "";
  /** Of the last answer, milliseconds by stage. @type {Record<string, number> | null} */
  took = null;

  #variants;
  /** @type {Map<string, Segment[]>} */
  #found = new Map();
  /** @type {Map<string, string>} why a prompt was refused */
  #refused = new Map();
  #asking = { keys: "", gone: new AbortController() };
  #failed;

  /**
   * @param {import("./variants.js").Variants} variants
   * @param {(error: unknown) => void} failed is told of every problem
   */
  constructor(variants, failed) {
    super();
    this.#variants = variants;
    this.#failed = failed;
  }

  /**
   * Send a picture. Throws Problem, or AbortError.
   * @param {Blob} file @param {string} name @param {AbortSignal} signal @returns {Promise<Picture>}
   */
  async send(file, name, signal) {
    const variant = this.#variant;
    const { id, width, height } = await this.#keep(file, name, signal);
    return { file, name, id, width, height, keptFor: new Set([variant]) };
  }

  /** Ask about this picture from now on. @param {Picture} picture */
  have(picture) {
    this.drop();
    this.picture = picture;
    this.took = null;
  }

  get #variant() {
    return this.#variants.chosen?.name ?? "";
  }

  /** Whether an answer is waited for. */
  get asks() {
    return this.#asking.keys !== "";
  }

  /** Ask for nothing any more. */
  drop() {
    this.#asking.gone.abort();
    this.#asking = { keys: "", gone: new AbortController() };
  }

  /** @param {Prompt} prompt @returns {Segment[] | undefined} undefined: it has no answer yet */
  found(prompt) {
    return this.#found.get(this.#key(prompt));
  }

  /** Why it was refused, in words; empty: it was not. @param {Prompt} prompt */
  refused(prompt) {
    return this.#refused.get(this.#key(prompt)) ?? "";
  }

  /** Have answers to all of these; what is under way for others is given up. @param {Prompt[]} prompts */
  async want(prompts) {
    const missing = this.picture ? prompts.filter((each) => !this.found(each) && !this.refused(each)) : [];
    const keys = missing.map((each) => this.#key(each)).join("\n");
    if (keys && keys === this.#asking.keys && !this.failure) return;
    this.drop();
    this.failure = "";
    if (!missing.length) return;
    const asking = this.#asking;
    asking.keys = keys;
    try {
      await this.#ask(missing, asking.gone.signal);
    } catch (error) {
      if (asking.gone.signal.aborted) return;
      this.failure = inWords(error);
      this.#failed(error);
    }
    if (asking === this.#asking) asking.keys = "";
    this.#changed();
  }

  async #ask(prompts, signal, tries = 0) {
    const keys = prompts.map((each) => this.#key(each));
    try {
      // Nothing is awaited before the usual request leaves.
      if (!this.picture.keptFor.has(this.#variant)) await this.#provide(signal);
      const answer = await askJson("v1/segment", {
        json: this.request(prompts, FLOOR),
        signal,
      });
      answer.results.forEach(({ segments }, index) => this.#put(keys[index], segments.map(readable)));
      this.took = answer.timings_ms;
      this.failure = "";
      this.#changed();
    } catch (error) {
      if (signal.aborted || !(error instanceof Problem)) throw error;
      await this.#again(error, prompts, signal, tries);
    }
  }

  /** What can be done about a problem. Throws it where that is nothing. */
  async #again(problem, prompts, signal, tries) {
    if (problem.kind === "image_not_found" && tries < 2) {
      this.picture.keptFor.clear();
    } else if (problem.status === 400 && prompts.length > 1) {
      for (const each of prompts) await this.#ask([each], signal);
      return;
    } else if (problem.status === 400) {
      this.#refused.set(this.#key(prompts[0]), problem.message.replace("prompts[0]", "This prompt"));
      this.#changed();
      return;
    } else if (problem.retryAfterS && tries < MAX_TRIES) {
      this.failure = `${problem.message} It is asked again.`;
      this.#changed();
      await pause(problem.retryAfterS, signal);
    } else {
      throw problem;
    }
    await this.#ask(prompts, signal, tries + 1);
  }

  /** The request for these prompts, as it is sent. @param {Prompt[]} prompts @param {number} threshold */
  request(prompts, threshold) {
    return {
      variant: this.#variant,
      image: { id: this.picture?.id ?? "" },
      prompts: prompts.map(asked),
      options: { score_threshold: threshold, mask_format: "rle", max_segments: MAX_SEGMENTS },
    };
  }

  /** Send the picture again where it may not be known: a variant's workers may keep their own. */
  async #provide(signal) {
    const { file, name, keptFor } = this.picture;
    const variant = this.#variant;
    await this.#keep(file, name, signal);
    keptFor.add(variant);
  }

  async #keep(file, name, signal) {
    const body = new FormData();
    body.append("image", file, name);
    body.append("request", JSON.stringify({ variant: this.#variant }));
    return (await askJson("v1/images", { body, signal })).image;
  }

  #key(prompt) {
    const { name, digest } = this.#variants.chosen ?? {};
    return JSON.stringify([name, digest, this.picture?.id, asked(prompt)]);
  }

  #put(key, segments) {
    this.#found.set(key, segments);
    // The oldest goes first.
    if (this.#found.size > MAX_KEPT) this.#found.delete(this.#found.keys().next().value);
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}

/** @returns {Segment} */
function readable({ mask: rle, ...segment }) {
  return { ...segment, rle, mask: decode(rle) };
}
