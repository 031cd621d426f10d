// Colours of classes: Tol's "muted", its two darkest made lighter for the dark theme. A test measures how far they lie
// apart, from each other and from the grey of undecided units, for the three colour-vision deficiencies. A class beyond
// the ninth has the colour of the ninth before it and a second mark.

/** @type {Object<string, string[]>} */
export const CLASSES = {
  light: ["#332288", "#CC6677", "#117733", "#88CCEE", "#DDCC77", "#882255", "#44AA99", "#999933", "#AA4499"],
  dark: ["#8F8CFF", "#CC6677", "#117733", "#88CCEE", "#DDCC77", "#A61158", "#44AA99", "#999933", "#AA4499"],
};

/** @type {Object<string, Object<string, string>>} */
export const INKS = {
  light: {
    ground: "#f3f4f6", panel: "#ffffff", ink: "#16191f", faint: "#565d6b", line: "#d5d9e0", grey: "#cccccc", edge: "#6d7380",
    accent: "#0b5cad", error: "#b3261e", warning: "#8a5300", good: "#1b6e3c", hatch: "#c3c8d2",
  },
  dark: {
    ground: "#0e1014", panel: "#171a21", ink: "#e8eaef", faint: "#a0a8b6", line: "#2b303b", grey: "#d8d8d8", edge: "#d8d8d8",
    accent: "#7db7ff", error: "#ff8a80", warning: "#ffc263", good: "#6fd39a", hatch: "#3a414f",
  },
};

/** @returns {"light"|"dark"} */
export function theme() {
  return document.documentElement.dataset.theme === "light" ? "light" : "dark";
}

/** @param {number} k @returns {string} the colour of class k in the theme that is on */
export function colour(k) {
  const colours = CLASSES[theme()];
  return colours[k % colours.length];
}

/** @param {number} k @returns {string} an outline that can be seen on the ground of the theme that is on */
export function edge(k) {
  const n = parseInt(colour(k).slice(1), 16);
  const share = theme() === "light" ? (/** @type {number} */ v) => v * 0.62 : (/** @type {number} */ v) => v + (255 - v) * 0.4;
  return `rgb(${[n >> 16, (n >> 8) & 255, n & 255].map((v) => Math.round(share(v))).join(", ")})`;
}

/** @param {number} k @returns {boolean} whether the class needs a second mark, its colour being another's too */
export function isSecond(k) {
  return k >= CLASSES.light.length;
}

/** @returns {Object<string, string>} the other colours of the theme that is on */
export function inks() {
  return INKS[theme()];
}

/** @param {string} hex @param {number} alpha 0 to 1 @returns {string} */
export function faded(hex, alpha) {
  const n = parseInt(hex.slice(1), 16);
  return `rgba(${n >> 16}, ${(n >> 8) & 255}, ${n & 255}, ${alpha})`;
}

/** @param {string} hex @returns {string} black or white, whichever can be read on it */
export function textOn(hex) {
  const n = parseInt(hex.slice(1), 16);
  const [r, g, b] = [n >> 16, (n >> 8) & 255, n & 255].map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.18 ? "#000000" : "#ffffff";
}
