// Spikes of the window that the model saw, by time and depth: one image, brighter for more spikes, gaps hatched.

import { begin, hatch, message } from "./canvas.js";
import { faded, inks } from "./palette.js";

/** @typedef {import("./types.js").Probe} Probe */
/** @typedef {import("./canvas.js").DepthAxis} DepthAxis */

const LEFT = 48;

/**
 * @param {HTMLCanvasElement} canvas
 * @param {Probe|undefined} probe
 * @param {DepthAxis} axis
 * @param {number} selected row of the unit that is selected, -1 for none
 */
export function drawActivity(canvas, probe, axis, selected) {
  const made = begin(canvas);
  if (!made) return;
  const { g, width, height } = made;
  const ink = inks();
  if (!probe) return message(g, "No probe has sent anything yet. nuclr-stream replay FILE plays a recording; a rig connects with nuclr_stream.client.Publisher.", width, height);
  const [x, w, h] = [LEFT, width - LEFT - 8, axis.bottom - axis.top];
  const activity = probe.activity;
  if (activity) axis.draw(g, x, x + w, true);
  if (!activity || activity.layout !== probe.layout) {
    warmUp(g, probe, width, height);
    return;
  }
  const image = rasterised(probe, activity, axis, Math.max(Math.round(h), 1));
  g.imageSmoothingEnabled = false;
  g.drawImage(image, x, axis.top, w, h);
  gaps(g, activity, x, axis.top, w, h);
  if (selected >= 0) ticks(g, probe, activity, selected, x, w, axis);
  g.fillStyle = ink.faint;
  const y = axis.bottom + 12;
  for (const [share, text, align] of /** @type {[number, string, CanvasTextAlign][]} */ ([[0, `−${activity.window_s} s`, "left"], [1, `${activity.end_s.toFixed(1)} s`, "right"]])) {
    g.textAlign = align;
    g.fillText(text, x + share * w, y);
  }
  g.textAlign = "right";
  g.fillText(axis.hasDepth ? "µm" : "unit", LEFT - 5, axis.bottom + 12);
}

/** @param {CanvasRenderingContext2D} g @param {Probe} probe @param {number} width @param {number} height */
function warmUp(g, probe, width, height) {
  const ink = inks();
  const progress = probe.summary.progress ?? 0;
  if (probe.summary.step !== undefined) return message(g, "loading", width, height);
  message(g, `The first window fills: ${Math.round(progress * 100)} %. Predictions come then.`, width, height - 24);
  const [w, x, y] = [Math.min(width * 0.6, 260), width / 2 - Math.min(width * 0.6, 260) / 2, height / 2 + 16];
  g.fillStyle = ink.line;
  g.fillRect(x, y, w, 6);
  g.fillStyle = ink.accent;
  g.fillRect(x, y, w * progress, 6);
}

/** @type {{key: string, canvas: HTMLCanvasElement}} */
const cache = { key: "", canvas: document.createElement("canvas") };

/** @param {Probe} probe @param {import("./types.js").Activity} activity @param {DepthAxis} axis @param {number} height @returns {HTMLCanvasElement} */
function rasterised(probe, activity, axis, height) {
  const key = [probe.stream, probe.layout, activity.end_s, height, axis.low, axis.high, document.documentElement.dataset.theme].join();
  if (cache.key === key) return cache.canvas;
  const { bins, bits, counts } = activity;
  const units = probe.unitIds.length;
  const sums = new Float32Array(bins * height);
  const perRow = bits === 2 ? Math.ceil(bins / 4) : bins;
  const thick = axis.hasDepth ? Math.max(1, Math.min(3, Math.round(height / 200))) : Math.max(1, Math.floor(height / units));
  for (let k = 0; k < units; k++) {
    const um = probe.of.depth_um?.[k] ?? NaN;
    if (axis.hasDepth && Number.isNaN(um)) continue;
    const y = axis.hasDepth ? Math.round(axis.y(um) - axis.top - thick / 2) : Math.floor((k / units) * height);
    for (let t = 0; t < bins; t++) {
      const value = bits === 2 ? (counts[k * perRow + (t >> 2)] >> ((t & 3) * 2)) & 3 : counts[k * perRow + t] / 64;
      if (value) for (let d = 0; d < thick; d++) if (y + d >= 0 && y + d < height) sums[(y + d) * bins + t] += value;
    }
  }
  paint(cache.canvas, sums, bins, height);
  cache.key = key;
  return cache.canvas;
}

/** @param {HTMLCanvasElement} canvas @param {Float32Array} sums @param {number} width @param {number} height */
function paint(canvas, sums, width, height) {
  canvas.width = width;
  canvas.height = height;
  const g = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const image = g.createImageData(width, height);
  const n = parseInt(inks().ink.slice(1), 16);
  for (let k = 0; k < sums.length; k++) {
    if (!sums[k]) continue;
    image.data[4 * k] = n >> 16;
    image.data[4 * k + 1] = (n >> 8) & 255;
    image.data[4 * k + 2] = n & 255;
    image.data[4 * k + 3] = Math.min(255, 90 + 75 * Math.log2(1 + sums[k]));
  }
  g.putImageData(image, 0, 0);
}

/** @param {CanvasRenderingContext2D} g @param {import("./types.js").Activity} activity @param {number} x @param {number} y @param {number} w @param {number} h */
function gaps(g, activity, x, y, w, h) {
  const { observed, bins } = activity;
  for (let t = 0; t < bins; t++) {
    if (observed[t]) continue;
    const from = t;
    while (t < bins && !observed[t]) t++;
    const [left, wide] = [x + (from / bins) * w, ((t - from) / bins) * w];
    g.fillStyle = inks().ground;
    g.fillRect(left, y, wide, h);
    hatch(g, left, y, wide, h);
    if (wide > 50) {
      g.fillStyle = inks().faint;
      g.textAlign = "center";
      g.fillText("no data", left + wide / 2, y + 10);
    }
  }
}

/** @param {CanvasRenderingContext2D} g @param {Probe} probe @param {import("./types.js").Activity} activity @param {number} k @param {number} x @param {number} w @param {DepthAxis} axis */
function ticks(g, probe, activity, k, x, w, axis) {
  const um = probe.of.depth_um?.[k] ?? NaN;
  if (Number.isNaN(um)) return;
  const ink = inks();
  const y = Math.round(axis.y(um));
  const perRow = activity.bits === 2 ? Math.ceil(activity.bins / 4) : activity.bins;
  g.fillStyle = faded(ink.accent, 0.18);
  g.fillRect(x, y - 7, w, 14);
  g.fillStyle = ink.accent;
  for (let t = 0; t < activity.bins; t++) {
    const value = activity.bits === 2 ? (activity.counts[k * perRow + (t >> 2)] >> ((t & 3) * 2)) & 3 : activity.counts[k * perRow + t];
    if (value) g.fillRect(x + (t / activity.bins) * w, y - 5, Math.max(w / activity.bins, 1), 10);
  }
}
