// @ts-check
/** The service's public API: requests, and problems as sentences. */

const KEY = "efficientsam3.key";

/** The client's key: kept for this tab alone, never in an address. @returns {string} empty: none */
export function key() {
  return sessionStorage.getItem(KEY) ?? "";
}

/** @param {string} value empty: none */
export function setKey(value) {
  if (value) sessionStorage.setItem(KEY, value);
  else sessionStorage.removeItem(KEY);
}

/** What the service refused, or why it could not be asked. */
export class Problem extends Error {
  /**
   * @param {string} kind of the service's table of errors, or one of the page's own
   * @param {string} detail a sentence for a person
   * @param {number} [retryAfterS] seconds after which the same may succeed; 0: it will not
   */
  constructor(kind, detail, retryAfterS = 0) {
    super(detail);
    this.kind = kind;
    this.retryAfterS = retryAfterS;
  }
}

/**
 * What an answer's JSON refuses, if it does.
 * @param {any} body
 * @param {number} [retryAfterS]
 * @returns {Problem | null}
 */
export function problemOf(body, retryAfterS = 0) {
  const [, kind] = /^\/problems\/(\w+)$/.exec(body?.type ?? "") ?? [];
  return kind ? new Problem(kind, body.detail || body.title, retryAfterS) : null;
}

/**
 * @param {string} method
 * @param {string} path such as "/v1/variants"
 * @param {object | FormData} [body] sent as JSON, or as multipart
 * @param {AbortSignal} [signal]
 * @returns {Promise<Response>} of success. Fails with a Problem, or with the signal's AbortError.
 */
export async function ask(method, path, body, signal) {
  const headers = new Headers();
  if (key()) headers.set("Authorization", `Bearer ${key()}`);
  const isForm = body instanceof FormData;
  if (body && !isForm) headers.set("Content-Type", "application/json");
  const sent = body && !isForm ? JSON.stringify(body) : /** @type {FormData | undefined} */ (body);
  let response;
  try {
    response = await fetch(path, { method, headers, body: sent, signal });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Problem("unreachable", "The service cannot be reached from here.", 2);
  }
  if (response.ok) return response;
  const told = await response.json().catch(() => null);
  const retryAfterS = Number(response.headers.get("Retry-After")) || 0;
  throw problemOf(told, retryAfterS) ?? new Problem("unreachable", `The answer was HTTP ${response.status}.`);
}

/**
 * As `ask`.
 * @param {string} method
 * @param {string} path
 * @param {object | FormData} [body]
 * @param {AbortSignal} [signal]
 * @returns {Promise<any>} the answer's JSON; null where it has none
 */
export async function call(method, path, body, signal) {
  const response = await ask(method, path, body, signal);
  return response.status === 204 ? null : response.json();
}

/** What went wrong, for a person. @param {unknown} error @returns {string} */
export function inWords(error) {
  if (error instanceof Problem) return error.message;
  console.error(error);
  return "Something went wrong in this page; the browser's console has more.";
}
