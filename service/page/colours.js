// @ts-check
/** The colours of prompts and what they find: told apart on pictures of any kind, also by most colour-blind eyes. */

const PALETTE = [
  "#3b82f6", "#f59e0b", "#10b981", "#ec4899", "#8b5cf6",
  "#22d3ee", "#f97316", "#84cc16", "#e11d48", "#a78bfa",
];

/** @param {number} index @returns {string} as CSS has it */
export function colourOf(index) {
  return PALETTE[index % PALETTE.length];
}

/** The first that none of `taken` has; when all are taken, they are given again. @param {string[]} taken */
export function freeColour(taken) {
  return PALETTE.find((colour) => !taken.includes(colour)) ?? colourOf(taken.length);
}
