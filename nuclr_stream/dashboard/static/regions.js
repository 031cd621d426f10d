// Predicted regions along every shank, the borders between them with their 90 % interval, and a plan beside, if any.

import { begin, fitted, hatch, message } from "./canvas.js";
import { colour, faded, inks, textOn } from "./palette.js";

/** @typedef {import("./types.js").Probe} Probe */
/** @typedef {import("./types.js").Boundary} Boundary */
/** @typedef {import("./canvas.js").DepthAxis} DepthAxis */

/**
 * @param {HTMLCanvasElement} canvas
 * @param {Probe|undefined} probe
 * @param {DepthAxis} axis
 * @param {import("./types.js").Words} words
 * @returns {string} the line beside the title
 */
export function drawRegions(canvas, probe, axis, words) {
  const made = begin(canvas);
  if (!made || !probe) return "";
  const { g, width, height } = made;
  const { shanks = [], reason = "", classes = [], plan = [], planned = [] } = probe.placement;
  if (!probe.tasks.some((task) => task.name === "brain_region") && probe.tasks.length) {
    message(g, "This bundle predicts no regions.", width, height);
    return "";
  }
  const found = shanks.filter((shank) => shank.segments.length);
  if (!found.length) {
    const why = reason || shanks[0]?.reason;
    if (axis.hasDepth || why) message(g, `No regions yet${why ? `: ${words.placement[why] ?? why}` : ""}.`, width, height);
    return "";
  }
  axis.draw(g, 0, width, false);
  const bars = found.length;
  const planWidth = planned.length ? 22 : 0;
  // one shank leaves room for depths in words, several share it
  const bar = Math.min((width - planWidth - 8) / bars - 11, bars === 1 ? 54 : 90);
  found.forEach((shank, s) => {
    const x = 4 + planWidth + s * ((width - planWidth - 8) / bars);
    segments(g, shank, classes, x, bar, axis);
    for (const border of shank.boundaries) interval(g, border, x, bar, axis, bars > 1);
    if (bars === 1) labels(g, shank.boundaries, x + bar + 10, width - x - bar - 12, axis);
    g.fillStyle = inks().faint;
    g.textAlign = "center";
    g.fillText(fitted(g, shank.shank < 0 ? "" : `shank ${shank.shank}`, bar + 6), x + bar / 2, axis.bottom + 12);
  });
  if (planWidth) drawPlan(g, probe, classes, axis);
  const compared = plan.find((one) => one.offset_um !== null && !one.reason);
  return compared ? `plan ${signed(compared.offset_um ?? 0)} µm` : "predicted";
}

/** @param {Probe|undefined} probe @returns {{name: string, value: string}[]} how the plan compares, one per shank */
export function planWords(probe) {
  return (probe?.placement.plan ?? [])
    .filter((one) => one.offset_um !== null && !one.reason)
    .map((one) => ({ name: `plan${one.shank < 0 ? "" : ` on shank ${one.shank}`}`, value: `${signed(one.offset_um ?? 0)} µm (90 %: ${signed(one.low_um ?? 0)} to ${signed(one.high_um ?? 0)}), agrees to ${percent(one.agreement ?? 0)}` }));
}

/** @param {CanvasRenderingContext2D} g @param {import("./types.js").PlacedShank} shank @param {string[]} classes @param {number} x @param {number} bar @param {DepthAxis} axis */
function segments(g, shank, classes, x, bar, axis) {
  for (const one of shank.segments) {
    const [y, h] = [axis.y(one.to_um), axis.y(one.from_um) - axis.y(one.to_um)];
    const fill = colour(classes.indexOf(one.region));
    g.fillStyle = inks().panel;
    g.fillRect(x, y, bar, h);
    g.fillStyle = faded(fill, 0.4 + 0.6 * one.probability);
    g.fillRect(x, y, bar, h);
    g.fillStyle = one.probability > 0.6 ? textOn(fill) : inks().ink;
    g.textAlign = "center";
    if (h > 12) {
      g.font = "600 12px system-ui, sans-serif";
      g.fillText(fitted(g, one.region, bar - 4), x + bar / 2, y + h / 2 - (h > 28 ? 7 : 0));
      g.font = "11px system-ui, sans-serif";
      if (h > 28) g.fillText(percent(one.probability), x + bar / 2, y + h / 2 + 8);
    }
  }
}

