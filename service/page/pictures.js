// Where pictures come from: the samples, a file, the clipboard, something dropped, the camera.

import { openCamera, whyNoCamera } from "./camera.js";
import { startDropping } from "./dropping.js";
import { SAMPLES, sampleUrl } from "./samples.js";

const element = (name) => document.getElementById(`image-${name}`);
const mode = document.getElementById("image");

/**
 * @param {(file: Blob, name: string, texts?: string[]) => void} open is given a picture, and texts to try on it
 * @param {(text: string) => void} failed is told in words why there is none
 * @returns {() => void} opens the first sample
 */
export function startPictures(open, failed) {
  const openSample = async ({ file, texts }) => {
    const response = await fetch(sampleUrl(file)).catch(() => null);
    if (response?.ok) open(await response.blob(), file, texts);
    else failed(`The sample ${file} could not be loaded.`);
  };
  element("samples").replaceChildren(...SAMPLES.map((sample) => sampleButton(sample, openSample)));
  element("open").addEventListener("click", () => element("file").click());
  element("file").addEventListener("change", ({ target }) => {
    const [file] = target.files;
    if (file) open(file, file.name);
    target.value = "";
  });
  element("camera").disabled = Boolean(whyNoCamera());
  element("camera").title = whyNoCamera();
  element("camera").addEventListener("click", () => openCamera((file) => open(file, "camera.jpg")));
  document.addEventListener("paste", (event) => {
    const [file] = event.clipboardData?.files ?? [];
    if (file && !mode.hidden) open(file, file.name || "pasted.png");
  });
  startDropping(mode, element("drop"), (file) => open(file, file.name));
  return () => openSample(SAMPLES[0]);
}

/** Mark the sample that is shown, if one is. @param {string} name */
export function markSample(name) {
  for (const button of element("samples").children) {
    button.setAttribute("aria-pressed", String(button.dataset.file === name));
  }
}

function sampleButton(sample, openSample) {
  const button = document.createElement("button");
  button.type = "button";
  button.dataset.file = sample.file;
  const picture = new Image(64, 64);
  picture.src = sampleUrl(sample.file);
  picture.alt = sample.name;
  button.append(picture);
  button.addEventListener("click", () => openSample(sample));
  return button;
}
