// Canvases in CSS pixels, sharp on any screen, and the one depth axis that three panels share.

import { inks } from "./palette.js";

/** @param {HTMLCanvasElement} canvas @returns {{g: CanvasRenderingContext2D, width: number, height: number}|null} */
export function begin(canvas) {
  const { clientWidth: width, clientHeight: height } = canvas;
  if (!width || !height) return null;
  const scale = window.devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
  }
  const g = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  g.setTransform(scale, 0, 0, scale, 0, 0);
  g.clearRect(0, 0, width, height);
  g.font = "11px system-ui, sans-serif";
  g.textBaseline = "middle";
  return { g, width, height };
}

/** Depths in micrometres from the tip, the tip at the bottom. Without any depth one row per unit, and it says so. */
export class DepthAxis {
  /** @param {import("./types.js").Probe|undefined} probe @param {number} height of the panels in pixels */
  constructor(probe, height) {
    this.top = 8;
    this.bottom = height - 22;
    /** @type {Float32Array|undefined} */
    const depth = probe?.of.depth_um;
    let low = Infinity, high = -Infinity, known = 0;
    for (const um of depth ?? []) {
      if (Number.isNaN(um)) continue;
      known += 1;
      if (um < low) low = um;
      if (um > high) high = um;
    }
    this.known = known;
    this.hasDepth = known > 0;
    const pad = Math.max((high - low) * 0.03, 20);
    // the tip is shown where it is near; a probe in the surface of a deep structure would be a thin line otherwise
    this.low = this.hasDepth ? (low >= 0 && low < 0.4 * high ? Math.min(-pad / 2, low - pad) : low - pad) : 0;
    this.high = this.hasDepth ? high + pad : 1;
    this.key = `${this.low} ${this.high} ${height} ${known}`;
  }

  /** @param {number} um @returns {number} */
  y(um) {
    return this.bottom - ((um - this.low) / (this.high - this.low)) * (this.bottom - this.top);
  }

  /** @param {number} y @returns {number} */
  um(y) {
    return this.low + ((this.bottom - y) / (this.bottom - this.top)) * (this.high - this.low);
  }

  /** @returns {number[]} round depths to write beside the axis */
  ticks() {
    if (!this.hasDepth) return [];
    const rough = (this.high - this.low) / Math.max((this.bottom - this.top) / 48, 2);
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough) ?? rough;
    const ticks = [];
    for (let um = Math.ceil(this.low / step) * step; um <= this.high; um += step) ticks.push(um);
    return ticks;
  }

  /** @param {CanvasRenderingContext2D} g @param {number} from @param {number} to @param {boolean} labels */
  draw(g, from, to, labels) {
    const ink = inks();
    g.strokeStyle = ink.line;
    g.fillStyle = ink.faint;
    g.lineWidth = 1;
    g.textAlign = "right";
    for (const um of this.ticks()) {
      const y = Math.round(this.y(um)) + 0.5;
      g.beginPath();
      g.moveTo(from, y);
      g.lineTo(to, y);
      g.stroke();
      if (labels) g.fillText((um || 0).toLocaleString("en"), from - 5, y);
    }
  }
}

/** @param {CanvasRenderingContext2D} g @param {number} x @param {number} y @param {number} width @param {number} height */
export function hatch(g, x, y, width, height) {
  g.save();
  g.beginPath();
  g.rect(x, y, width, height);
  g.clip();
  g.strokeStyle = inks().hatch;
  g.lineWidth = 1;
  g.beginPath();
  for (let k = -height; k < width; k += 6) {
    g.moveTo(x + k, y + height);
    g.lineTo(x + k + height, y);
  }
  g.stroke();
  g.restore();
}

/** @param {CanvasRenderingContext2D} g @param {string} text @param {number} width @returns {string} as much as fits */
export function fitted(g, text, width) {
  if (g.measureText(text).width <= width) return text;
  let short = text;
  while (short.length > 1 && g.measureText(`${short}…`).width > width) short = short.slice(0, -1);
  return short.length > 1 ? `${short}…` : "";
}

/** @param {CanvasRenderingContext2D} g @param {string} text @param {number} width @param {number} height */
export function message(g, text, width, height) {
  g.fillStyle = inks().faint;
  g.textAlign = "center";
  const words = text.split(" ");
  /** @type {string[]} */
  const lines = [""];
  for (const word of words) {
    const longer = `${lines[lines.length - 1]} ${word}`.trim();
    if (g.measureText(longer).width > width - 24) lines.push(word);
    else lines[lines.length - 1] = longer;
  }
  lines.forEach((line, k) => g.fillText(line, width / 2, height / 2 + (k - (lines.length - 1) / 2) * 16));
}
