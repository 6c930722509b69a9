// @ts-check
/** The strip at the foot of the page: how the service is, from what it tells everyone. */

import { call, ask } from "./api.js";
import { make } from "./dom.js";

const EVERY_MS = 2_000;

/**
 * @param {HTMLElement} strip
 * @param {() => void} changed called when other workers are ready than before
 */
export function beginStatus(strip, changed) {
  let before = "";
  const look = async () => {
    if (!document.hidden) {
      const [ready, told] = await Promise.all([readiness(), metrics()]);
      const workers = JSON.stringify(ready?.variants);
      if (before && workers !== before) changed();
      before = workers ?? before;
      strip.replaceChildren(...facts(ready, told).map(([name, value]) => fact(name, value)));
    }
    setTimeout(look, EVERY_MS);
  };
  look();
}

/** @returns {Promise<any>} null: out of reach */
async function readiness() {
  return call("GET", "/readyz").catch(() => null);
}

/** @returns {Promise<Sample[]>} none where the metrics are out of reach */
async function metrics() {
  const response = await ask("GET", "/metrics").catch(() => null);
  return response ? parsed(await response.text()) : [];
}

/** @typedef {{name: string, labels: Record<string, string>, value: number}} Sample */

/** @param {string} text in Prometheus' format @returns {Sample[]} ours */
export function parsed(text) {
  const samples = [];
  for (const [, name, labels, value] of text.matchAll(/^efficientsam3_(\w+)(?:\{(.*)\})? (\S+)$/gm)) {
    const pairs = [...(labels ?? "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map(([, key, told]) => [key, told]);
    samples.push({ name, labels: Object.fromEntries(pairs), value: Number(value) });
  }
  return samples;
}

/** @param {any} ready @param {Sample[]} told @returns {[string, string][]} */
function facts(ready, told) {
  if (!ready) return [["service", "out of reach"]];
  const pools = Object.entries(ready.variants);
  const [workers, up] = [sum(pools, "workers"), sum(pools, "workers_ready")];
  const cached = hitRate(told);
  return [
    ["service", ready.status],
    [pools.length === 1 ? "variant" : "variants", pools.length === 1 ? pools[0][0] : String(pools.length)],
    ["workers ready", `${up} of ${workers}`],
    ["waiting or running", told.length ? String(total(told, "inflight_requests")) : "not told"],
    ["pictures found in the cache", cached === null ? "none asked yet" : `${Math.round(100 * cached)} %`],
    ["sessions outlive a worker", ready.session_store === "ready" ? "yes" : "no"],
  ];
}

/** Of the answered requests, the share whose picture no encoder had to look at; null before the first. */
function hitRate(/** @type {Sample[]} */ told) {
  const counts = told.filter(({ name }) => name === "stage_seconds_count");
  const of = (/** @type {string} */ stage) =>
    counts.filter(({ labels }) => labels.stage === stage).reduce((all, { value }) => all + value, 0);
  return of("total") ? Math.max(0, 1 - of("image_encoder") / of("total")) : null;
}

/** @param {[string, any][]} pools @param {string} field */
function sum(pools, field) {
  return pools.reduce((all, [, pool]) => all + pool[field], 0);
}

/** @param {Sample[]} told @param {string} wanted */
function total(told, wanted) {
  return told.filter(({ name }) => name === wanted).reduce((all, { value }) => all + value, 0);
}

/** @param {string} name @param {string} value */
function fact(name, value) {
  return make("span", { class: "fact" }, make("span", {}, name), " ", make("b", {}, value));
}
