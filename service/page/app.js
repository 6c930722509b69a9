// The page's entry: modes, variants, the client's key, and what both modes share.

import { Problem, inWords, key } from "./api.js";
import { startImage } from "./image.js";
import { startStatus } from "./status.js";
import { Variants } from "./variants.js";
import { startVideo } from "./video.js";

const variants = new Variants();
const element = (id) => document.getElementById(id);

/**
 * What a mode is given.
 * @typedef {{variants: Variants, failed: (error: unknown) => void}} Shared
 * `failed` is told of what was refused, for what concerns both modes: a key that is missing.
 */
const shared = { variants, failed };
// Whether the modes were told that requests are let in; and until there is a key nothing is asked again.
let [admitted, locked] = [false, false];
/**
 * `admitted`: requests are let in, now or with another key. `key`: whether a key meant something.
 * @type {Record<string, {leave?: () => void, enter?: () => void, admitted?: () => void,
 *   key?: (event: KeyboardEvent) => boolean}>}
 */
const modes = {};

function failed(error) {
  if (error instanceof Problem && error.kind === "unauthenticated") askForKey(key.get() ? error : null);
}

function askForKey(error) {
  locked = true;
  element("key-form").hidden = false;
  element("key-error").textContent = error ? inWords(error) : "This service asks for a key.";
}

/** Ask what the variants can do; the modes begin once that is known. */
async function load() {
  try {
    await variants.load();
  } catch (error) {
    failed(error);
    const needsKey = error instanceof Problem && error.kind === "unauthenticated";
    element("variant-error").textContent = needsKey ? "" : inWords(error);
    return;
  }
  for (const name of ["variant-error", "key-error"]) element(name).textContent = "";
  element("key-form").hidden = !key.get();
  locked = false;
  if (admitted) return;
  admitted = true;
  for (const mode of Object.values(modes)) mode.admitted?.();
}

function showVariants() {
  const select = element("variant");
  const chosen = variants.chosen?.name;
  select.replaceChildren(
    ...variants.list.map(({ name, workers_ready }) => {
      const label = workers_ready ? name : `${name} (no worker ready)`;
      return new Option(label, name, false, name === chosen);
    }),
  );
  element("variant-field").hidden = variants.list.length === 0;
}

function startModes() {
  const tabs = [...document.querySelectorAll("[role=tab]")];
  const choose = (tab) => {
    for (const each of tabs) {
      const chosen = each === tab;
      const name = each.getAttribute("aria-controls");
      if (!chosen && each.ariaSelected === "true") modes[name]?.leave?.();
      each.ariaSelected = String(chosen);
      each.tabIndex = chosen ? 0 : -1;
      element(name).hidden = !chosen;
    }
    modes[tab.getAttribute("aria-controls")]?.enter?.();
  };
  for (const tab of tabs) {
    tab.addEventListener("click", () => choose(tab));
    tab.addEventListener("keydown", (event) => {
      if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
      const shown = tabs.filter((each) => !each.hidden);
      const next = shown[(shown.indexOf(tab) + 1) % shown.length];
      choose(next);
      next.focus();
    });
  }
}

function startKeys() {
  document.addEventListener("keydown", (event) => {
    if (document.querySelector("dialog[open]")) return;
    const writing = event.target.closest("input:not([type=radio]):not([type=range]), textarea, select");
    if (writing) return;
    if (event.key === "?") element("help").showModal();
    else {
      const mode = Object.keys(modes).find((name) => !element(name).hidden);
      if (!mode || !modes[mode].key?.(event)) return;
    }
    event.preventDefault();
  });
  element("help-open").addEventListener("click", () => element("help").showModal());
}

element("variant").addEventListener("change", (event) => variants.choose(event.target.value));
variants.addEventListener("change", showVariants);
element("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key.set(element("key").value.trim());
  admitted = false;
  load();
});

startModes();
startKeys();
modes.image = startImage(shared);
modes.video = startVideo(shared);
startStatus(element("status"), variants, async () => locked || load());
