// How masks, clicks and boxes look. The context counts in pixels of the picture; `scale` is how many pixels of
// the screen (or of a file) one of them has, so that lines are as thick at any zoom.

/** A colour per prompt or object, by its place; told apart on light and on dark pictures. */
const COLOURS = [
  "#2f7df6", "#f0622b", "#12a46b", "#c43fd1", "#e0a100",
  "#00a3b8", "#e23d6d", "#7a5af0", "#6a9a1f", "#b0612e",
];

/** @param {number} place from 0 */
export const colourOf = (place) => COLOURS[place % COLOURS.length];

/**
 * What was found, as it is shown.
 * @typedef {{mask: import("./rle.js").Mask | null, box: number[] | null, colour: string, label: string,
 *   score: number}} Shown
 *
 * What was asked: a click, or a box.
 * @typedef {{point?: {x: number, y: number}, box?: number[], positive: boolean, colour: string,
 *   faint?: boolean}} Mark
 */

/**
 * @param {CanvasRenderingContext2D} context
 * @param {Shown[]} segments the first lies on top
 * @param {number} scale
 * @param {Shown | null} [hovered] stands out
 */
export function paintSegments(context, segments, scale, hovered = null) {
  context.save();
  context.lineJoin = "round";
  for (const segment of [...segments].reverse()) {
    if (!segment.mask) continue;
    const { path } = segment.mask;
    context.globalAlpha = segment === hovered ? 0.66 : hovered ? 0.28 : 0.45;
    context.fillStyle = segment.colour;
    context.fill(path);
    context.globalAlpha = hovered && segment !== hovered ? 0.5 : 1;
    context.strokeStyle = "#fff";
    context.lineWidth = 3.5 / scale;
    context.stroke(path);
    context.strokeStyle = segment.colour;
    context.lineWidth = 1.75 / scale;
    context.stroke(path);
  }
  context.restore();
}

/** @param {CanvasRenderingContext2D} context @param {Mark[]} marks @param {number} scale */
export function paintMarks(context, marks, scale) {
  context.save();
  for (const mark of marks) {
    context.globalAlpha = mark.faint ? 0.6 : 1;
    if (mark.box) paintBox(context, mark, scale);
    if (mark.point) paintPoint(context, mark, scale);
  }
  context.restore();
}

function paintBox(context, { box: [x0, y0, x1, y1], positive, colour }, scale) {
  for (const [style, width] of [["#fff", 3.5], [colour, 1.75]]) {
    context.setLineDash(style === "#fff" ? [] : [6 / scale, 4 / scale]);
    context.strokeStyle = style;
    context.lineWidth = width / scale;
    context.strokeRect(x0, y0, x1 - x0, y1 - y0);
  }
  context.setLineDash([]);
  if (!positive) paintPoint(context, { point: { x: x0, y: y0 }, positive, colour }, scale);
}

function paintPoint(context, { point: { x, y }, positive, colour }, scale) {
  const radius = 8 / scale;
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fillStyle = positive ? colour : "#fff";
  context.fill();
  context.lineWidth = 2 / scale;
  context.strokeStyle = positive ? "#fff" : "#b3122c";
  context.stroke();
  context.beginPath();
  context.moveTo(x - radius / 2, y);
  context.lineTo(x + radius / 2, y);
  if (positive) {
    context.moveTo(x, y - radius / 2);
    context.lineTo(x, y + radius / 2);
  }
  context.stroke();
}

/** Where the keyboard points. */
export function paintCrosshair(context, { x, y }, scale) {
  const [near, far] = [5 / scale, 14 / scale];
  for (const [style, width] of [["#fff", 4], ["#111", 2]]) {
    context.strokeStyle = style;
    context.lineWidth = width / scale;
    context.beginPath();
    for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
      context.moveTo(x + dx * near, y + dy * near);
      context.lineTo(x + dx * far, y + dy * far);
    }
    context.stroke();
  }
}
