// Where videos come from: the samples, a file, something dropped, the camera.

import { Problem } from "./api.js";
import { startDropping } from "./dropping.js";
import { openCamera, openClip } from "./frames.js";
import { sampleUrl } from "./samples.js";

const element = (name) => document.getElementById(`video-${name}`);
const mode = document.getElementById("video");

/** The embedded student's sample clips, and what is in them. */
const CLIPS = [
  { file: "birds-and-bears.mp4", name: "Bears and a horse", texts: ["polar bear", "horse", "animal"] },
  { file: "traffic-lights.mp4", name: "Traffic lights", texts: ["traffic light", "flamingo"] },
];

/**
 * A video that is to be opened: what it is called, texts to try on it, and how it is opened.
 * @typedef {{name: string, texts: string[], open: () => Promise<import("./tracker.js").Source>}} Footage
 */

/**
 * @param {(footage: Footage) => void} choose
 * @returns {() => void} chooses the first sample
 */
export function startFootage(choose) {
  const sample = ({ file, texts }) => choose({ name: file, texts, open: () => openSample(file) });
  const own = (file) => file && choose({ name: file.name, texts: [], open: () => openClip(file, file.name) });
  element("samples").replaceChildren(...CLIPS.map((clip) => sampleButton(clip, () => sample(clip))));
  element("open").addEventListener("click", () => element("file").click());
  element("file").addEventListener("change", ({ target }) => {
    own(target.files[0]);
    target.value = "";
  });
  element("camera").addEventListener("click", () => choose({ name: "camera", texts: [], open: openCamera }));
  startDropping(mode, element("drop"), own);
  return () => sample(CLIPS[0]);
}

/** Mark what is shown, where it is a sample. @param {string} name */
export function markFootage(name) {
  for (const button of element("samples").children) {
    button.setAttribute("aria-pressed", String(button.dataset.file === name));
  }
}

async function openSample(file) {
  const response = await fetch(sampleUrl(file)).catch(() => null);
  if (!response?.ok) throw new Problem("unreachable", `The sample ${file} could not be loaded.`);
  return openClip(await response.blob(), file);
}

function sampleButton({ file, name }, press) {
  const button = document.createElement("button");
  button.type = "button";
  button.dataset.file = file;
  const thumb = document.createElement("video");
  [thumb.muted, thumb.playsInline, thumb.preload, thumb.ariaHidden] = [true, true, "metadata", "true"];
  thumb.tabIndex = -1;
  thumb.src = `${sampleUrl(file)}#t=0.5`;
  button.append(thumb, name);
  button.addEventListener("click", press);
  return button;
}
