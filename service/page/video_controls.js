// Video mode's controls: tools, what runs, the frame that is looked at, and their keys.

const element = (name) => document.getElementById(`video-${name}`);
const choice = (name) => /** @type {HTMLInputElement} */ (document.querySelector(`[name=video-${name}]:checked`)).value;
const radio = (name, value) => document.querySelector(`[name=video-${name}][value="${value}"]`);

/**
 * What a person asks for.
 * @typedef {Record<"run" | "step" | "back" | "undo" | "redo" | "another" | "remove" | "anew" | "hangUp", () => void> &
 *   {look: (index: number) => void, follow: (text: string) => void}} Asked
 */

export class VideoControls {
  #view;
  /** @type {Asked} */
  #asked;

  /** @param {import("./view.js").View} view @param {Asked} asked */
  constructor(view, asked) {
    [this.#view, this.#asked] = [view, asked];
    for (const each of document.querySelectorAll("[name=video-tool], [name=video-sign]")) {
      each.addEventListener("change", () => this.#hold());
    }
    const press = (name, action) => element(name).addEventListener("click", action);
    press("run", () => asked.run());
    press("step", () => asked.step());
    press("undo", () => asked.undo());
    press("redo", () => asked.redo());
    press("new", () => asked.another());
    press("anew", () => asked.anew());
    press("hang-up", () => asked.hangUp());
    press("in", () => view.zoom(1.25));
    press("out", () => view.zoom(0.8));
    press("fit", () => view.fit());
    element("cursor").addEventListener("input", ({ target }) => asked.look(Number(target.value)));
    element("concept").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#follow();
    });
    // Back to the frame, and its keys.
    element("text").addEventListener("keydown", ({ key }) => key === "Escape" && element("canvas").focus());
    this.#hold();
  }

  /** Texts can be typed, unless there is a reason. @param {string} why */
  able(why) {
    for (const name of ["text", "follow-button"]) element(name).disabled = Boolean(why);
  }

  /** Say what is waited for; empty: nothing is. @param {string} words */
  busy(words) {
    element("busy").textContent = words;
    element("busy").hidden = !words;
  }

  /**
   * Enable what can be done now.
   * @param {import("./tracker.js").Tracker | null} tracker @param {import("./aim.js").Aim | null} aim
   * @param {boolean} opens whether a video is being opened
   */
  show(tracker, aim, opens) {
    const { isRunning = false, isBusy = false, session = null, isDone = false, isGone = false } = tracker ?? {};
    const idle = Boolean(session) && !isRunning && !isDone && !isGone;
    element("run").textContent = isRunning ? "Pause" : "Track";
    element("run").disabled = !isRunning && !idle;
    element("step").disabled = !idle;
    element("undo").disabled = !tracker?.canUndo;
    element("redo").disabled = !tracker?.canRedo;
    element("new").disabled = !aim?.target;
    element("anew").disabled = !session && !isGone;
    element("objects").ariaBusy = String(isBusy || isRunning || opens);
    this.#showPlace(tracker);
    const waits = session?.trouble ? `${session.trouble.message} Trying again…` : isBusy ? "Asking…" : "";
    this.busy(opens ? "Opening the video…" : waits);
    element("how").textContent = how(tracker, aim, this.#view.tool);
    const took = tracker?.answer?.timings_ms.total;
    element("took").textContent = took === undefined ? "" : `This frame took ${Math.round(took)} ms`;
  }

  /** @param {import("./tracker.js").Tracker | null} tracker */
  #showPlace(tracker) {
    const cursor = /** @type {HTMLInputElement} */ (element("cursor"));
    const { source, frame, answers = [], isRunning = false } = tracker ?? {};
    const live = Boolean(source?.isLive);
    cursor.parentElement?.classList.toggle("idle", live);
    cursor.disabled = live || isRunning || answers.length < 2;
    // As long as the video is, so that it shows how far that is tracked.
    cursor.max = String(live || !source ? 0 : Math.max(0, source.count - 1));
    cursor.value = String(frame?.index ?? 0);
    cursor.ariaValueText = frame ? `Frame ${frame.index + 1}` : "";
    const tracked = live ? 0 : (100 * answers.length) / (source?.count || 1);
    cursor.style.setProperty("--tracked", `${tracked}%`);
    const number = frame ? `Frame ${frame.index + 1}` : "";
    const seen = live ? (answers.length ? `${number} · Live` : "Live") : `${number} of ${source?.count}`;
    // A camera that shows nothing yet is not live: clicks would be of nothing.
    element("place").textContent = number && seen;
  }

  /** Whether the key meant something. @param {KeyboardEvent} event */
  key(event) {
    if (event.altKey) return false;
    const asked = this.#asked;
    const name = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const action =
      event.ctrlKey || event.metaKey
        ? { z: () => (event.shiftKey ? asked.redo() : asked.undo()), y: asked.redo }[name]
        : {
            "/": () => element("text").focus(),
            k: () => element("run").click(),
            ".": () => element("step").click(),
            ",": asked.back,
            o: () => this.#choose("tool", "object"),
            m: () => this.#choose("tool", "move"),
            x: () => this.#choose("sign", choice("sign") === "+" ? "-" : "+"),
            n: asked.another,
            Delete: asked.remove,
            Backspace: asked.remove,
          }[name];
    action?.();
    return Boolean(action);
  }

  #choose(name, value) {
    radio(name, value).checked = true;
    this.#hold();
  }

  /** Hold the chosen tool. */
  #hold() {
    this.#view.tool = choice("tool");
    this.#view.positive = choice("sign") === "+";
    element("canvas").dataset.tool = this.#view.tool;
  }

  #follow() {
    const input = /** @type {HTMLInputElement} */ (element("text"));
    const text = input.value.trim();
    element("text-error").textContent = text ? "" : "Type what to follow, such as “bear”.";
    input.value = "";
    if (text) this.#asked.follow(text);
  }
}

/** What can be done now, in words. */
function how(tracker, aim, tool) {
  if (!tracker) return "Choose a video.";
  if (tool === "move") return "Drag to move the frame; the wheel or two fingers zoom.";
  if (tracker.isRunning) return "Click on the frame, or press Pause, to stop and refine.";
  if (tracker.isDone && tracker.isCurrent) return "Every frame is tracked. Look back with the slider, or begin anew.";
  if (!tracker.isCurrent) return "A frame that was tracked before. Prompts are for the last one.";
  if (!tracker.session) return "Show what to follow: type it, click on it, or drag a box around it. Then track.";
  const less = "Shift or the right button takes away";
  if (aim?.isChosen) return `Clicks and a box refine the chosen object; ${less}.`;
  if (aim?.target) return `Clicks refine object ${aim.target}; ${less}. A box shows another object.`;
  return "Click on an object, or drag a box around it, to follow it too.";
}
