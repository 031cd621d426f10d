// Units at their place on the probe. Shanks are those that the source names, never inferred from order.
//
// Colour is the most probable class, opacity its calibrated probability. Shape says more than colour can: a filled disc is
// a call, a grey ring is undecided, a grey cross is out of distribution, a dot has no data yet.

import { begin, fitted, message } from "./canvas.js";
import { colour, edge, faded, inks, isSecond, theme } from "./palette.js";
import { bits } from "./rows.js";

/** @typedef {import("./types.js").Probe} Probe */
/** @typedef {import("./canvas.js").DepthAxis} DepthAxis */

/** @typedef {{k: number, x: number, y: number}} Place where a unit was drawn */

/** @param {Probe} probe @returns {number[]} the shanks that there are, -1 for units that name none */
export function shanksOf(probe) {
  return [...new Set([...(probe.of.shank ?? []), ...(probe.of.contact_shank ?? [])])].sort((a, b) => a - b);
}

/**
 * @param {HTMLCanvasElement} canvas
 * @param {Probe|undefined} probe
 * @param {DepthAxis} axis
 * @param {{task: number, selected: number, shown: Set<number>|null}} view `shown` are units that pass the filter
 * @returns {Place[]} where every unit is, for clicks
 */
export function drawDepth(canvas, probe, axis, view) {
  const made = begin(canvas);
  if (!made) return [];
  const { g, width, height } = made;
  if (!probe) return [];
  if (!axis.hasDepth) {
    message(g, "The source gives no depths. Units are in the table.", width, height);
    return [];
  }
  axis.draw(g, 0, width, false);
  const shanks = shanksOf(probe);
  const column = width / shanks.length;
  shanks.forEach((shank, s) => {
    const ink = inks();
    g.fillStyle = faded(ink.edge, 0.1);
    g.beginPath();
    g.roundRect(s * column + column * 0.1, axis.top - 4, column * 0.8, axis.bottom - axis.top + 4, [4, 4, column * 0.3, column * 0.3]);
    g.fill();
    g.fillStyle = ink.faint;
    g.textAlign = "center";
    const name = shank < 0 ? (shanks.length > 1 ? "shank ?" : "") : `shank ${shank}`;
    g.fillText(fitted(g, name, column), (s + 0.5) * column, axis.bottom + 12);
  });
  contacts(g, probe, axis, shanks, column);
  const places = placed(probe, axis, shanks, column);
  const size = places.length > 600 ? 2.6 : places.length > 200 ? 3.2 : 4.2;
  for (const place of places) mark(g, probe, place, size, view);
  const chosen = places.find((place) => place.k === view.selected);
  if (chosen) {
    g.strokeStyle = inks().accent;
    g.lineWidth = 2;
    g.beginPath();
    g.arc(chosen.x, chosen.y, size + 4, 0, 7);
    g.stroke();
    g.beginPath();
    g.moveTo(0, chosen.y);
    g.lineTo(chosen.x - size - 4, chosen.y);
    g.stroke();
  }
  return places;
}

/** @param {Probe} probe @param {number[]} shanks @param {number} column @returns {(shank: number, x: number) => number} where an x of a shank is drawn: each shank over the range of its units and contacts */
function across(probe, shanks, column) {
  const { x_um: xs, shank, contact_x: contactX = [], contact_shank: contactShank = [] } = probe.of;
  /** @type {Map<number, [number, number]>} */
  const range = new Map();
  for (const [all, of] of [[xs, shank], [contactX, contactShank]]) {
    for (let k = 0; k < all.length; k++) {
      if (Number.isNaN(all[k])) continue;
      const [low, high] = range.get(of[k]) ?? [Infinity, -Infinity];
      range.set(of[k], [Math.min(low, all[k]), Math.max(high, all[k])]);
    }
  }
  return (s, x) => {
    const [low, high] = range.get(s) ?? [0, 0];
    const share = Number.isNaN(x) || high === low ? 0.5 : (x - low) / (high - low);
    return (shanks.indexOf(s) + 0.2 + 0.6 * share) * column;
  };
}

