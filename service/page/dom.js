// @ts-check
/** Small things that every part of the page does with its elements. */

/**
 * @template {HTMLElement} [T=HTMLElement]
 * @param {string} id
 * @returns {T}
 */
export function byId(id) {
  return /** @type {T} */ (document.getElementById(id));
}

/**
 * A new element.
 * @param {string} tag
 * @param {Record<string, string | boolean | ((event: any) => void)>} [facts] attributes, and listeners such as
 *   `onclick`
 * @param {...(Node | string)} children
 * @returns {HTMLElement}
 */
export function make(tag, facts = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(facts)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/**
 * Say it there, or nothing.
 * @param {HTMLElement} element
 * @param {string} words
 * @param {(() => void) | null} [again] what a button "Try again" does
 */
export function say(element, words, again = null) {
  element.replaceChildren(words);
  if (words && again) element.append(" ", make("button", { type: "button", class: "plain", onclick: again }, "Try again"));
  element.hidden = !words;
}

/** The value of the checked one of radio buttons. @param {string} name */
export function chosen(name) {
  const found = document.querySelector(`input[name="${name}"]:checked`);
  return /** @type {HTMLInputElement} */ (found).value;
}

/** @param {string} name of radio buttons @param {string} value */
export function choose(name, value) {
  const found = document.querySelector(`input[name="${name}"][value="${value}"]`);
  const input = /** @type {HTMLInputElement} */ (found);
  if (!input.disabled) input.click();
}

/** Whether keys that are typed now are text. */
export function isTyping() {
  const { activeElement } = document;
  return Boolean(activeElement?.matches("input:not([type=radio], [type=range]), textarea, select"));
}
