// Making elements. Text goes in as text: ids, classes and notes come from outside.

/**
 * @param {string} tag
 * @param {Object<string, any>} [attributes] `text` is the content, `class` and `on...` as usual
 * @param {(Node|string)[]} [children]
 * @returns {HTMLElement}
 */
export function make(tag, attributes = {}, children = []) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") element.textContent = String(value);
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false && value !== undefined) element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children);
  return element;
}

/** @param {string} id @returns {HTMLElement} */
export function the(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found;
}

/** @param {HTMLElement} element @param {string} text  touches the page only when the text is another */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** @param {string} fill @param {string} edge @param {string} shape @returns {HTMLElement} a swatch; style attributes are barred by the page's policy, properties are not */
export function swatch(fill, edge, shape = "") {
  const element = make("span", { class: `swatch ${shape}`, "aria-hidden": "true" });
  element.style.backgroundColor = fill;
  element.style.borderColor = edge;
  return element;
}

/** @param {number} share 0 to 1 @returns {string} */
export function p(share) {
  return share >= 0.995 ? "1.0" : share.toFixed(2).replace(/^0/, "");
}

/** @param {number} seconds @returns {string} */
export function duration(seconds) {
  if (Number.isNaN(seconds)) return "–";
  if (seconds < 99.5) return `${Math.round(seconds)} s`;
  if (seconds < 5970) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

/** @param {number} value @param {number} [digits] @returns {string} */
export function number(value, digits = 0) {
  return Number.isNaN(value) ? "–" : value.toLocaleString("en", { maximumFractionDigits: digits, minimumFractionDigits: digits });
}