/** @param {CanvasRenderingContext2D} g @param {Boundary} border @param {number} x @param {number} bar @param {DepthAxis} axis @param {boolean} written  with its depth in the bar, where there is no room beside it */
function interval(g, border, x, bar, axis, written) {
  const ink = inks();
  const [middle, top, bottom] = [axis.y(border.depth_um), axis.y(border.high_um), axis.y(border.low_um)];
  g.fillStyle = faded(ink.panel, 0.45);
  g.fillRect(x, top, bar, bottom - top);
  hatch(g, x, top, bar, bottom - top);
  if (written && bar > 30) {
    const text = whole(border.depth_um);
    const wide = g.measureText(text).width + 4;
    g.fillStyle = faded(ink.panel, 0.85);
    g.fillRect(x + bar / 2 - wide / 2, Math.min(top, middle - 4) - 14, wide, 13);
    g.fillStyle = ink.ink;
    g.textAlign = "center";
    g.fillText(text, x + bar / 2, Math.min(top, middle - 4) - 7);
  }
  g.strokeStyle = ink.ink;
  g.lineWidth = 2;
  g.beginPath();
  g.moveTo(x - 2, middle);
  g.lineTo(x + bar + 4, middle);
  g.stroke();
  g.lineWidth = 1.5;
  g.beginPath();
  g.moveTo(x + bar + 1, top);
  g.lineTo(x + bar + 6, top);
  g.moveTo(x + bar + 4, top);
  g.lineTo(x + bar + 4, bottom);
  g.moveTo(x + bar + 1, bottom);
  g.lineTo(x + bar + 6, bottom);
  g.stroke();
}

/** @param {CanvasRenderingContext2D} g @param {Boundary[]} borders @param {number} x @param {number} width @param {DepthAxis} axis */
function labels(g, borders, x, width, axis) {
  const ink = inks();
  g.textAlign = "left";
  let free = Infinity; // from the bottom up; a label that would cover the one below moves up
  for (const border of [...borders].sort((a, b) => a.depth_um - b.depth_um)) {
    const y = Math.min(axis.y(border.depth_um), free - 30);
    free = y;
    g.fillStyle = ink.ink;
    g.font = "600 11px system-ui, sans-serif";
    g.fillText(fitted(g, `${whole(border.depth_um)} µm`, width), x, y - 7);
    g.font = "11px system-ui, sans-serif";
    g.fillStyle = ink.faint;
    g.fillText(fitted(g, `${whole(border.low_um)}–${whole(border.high_um)}`, width), x, y + 7);
  }
}

/** @param {CanvasRenderingContext2D} g @param {Probe} probe @param {string[]} classes @param {DepthAxis} axis */
function drawPlan(g, probe, classes, axis) {
  const { plan = [], planned = [] } = probe.placement;
  const offset = plan.find((one) => one.offset_um !== null && !one.reason)?.offset_um ?? 0;
  for (const one of planned) {
    const [y, h] = [axis.y(one.to_um + offset), axis.y(one.from_um + offset) - axis.y(one.to_um + offset)];
    const place = classes.indexOf(one.region);
    g.fillStyle = place < 0 ? faded(inks().grey, 0.4) : faded(colour(place), 0.7);
    g.fillRect(4, y, 16, h);
    g.save();
    g.translate(12, y + h / 2);
    g.rotate(-Math.PI / 2);
    g.fillStyle = inks().ink;
    g.textAlign = "center";
    g.fillText(fitted(g, one.region, h - 4), 0, 0);
    g.restore();
  }
  g.fillStyle = inks().faint;
  g.textAlign = "center";
  g.fillText("plan", 12, axis.bottom + 12);
}

/** @param {Probe|undefined} probe @returns {string[]} the borders in words, for whoever does not see the drawing */
export function borderWords(probe) {
  return (probe?.placement.shanks ?? []).flatMap((shank) =>
    shank.boundaries.map(
      (border) =>
        `${shank.shank < 0 ? "" : `Shank ${shank.shank}: `}${border.below} to ${border.above} at ${whole(border.depth_um)} µm, 90 % interval ${whole(border.low_um)} to ${whole(border.high_um)} µm`,
    ),
  );
}

/** @param {number} um */
const whole = (um) => Math.round(um).toLocaleString("en");
/** @param {number} share */
const percent = (share) => `${Math.round(share * 100)} %`;
/** @param {number} um */
const signed = (um) => `${um < 0 ? "−" : "+"}${Math.abs(Math.round(um))}`;
