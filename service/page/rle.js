// Masks: COCO's compressed run-length encoding, decoded to runs, and to an outline for drawing at any scale.

/** A mask over a picture. Pixels are counted down the columns, first the left one. */
export class Mask {
  /** @type {Path2D | undefined} */
  #path;

  /**
   * @param {number} height pixels
   * @param {number} width pixels
   * @param {Uint32Array} ends where each run ends, exclusive; background and foreground take turns
   */
  constructor(height, width, ends) {
    this.height = height;
    this.width = width;
    this.ends = ends;
  }

  /** Whether the pixel at (x, y) is foreground; fractions are those of a position in the pixel. */
  has(x, y) {
    if (x < 0 || y < 0 || x >= this.width || y >= this.height) return false;
    const place = Math.floor(x) * this.height + Math.floor(y);
    let [low, high] = [0, this.ends.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.ends[middle] > place) high = middle;
      else low = middle + 1;
    }
    return low % 2 === 1;
  }

  /** Foreground pixels. */
  get area() {
    let sum = 0;
    for (let run = 1; run < this.ends.length; run += 2) sum += this.ends[run] - this.ends[run - 1];
    return sum;
  }

  /** Its outline along the pixels' edges, in pixels of the picture; made once. */
  get path() {
    this.#path ??= outlined(this);
    return this.#path;
  }
}

/**
 * The mask of an answer.
 * @param {{size: [number, number], counts: string}} rle size is [height, width]
 * @returns {Mask}
 */
export function decode({ size: [height, width], counts }) {
  const runs = [];
  for (let place = 0; place < counts.length; ) {
    let [value, shift, more] = [0, 0, true];
    while (more) {
      // Five bits of the value, least first; the sixth says that there are more.
      const bits = counts.charCodeAt(place++) - 48;
      value |= (bits & 31) << shift;
      more = (bits & 32) !== 0;
      shift += 5;
      // The last five bits of a negative value begin with a one.
      if (!more && bits & 16 && shift < 32) value |= -1 << shift;
    }
    // From the fourth run on it is told by how much it differs from the one before the last.
    runs.push(runs.length > 2 ? value + runs[runs.length - 2] : value);
  }
  const ends = new Uint32Array(runs.length);
  let sum = 0;
  runs.forEach((run, index) => (ends[index] = sum += run));
  return new Mask(height, width, ends);
}

/** The foreground of each column, as [top, bottom, top, bottom, ...]; bottoms are exclusive. */
function columns({ height, width, ends }) {
  /** @type {number[][]} */
  const found = Array.from({ length: width }, () => []);
  for (let run = 1; run < ends.length; run += 2) {
    let start = ends[run - 1];
    while (start < ends[run]) {
      const column = Math.floor(start / height);
      const end = Math.min(ends[run], (column + 1) * height);
      found[column].push(start - column * height, end - column * height);
      start = end;
    }
  }
  return found;
}

/**
 * The directed edges around the foreground: for each corner, the corners that an edge leads to.
 * The foreground lies on the same side of all of them.
 */
function edges(mask) {
  const stride = mask.height + 1;
  /** @type {Map<number, number[]>} */
  const next = new Map();
  const lead = (x0, y0, x1, y1) => {
    const from = x0 * stride + y0;
    const known = next.get(from);
    if (known) known.push(x1 * stride + y1);
    else next.set(from, [x1 * stride + y1]);
  };
  const shown = columns(mask);
  for (let x = 0; x <= mask.width; x++) {
    const [before, here] = [shown[x - 1] ?? [], shown[x] ?? []];
    for (let run = 0; run < here.length; run += 2) {
      lead(x, here[run], x + 1, here[run]);
      lead(x + 1, here[run + 1], x, here[run + 1]);
    }
    // Where only one of two neighbouring columns has foreground there is an edge between them.
    const cuts = [...new Set([...before, ...here])].sort((one, other) => one - other);
    for (let cut = 0; cut + 1 < cuts.length; cut++) {
      const [top, bottom] = [cuts[cut], cuts[cut + 1]];
      const [left, right] = [covers(before, top), covers(here, top)];
      if (left && !right) lead(x, top, x, bottom);
      if (right && !left) lead(x, bottom, x, top);
    }
  }
  return { next, stride };
}

function covers(runs, y) {
  for (let run = 0; run < runs.length; run += 2) if (runs[run] <= y && y < runs[run + 1]) return true;
  return false;
}

/** @param {Mask} mask */
function outlined(mask) {
  const path = new Path2D();
  const { next, stride } = edges(mask);
  for (const [start, leads] of next) {
    while (leads.length) {
      path.moveTo(Math.floor(start / stride), start % stride);
      let corner = leads.pop();
      while (corner !== start) {
        path.lineTo(Math.floor(corner / stride), corner % stride);
        corner = next.get(corner).pop();
      }
      path.closePath();
    }
  }
  return path;
}