/** @param {CanvasRenderingContext2D} g @param {Probe} probe @param {DepthAxis} axis @param {number[]} shanks @param {number} column */
function contacts(g, probe, axis, shanks, column) {
  const { contact_depth: depth = [], contact_x: xs = [], contact_shank: shank = [] } = probe.of;
  const place = across(probe, shanks, column);
  g.fillStyle = faded(inks().edge, 0.3);
  for (let k = 0; k < depth.length; k++) {
    const y = axis.y(depth[k]);
    if (y >= axis.top - 4 && y <= axis.bottom) g.fillRect(place(shank[k], xs[k]) - 2, y - 1, 4, 2);
  }
}

/** @param {Probe} probe @param {DepthAxis} axis @param {number[]} shanks @param {number} column @returns {Place[]} */
function placed(probe, axis, shanks, column) {
  const { depth_um: depth, x_um: xs, shank } = probe.of;
  const place = across(probe, shanks, column);
  /** @type {Map<string, number>} units at one place are drawn side by side */
  const taken = new Map();
  const places = [];
  for (let k = 0; k < depth.length; k++) {
    if (Number.isNaN(depth[k])) continue;
    const s = shanks.indexOf(shank[k]);
    const y = axis.y(depth[k]);
    const x = place(shank[k], xs[k]);
    const key = `${Math.round(x / 4)} ${Math.round(y / 3)}`;
    const n = taken.get(key) ?? 0;
    taken.set(key, n + 1);
    const aside = Math.ceil(n / 2) * 5 * (n % 2 ? 1 : -1);
    places.push({ k, x: Math.min(Math.max(x + aside, s * column + 5), (s + 1) * column - 5), y });
  }
  return places;
}

/** @type {Map<string, HTMLCanvasElement>} marks that were drawn once: a thousand circles take long, a thousand stamps do not */
const stamps = new Map();
const SHADES = 8;

/** @param {CanvasRenderingContext2D} g @param {Probe} probe @param {Place} place @param {number} size @param {{task: number, shown: Set<number>|null}} view */
function mark(g, probe, { k, x, y }, size, view) {
  const of = probe.of;
  const why = of[`why${view.task}`]?.[k] ?? 1;
  const top = of[`top${view.task}`]?.[k] ?? 0;
  const shade = Math.round(((of[`p${view.task}`]?.[k] ?? 0) / 255) * SHADES) / SHADES;
  const kind = why === 0 ? "call" : (of.flags?.[k] ?? 0) & bits.ood ? "cross" : why === 1 ? "dot" : "ring";
  const stamp = stampOf(kind, kind === "call" ? top : 0, kind === "call" ? shade : 0, size);
  const half = size + 2;
  g.globalAlpha = view.shown && !view.shown.has(k) ? 0.12 : 1;
  g.drawImage(stamp, x - half, y - half, 2 * half, 2 * half);
  g.globalAlpha = 1;
}

/** @param {string} kind @param {number} top @param {number} shade @param {number} size @returns {HTMLCanvasElement} */
function stampOf(kind, top, shade, size) {
  const scale = window.devicePixelRatio || 1;
  const key = [kind, top, shade, size, scale, theme()].join();
  const made = stamps.get(key);
  if (made) return made;
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = Math.ceil(2 * (size + 2) * scale);
  const g = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  g.scale(scale, scale);
  g.translate(size + 2, size + 2);
  draw(g, kind, top, shade, size);
  stamps.set(key, canvas);
  return canvas;
}

/** @param {CanvasRenderingContext2D} g @param {string} kind @param {number} top @param {number} shade @param {number} size */
function draw(g, kind, top, shade, size) {
  const ink = inks();
  g.lineWidth = 1.2;
  g.strokeStyle = ink.edge;
  g.beginPath();
  if (kind === "call") {
    g.arc(0, 0, size, 0, 7);
    g.fillStyle = faded(colour(top), 0.35 + 0.65 * shade);
    g.fill();
    g.strokeStyle = isSecond(top) ? ink.ink : edge(top);
  } else if (kind === "cross") {
    g.moveTo(-size * 0.8, -size * 0.8);
    g.lineTo(size * 0.8, size * 0.8);
    g.moveTo(size * 0.8, -size * 0.8);
    g.lineTo(-size * 0.8, size * 0.8);
  } else if (kind === "dot") {
    g.arc(0, 0, 0.7, 0, 7);
  } else {
    g.arc(0, 0, size - 0.6, 0, 7);
    g.fillStyle = faded(ink.grey, 0.35);
    g.fill();
  }
  g.stroke();
}
