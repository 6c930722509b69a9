// The strip that tells how the service is, from what it tells everybody: its readiness, variants and metrics.

import { ROOT } from "./api.js";

const INTERVAL_MS = 5000;
// More variants than these are summed up.
const MAX_NAMED = 3;
const SAMPLE = /^efficientsam3_(\w+?)(?:\{(.*)\})? (\S+)$/gm;
const STORES = { none: "kept by the workers", ready: "kept in Redis", unavailable: "Redis is out of reach" };

/**
 * @param {HTMLElement} strip
 * @param {import("./variants.js").Variants} variants
 * @param {() => Promise<unknown>} look asks for the variants anew
 */
export function startStatus(strip, variants, look) {
  const show = async () => {
    if (document.hidden) return;
    const [ready, metrics] = await Promise.all([read("readyz"), read("metrics"), look()]);
    strip.replaceChildren(...(ready ? items(JSON.parse(ready), metrics, variants.list) : unreachable()));
  };
  setInterval(show, INTERVAL_MS);
  document.addEventListener("visibilitychange", show);
  return show();
}

/** What is there, or "": it is nobody's fault here if that may not be read. */
async function read(path) {
  try {
    const response = await fetch(new URL(path, ROOT));
    // A gateway that stops says so with 503.
    return response.ok || response.status === 503 ? await response.text() : "";
  } catch {
    return "";
  }
}

const unreachable = () => [item("Service", "cannot be reached from here", "off")];

function items(ready, metrics, list) {
  const pools = Object.entries(ready.variants);
  const named = pools.length > MAX_NAMED ? [[`${pools.length} variants`, summed(pools)]] : pools;
  return [
    ...(pools.length ? [] : [item("Variants", "none is configured", "off")]),
    ...named.map(([name, { workers, workers_ready: ready, missing }]) => {
      const state = ready === 0 ? "off" : ready < workers ? "some" : "on";
      return item(name, `${ready} of ${workers} ${workers === 1 ? "worker" : "workers"} ready`, state, missing);
    }),
    ...(metrics ? counted(metrics, list) : []),
    item("Sessions", STORES[ready.session_store] ?? ready.session_store),
  ];
}

function summed(pools) {
  const sum = (name) => pools.reduce((total, [, pool]) => total + pool[name], 0);
  return { workers: sum("workers"), workers_ready: sum("workers_ready"), missing: "" };
}

/** What the gateway's metrics say: of the gateway that answered, since it started. */
function counted(metrics, list) {
  const samples = [...metrics.matchAll(SAMPLE)];
  const sum = (name, label = "") =>
    samples
      .filter(([, each, labels = ""]) => each === name && labels.includes(label))
      .reduce((total, [, , , value]) => total + Number(value), 0);
  const room = list.reduce((total, each) => total + each.capacity, 0);
  const waiting = sum("inflight_requests");
  const asked = sum("stage_seconds_count", 'stage="total"');
  // Whoever finds the image's embedding does not run the encoder.
  const encoded = sum("stage_seconds_count", 'stage="image_encoder"');
  const hits = asked ? `${Math.round(100 * (1 - encoded / asked))} % from cache` : "none asked for yet";
  return [
    item("Queue", room ? `${waiting} of ${room}` : `${waiting}`, "", "Requests admitted and not answered yet"),
    item("Images", hits, "", "Share of the answers that did not encode their image anew"),
  ];
}

function item(name, value, state = "", title = "") {
  const shown = document.createElement("span");
  if (state) shown.dataset.state = state;
  shown.title = title;
  const strong = document.createElement("b");
  strong.textContent = name;
  shown.append(strong, ` ${value}`);
  return shown;
}
