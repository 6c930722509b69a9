// @ts-check
/** The page's entry: its two modes, the variant, the key, and what the keyboard does. */

import { Problem, inWords, key, setKey } from "./api.js";
import { byId, isTyping, make, say } from "./dom.js";
import { Variants } from "./variants.js";
import { beginStatus } from "./status.js";

/**
 * @typedef {object} Mode one of the page's two tabs
 * @property {() => void} show it is looked at now
 * @property {() => void} hide it is not any more
 * @property {(event: KeyboardEvent) => boolean} typed a key outside of text fields; whether it meant something
 */

/** How often it is asked again what the service can do, while it cannot say. */
const AGAIN_MS = 3_000;

/** @type {Record<string, (variants: Variants) => Promise<Mode>>} */
const MODES = {
  image: async (variants) => new (await import("./image.js")).ImageMode(variants),
  video: async (variants) => new (await import("./video.js")).VideoMode(variants),
};

const SHORTCUTS = [
  ["/", "type words"],
  ["1 2 3", "click, box, exemplar"],
  ["x", "of it, or not of it"],
  ["n", "next object: what follows is another one"],
  ["o", "open a picture"],
  ["Ctrl Z, Ctrl Shift Z", "undo, redo"],
  ["Delete", "clear"],
  ["+ − 0", "zoom in, out, fit"],
  ["Arrows, Enter", "on the picture: move the cursor, click; a box is drawn from corner to corner"],
  ["Space", "in a video: go on, pause"],
  ["?", "this list"],
];

class App {
  constructor() {
    this.variants = new Variants();
    /** @type {Map<string, Promise<Mode>>} by the tab's name */
    this.modes = new Map();
    /** @type {Mode | null} */
    this.mode = null;
    this._tabs();
    this._variant();
    this._key();
    this._help();
    document.addEventListener("keydown", (event) => this._typed(event));
    beginStatus(byId("status"), () => this._load());
    this._load();
    this._open(location.hash === "#video" ? "video" : "image");
  }

  /** @param {string} name */
  async _open(name) {
    this.mode?.hide();
    for (const each of Object.keys(MODES)) {
      const tab = byId(`${each}-tab`);
      tab.ariaSelected = String(each === name);
      tab.tabIndex = each === name ? 0 : -1;
      byId(each).hidden = each !== name;
    }
    history.replaceState(null, "", name === "image" ? location.pathname : `#${name}`);
    if (!this.modes.has(name)) this.modes.set(name, MODES[name](this.variants));
    const mode = await this.modes.get(name);
    if (byId(name).hidden || !mode) return;
    this.mode = mode;
    mode.show();
  }

  _tabs() {
    for (const name of Object.keys(MODES)) {
      byId(`${name}-tab`).addEventListener("click", () => this._open(name));
      byId(`${name}-tab`).addEventListener("keydown", (event) => {
        if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
        const other = name === "image" ? "video" : "image";
        byId(`${other}-tab`).focus();
        this._open(other);
      });
    }
  }

  _variant() {
    const select = /** @type {HTMLSelectElement} */ (byId("variant"));
    select.addEventListener("change", () => this.variants.choose(select.value));
    this.variants.addEventListener("change", () => {
      const options = this.variants.all.map(({ name, workers_ready, synthetic }) => {
        const told = workers_ready ? (synthetic ? " (synthetic weights)" : "") : " (no worker is ready)";
        return make("option", { value: name }, name + told);
      });
      select.replaceChildren(...options);
      select.value = this.variants.chosen;
      select.disabled = options.length < 2;
    });
  }

  /** What the service can do; asked again until it says so. */
  async _load() {
    clearTimeout(this._timer);
    const banner = byId("service-problem");
    try {
      await this.variants.load();
      say(banner, "");
      byId("key-open").hidden = !key();
      if (!this.variants.current?.prompts.length) this._timer = setTimeout(() => this._load(), AGAIN_MS);
    } catch (error) {
      if (error instanceof Problem && (error.kind === "unauthenticated" || error.kind === "forbidden")) {
        byId("key-open").hidden = false;
        this._askForKey(key() ? error.message : "");
        return;
      }
      say(banner, inWords(error));
      this._timer = setTimeout(() => this._load(), AGAIN_MS);
    }
  }

  _key() {
    const dialog = /** @type {HTMLDialogElement} */ (byId("key-dialog"));
    byId("key-open").addEventListener("click", () => this._askForKey(""));
    byId("key-cancel").addEventListener("click", () => dialog.close());
    byId("key-form").addEventListener("submit", (event) => {
      event.preventDefault();
      setKey(/** @type {HTMLInputElement} */ (byId("key-value")).value.trim());
      dialog.close();
      this._load();
    });
  }

  /** @param {string} why the one that is there will not do */
  _askForKey(why) {
    const dialog = /** @type {HTMLDialogElement} */ (byId("key-dialog"));
    const input = /** @type {HTMLInputElement} */ (byId("key-value"));
    say(byId("key-problem"), why);
    input.value = key();
    if (!dialog.open) dialog.showModal();
    input.select();
  }

  _help() {
    const dialog = /** @type {HTMLDialogElement} */ (byId("help"));
    const rows = SHORTCUTS.flatMap(([keys, meaning]) => [make("dt", {}, keys), make("dd", {}, meaning)]);
    byId("help-keys").replaceChildren(...rows);
    byId("help-open").addEventListener("click", () => dialog.showModal());
    byId("help-close").addEventListener("click", () => dialog.close());
  }

  /** @param {KeyboardEvent} event */
  _typed(event) {
    if (event.defaultPrevented || document.querySelector("dialog[open]")) return;
    if (isTyping()) {
      if (event.key === "Escape") /** @type {HTMLElement} */ (document.activeElement).blur();
      return;
    }
    if (event.key === "?") /** @type {HTMLDialogElement} */ (byId("help")).showModal();
    else if (!this.mode?.typed(event)) return;
    event.preventDefault();
  }
}

new App();
