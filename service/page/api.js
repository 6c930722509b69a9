// The service's public API: requests, and problems as sentences. Addresses are relative, so that the page
// works beneath a prefix as well.

export const ROOT = new URL("..", import.meta.url);

const KEY = "efficientsam3.key";

/** The client's key: in this tab alone, never in an address. */
export const key = {
  /** @returns {string} empty: none */
  get: () => sessionStorage.getItem(KEY) ?? "",
  /** @param {string} value */
  set: (value) => (value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY)),
};

/** What the service refused, or why it could not be asked. */
export class Problem extends Error {
  /**
   * @param {string} kind of the service's table of errors, or "unreachable"
   * @param {string} detail a sentence
   * @param {{title?: string, status?: number, retryAfterS?: number}} [more]
   */
  constructor(kind, detail, { title = "", status = 0, retryAfterS = 0 } = {}) {
    super(detail);
    this.kind = kind;
    this.title = title;
    this.status = status;
    /** Seconds after which the same may succeed; 0: it will not. */
    this.retryAfterS = retryAfterS;
  }

  /** @param {any} body of problem+json @param {number} [retryAfterS] */
  static of(body, retryAfterS = 0) {
    const kind = String(body.type ?? "").split("/").pop() || "internal";
    const { title, status } = body;
    return new Problem(kind, body.detail ?? title ?? "The service did not say what went wrong.", {
      title,
      status,
      retryAfterS,
    });
  }
}

/**
 * Ask, and take what is answered.
 * @param {string} path such as "v1/variants"
 * @param {{method?: string, json?: unknown, body?: FormData, signal?: AbortSignal}} [how]
 * @returns {Promise<Response>} of success; throws Problem, or AbortError
 */
export async function ask(path, { method, json, body, signal } = {}) {
  const headers = new Headers();
  if (key.get()) headers.set("Authorization", `Bearer ${key.get()}`);
  if (json !== undefined) headers.set("Content-Type", "application/json");
  const sent = json === undefined ? body : JSON.stringify(json);
  method ??= sent === undefined ? "GET" : "POST";
  let response;
  try {
    response = await fetch(new URL(path, ROOT), { method, headers, body: sent, signal });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Problem("unreachable", "The service cannot be reached from here.", { retryAfterS: 2 });
  }
  if (response.ok) return response;
  const told = await response.json().catch(() => ({ detail: `The answer was HTTP ${response.status}.` }));
  throw Problem.of({ status: response.status, ...told }, Number(response.headers.get("Retry-After")) || 0);
}

/** As `ask`; the answer's JSON. @returns {Promise<any>} */
export async function askJson(path, how) {
  return (await ask(path, how)).json();
}

/** @param {string} path @returns {string} the address of a WebSocket there */
export function socketUrl(path) {
  const url = new URL(path, ROOT);
  url.protocol = url.protocol.replace("http", "ws");
  return url.href;
}

/** What went wrong, for a person. @param {unknown} error */
export function inWords(error) {
  if (error instanceof Problem) return error.message;
  console.error(error);
  return "Something went wrong in this page; the browser's console has more.";
}

/** Wait, unless it is given up. @param {number} seconds @param {AbortSignal} [signal] @returns {Promise<void>} */
export function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}
