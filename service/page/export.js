// What one takes along: the answer as COCO's JSON or as a picture, the request as curl or Python.

import { ROOT } from "./api.js";
import { paintMarks, paintSegments } from "./paint.js";

/**
 * @param {{name: string, width: number, height: number}} picture
 * @param {import("./answers.js").Segment[]} segments whose `label` is their category
 */
export function coco(picture, segments) {
  const names = [...new Set(segments.map(({ label }) => label))];
  return {
    images: [{ id: 1, file_name: picture.name, width: picture.width, height: picture.height }],
    categories: names.map((name, index) => ({ id: index + 1, name })),
    annotations: segments.map(({ label, score, area, box: [x0, y0, x1, y1], rle }, index) => ({
      id: index + 1,
      image_id: 1,
      category_id: names.indexOf(label) + 1,
      segmentation: { size: rle.size, counts: rle.counts },
      area,
      bbox: [x0, y0, x1 - x0, y1 - y0],
      iscrowd: 0,
      score,
    })),
  };
}

/** The picture at its own size with what was found drawn on it. @returns {Promise<Blob>} a PNG */
export async function png(picture, width, height, segments, marks) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d");
  context.drawImage(picture, 0, 0, width, height);
  // Lines as thick as on a screen that shows the whole picture.
  const scale = Math.min(1, 1000 / Math.max(width, height));
  paintSegments(context, segments, scale);
  paintMarks(context, marks, scale);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

/** The request as a command. @param {any} request @param {string} name of the picture's file @param {boolean} keyed */
export function curl(request, name, keyed) {
  const key = keyed ? '  -H "Authorization: Bearer $EFFICIENTSAM3_KEY" \\\n' : "";
  const image = new URL("v1/images", ROOT).href;
  return [
    "# The picture was sent once and is kept for a while. To send it again:",
    `# curl ${keyed ? '-H "Authorization: Bearer $EFFICIENTSAM3_KEY" ' : ""}-F ${quoted(`image=@${part(name)}`)} ${image}`,
    `curl ${new URL("v1/segment", ROOT).href} \\`,
    `${key}  -H 'Content-Type: application/json' \\`,
    `  -d ${quoted(JSON.stringify(request))}`,
  ].join("\n");
}

/** A file's name as curl reads it in a form's part, where a semicolon or a comma would end it. */
function part(name) {
  // A name may hold line breaks, and a comment ends at the first: what follows would be a command.
  const line = name.replace(/\p{Cc}/gu, "?");
  return /^[\w.-]+$/.test(line) ? line : `"${line.replace(/["\\]/g, "\\$&")}"`;
}

function quoted(text) {
  return /^[\w.=@-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

/** The request by the service's own client. @param {any} request @param {string} name @param {boolean} keyed */
export function python(request, name, keyed) {
  const { image, prompts, variant, options } = request;
  const client = keyed ? `${literal(ROOT.href)}, key=os.environ["EFFICIENTSAM3_KEY"]` : literal(ROOT.href);
  return [
    ...(keyed ? ["import os", ""] : []),
    "from service.client import Client",
    "",
    "# The picture was sent once and is kept for a while. A picture's bytes may stand in the place of its id:",
    `# pathlib.Path(${literal(name)}).read_bytes()`,
    `with Client(${client}) as client:`,
    "    answer = client.segment(",
    `        ${literal(image.id)},`,
    "        [",
    ...prompts.map((prompt) => `            ${literal(prompt)},`),
    "        ],",
    `        variant=${literal(variant)},`,
    ...Object.entries(options).map(([name, value]) => `        ${name}=${literal(value)},`),
    "    )",
    "for index, found in enumerate(answer.results):",
    "    for segment in found:",
    "        print(index, segment.label, round(segment.score, 2), segment.box_xyxy)",
  ].join("\n");
}

/** A value of JSON in Python. */
function literal(value) {
  if (value === true) return "True";
  if (value === false) return "False";
  if (value === null) return "None";
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  if (typeof value === "object") {
    return `{${Object.entries(value).map(([name, each]) => `${literal(name)}: ${literal(each)}`).join(", ")}}`;
  }
  return JSON.stringify(value);
}

/** Have the browser save a file. @param {Blob} blob @param {string} name */
export function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/**
 * Put a text on the clipboard.
 * @param {string} text
 * @returns {Promise<string>} why that was not possible, in words; empty: it is there
 */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return "";
  } catch {
    return window.isSecureContext
      ? "The browser did not allow this page to use the clipboard."
      : "Browsers give the clipboard to https and to localhost alone.";
  }
}
