// Where a session stands and what tracking takes, as they are shown beside a video.

import { part } from "./list.js";

const element = (name) => document.getElementById(`video-${name}`);
const STANDINGS = { open: "open", connecting: "connecting…", waiting: "broken, trying again…", closed: "closed" };

/** @param {import("./session.js").Session | null} session @param {import("./session.js").Answer | null} answer */
export function showSession(session, answer) {
  element("hang-up").disabled = !session;
  if (!session) return show(element("facts"), [["Id", "opened with the first prompt"]]);
  const { id, standing, connections, resent, nextFrame, inFlight } = session;
  const again = resent ? `, ${resent} ${resent === 1 ? "frame" : "frames"} sent again` : "";
  show(element("facts"), [
    ["Id", id],
    ["Connection", `${STANDINGS[standing]}, the ${ordinal(connections)}${again}`],
    ["Next frame", `${nextFrame + 1}`],
    ["In flight", `${inFlight}`],
    ["Memory", answer ? `${Math.round(answer.memory_bytes / 1024)} KiB` : "none"],
  ]);
  const shown = /** @type {HTMLElement} */ (element("facts").querySelector("dd"));
  [shown.className, shown.title] = ["id", id];
}

/** @param {import("./measure.js").Measure} measure */
export function showMeasure(measure) {
  const { framesPerSecond: rate, totalMs, stages } = measure;
  element("rate").textContent = rate ? `${rate.toFixed(rate < 10 ? 1 : 0)} frames/s, ${Math.round(totalMs)} ms each` : "";
  const rows = stages.filter(({ ms }) => ms >= 0.05);
  show(
    element("stages"),
    rows.map(({ stage, ms }) => [stage.replaceAll("_", " "), `${ms.toFixed(ms < 10 ? 1 : 0)} ms`]),
  );
  const longest = Math.max(...rows.map(({ ms }) => ms));
  [...element("stages").children].forEach((row, place) => {
    row.style.setProperty("--share", `${(100 * rows[place].ms) / longest}%`);
  });
  element("stages-none").hidden = rows.length > 0;
}

/** What came of coming back. @param {{state: import("./session.js").State, same: boolean | null}} back */
export function inWordsBack({ state, same }) {
  const until = new Date(state.expires_at).toLocaleTimeString();
  const told = `Back by its id alone: frame ${state.next_frame + 1} comes next, and it is kept until ${until}`;
  if (same === null) return `${told}. What had no answer was sent again.`;
  return same
    ? `${told}. Its last answer came again, the same to the bit.`
    : `${told}. But its last answer was another one when it was asked for again.`;
}

/** Rows of a list of names and values, which stay while there are as many. @param {HTMLElement} list */
function show(list, facts) {
  while (list.children.length > facts.length) list.lastElementChild?.remove();
  while (list.children.length < facts.length) {
    const row = document.createElement("div");
    row.append(part("dt", ""), part("dd", ""));
    list.append(row);
  }
  facts.forEach(([name, value], place) => {
    const [term, told] = list.children[place].children;
    if (term.textContent !== name) term.textContent = name;
    if (told.textContent !== value) told.textContent = value;
  });
}

/** @param {number} count */
function ordinal(count) {
  const ends = { one: "st", two: "nd", few: "rd", other: "th" };
  return `${count}${ends[new Intl.PluralRules("en", { type: "ordinal" }).select(count)]}`;
}
