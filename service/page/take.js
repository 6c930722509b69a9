// What one takes along, and the request as it is copied.

import { key } from "./api.js";
import { coco, copy, curl, download, png, python } from "./export.js";

const element = (name) => document.getElementById(`image-${name}`);
const NOTHING = "Ask for something, and its request stands here.";
const LANGUAGES = { curl: { name: "curl", write: curl }, python: { name: "Python", write: python } };

/**
 * What is shown now.
 * @typedef {{bitmap: ImageBitmap, picture: import("./answers.js").Picture, request: any,
 *   segments: import("./answers.js").Segment[], shown: import("./paint.js").Shown[],
 *   marks: import("./paint.js").Mark[]}} Taken
 */

/** @returns {(taken: Taken | null) => void} is told what is shown now; null: nothing was asked */
export function startTake() {
  /** @type {Taken | null} */
  let taken = null;
  const language = () => LANGUAGES[document.querySelector("[name=image-code]:checked").value];
  const show = () => {
    const { name, write } = language();
    const { picture, request } = taken ?? {};
    element("code").textContent = taken ? write(request, picture.name, Boolean(key.get())) : NOTHING;
    element("copy").textContent = `Copy as ${name}`;
    for (const each of ["coco", "png", "copy"]) element(each).disabled = !taken;
  };
  const told = async (text, what) => {
    const why = await copy(text);
    if (why) window.getSelection()?.selectAllChildren(element("code"));
    element("copied").textContent = why || `${what} is on the clipboard.`;
  };
  element("coco").addEventListener("click", () => {
    told(JSON.stringify(coco(taken.picture, taken.segments)), "The answer as COCO JSON");
  });
  element("copy").addEventListener("click", () => told(element("code").textContent, "The request"));
  element("png").addEventListener("click", async () => {
    const { bitmap, picture, shown, marks } = taken;
    const file = await png(bitmap, picture.width, picture.height, shown, marks);
    download(file, `${picture.name.replace(/\.\w+$/, "")}-masks.png`);
  });
  for (const each of document.querySelectorAll("[name=image-code]")) each.addEventListener("change", show);
  return (now) => {
    taken = now;
    element("copied").textContent = "";
    show();
  };
}
