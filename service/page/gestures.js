// What pointers and keys do on a view: a click is a point, a drag a box, two fingers zoom, arrows move a crosshair.

// A pointer that moved less, in screen pixels, has clicked.
const CLICK = 4;
const STEP_ZOOM = 1.25;

/** @param {import("./view.js").View} view */
export function gestures(view) {
  pointers(view);
  keys(view);
  view.canvas.addEventListener(
    "wheel",
    (event) => {
      if (!view.shows) return;
      event.preventDefault();
      const size = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 : 1;
      view.zoom(Math.exp((-event.deltaY * size) / 400), event.offsetX, event.offsetY);
    },
    { passive: false },
  );
}

/** @param {import("./view.js").View} view */
function pointers(view) {
  const { canvas } = view;
  /** @type {Map<number, {x: number, y: number}>} the pointers that are down, where they are on the canvas */
  const down = new Map();
  // What the first of them does.
  let drag = null;

  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("pointerdown", (event) => {
    if (!view.shows) return;
    canvas.setPointerCapture(event.pointerId);
    down.set(event.pointerId, { x: event.offsetX, y: event.offsetY });
    view.draft = view.crosshair = null;
    if (down.size > 1) drag = { moves: true };
    else drag = begun(view, event);
  });
  canvas.addEventListener("pointermove", (event) => {
    const before = down.get(event.pointerId);
    const here = { x: event.offsetX, y: event.offsetY };
    if (!before) return hover(view, event.pointerType === "mouse" ? here : null);
    const other = [...down].find(([id]) => id !== event.pointerId)?.[1];
    down.set(event.pointerId, here);
    if (other) {
      const far = (place) => Math.hypot(place.x - other.x, place.y - other.y);
      const middle = { x: (here.x + other.x) / 2, y: (here.y + other.y) / 2 };
      view.move((here.x - before.x) / 2, (here.y - before.y) / 2);
      view.zoom(far(here) / Math.max(1, far(before)), middle.x, middle.y);
    } else if (drag?.moves) {
      view.move(here.x - before.x, here.y - before.y);
    } else if (drag) {
      drag.wide ||= Math.hypot(here.x - drag.place.x, here.y - drag.place.y) >= CLICK;
      view.draft = drag.wide ? boxOf(view, drag.start, view.at(here.x, here.y)) : null;
      view.draw();
    }
  });
  const up = (event, given) => {
    if (!down.delete(event.pointerId) || down.size) return;
    const done = drag;
    drag = view.draft = null;
    if (given && done && !done.moves) finished(view, done, view.at(event.offsetX, event.offsetY));
    view.draw();
  };
  canvas.addEventListener("pointerup", (event) => up(event, true));
  canvas.addEventListener("pointercancel", (event) => up(event, false));
  canvas.addEventListener("pointerleave", () => hover(view, null));
}

function begun(view, event) {
  const place = { x: event.offsetX, y: event.offsetY };
  const start = view.at(place.x, place.y);
  if (event.button === 1 || view.tool === "move" || !view.inside(start)) return { moves: true };
  const opposite = event.button === 2 || event.shiftKey;
  return { moves: false, place, start, wide: false, positive: view.positive !== opposite };
}

function finished(view, { start, wide, positive }, end) {
  if (!wide) return view.tell("point", { ...start, positive });
  const box = boxOf(view, start, end);
  if (box[2] > box[0] && box[3] > box[1]) view.tell("box", { box, positive });
}

/** Between two positions, within the picture. */
function boxOf(view, one, other) {
  const [x0, x1] = [one.x, other.x].map((x) => Math.min(view.width, Math.max(0, x))).sort((a, b) => a - b);
  const [y0, y1] = [one.y, other.y].map((y) => Math.min(view.height, Math.max(0, y))).sort((a, b) => a - b);
  return [x0, y0, x1, y1];
}

function hover(view, place) {
  const position = place && view.at(place.x, place.y);
  view.hover(position && view.inside(position) ? view.over(position) : null, position);
}

/** @param {import("./view.js").View} view */
function keys(view) {
  const { canvas } = view;
  // The first corner of a box that the keyboard draws.
  let corner = null;
  const steer = (event) => {
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const arrow = arrows[event.key];
    if (!arrow) return false;
    // Some ten screen pixels, or two.
    const step = Math.max(1, Math.round((event.shiftKey ? 2 : 10) / view.scale));
    const { x, y } = view.crosshair;
    view.crosshair = {
      x: Math.min(view.width - 0.5, Math.max(0.5, x + arrow[0] * step)),
      y: Math.min(view.height - 0.5, Math.max(0.5, y + arrow[1] * step)),
    };
    view.draft = corner && boxOf(view, corner, view.crosshair);
    view.hover(view.over(view.crosshair), view.crosshair);
    return true;
  };
  const press = (event) => {
    if (event.key !== "Enter" && event.key !== " ") return false;
    const positive = view.positive !== event.shiftKey;
    const drawn = corner && boxOf(view, corner, view.crosshair);
    corner = view.draft = null;
    if (!drawn) view.tell("point", { ...view.crosshair, positive });
    else if (drawn[2] > drawn[0] && drawn[3] > drawn[1]) view.tell("box", { box: drawn, positive });
    return true;
  };
  const others = {
    b: () => (corner = { ...view.crosshair }),
    Escape: () => (corner = view.draft = null),
    "+": () => view.zoom(STEP_ZOOM),
    "=": () => view.zoom(STEP_ZOOM),
    "-": () => view.zoom(1 / STEP_ZOOM),
    0: () => view.fit(),
  };
  canvas.addEventListener("keydown", (event) => {
    if (!view.shows || event.ctrlKey || event.metaKey || event.altKey) return;
    view.crosshair ??= { x: Math.floor(view.width / 2) + 0.5, y: Math.floor(view.height / 2) + 0.5 };
    const other = others[event.key];
    if (!steer(event) && !press(event)) {
      if (!other) return;
      other();
    }
    event.preventDefault();
    view.draw();
  });
  for (const name of ["focus", "blur"]) {
    canvas.addEventListener(name, () => {
      corner = view.draft = null;
      // A pointer that clicks focuses as well: the crosshair is for keys alone.
      if (canvas.matches(":focus-visible") && view.shows) {
        view.crosshair ??= { x: Math.floor(view.width / 2) + 0.5, y: Math.floor(view.height / 2) + 0.5 };
      }
      view.draw();
    });
  }
}
