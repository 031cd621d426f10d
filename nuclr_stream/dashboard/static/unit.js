// One unit: what is predicted in words, its probabilities over the last half hour, and why.

import uPlot from "./vendor/uplot/uPlot.esm.js";
import { duration, make, number, p, swatch } from "./dom.js";
import { colour, edge, faded, inks, textOn } from "./palette.js";
import { bits, rowOf } from "./rows.js";

/** @typedef {import("./types.js").Probe} Probe */
/** @typedef {import("./types.js").UnitDetail} UnitDetail */
/** @typedef {import("./types.js").Words} Words */

/** @type {any} */
let plot = null;
let shownKey = "";

/**
 * @param {HTMLElement} root
 * @param {HTMLElement} note beside the title
 * @param {{probe: Probe|undefined, k: number, detail: UnitDetail|null, task: number, words: Words, selected: string|null}} view
 */
export function drawUnit(root, note, view) {
  const { probe, k, detail, task, words, selected } = view;
  if (!probe || selected === null) {
    return empty(root, note, "Choose a unit in the table or on the probe (j and k go through them).");
  }
  if (k < 0) return empty(root, note, `${selected} is not among the units of ${probe.stream} any more.`);
  const row = rowOf(probe, k);
  note.textContent = `${row.id} · ${row.shank < 0 ? "shank unknown" : `shank ${row.shank}`} · ${Number.isNaN(row.depth) ? "depth unknown" : `${number(row.depth)} µm`} · ${number(row.rate, 1)} Hz`;
  if (!detail || detail.stream !== probe.stream || !detail.tasks[task]) {
    if (shownKey !== `${probe.stream} ${row.id}`) empty(root, null, "No prediction of this unit yet.");
    shownKey = `${probe.stream} ${row.id}`;
    return;
  }
  const key = [probe.stream, row.id, task, detail.arrays.time_s.length, detail.arrays.time_s.at(-1), root.clientWidth, root.clientHeight, document.documentElement.dataset.theme, detail.evidence?.step].join();
  if (key === shownKey) return;
  shownKey = key;
  const chart = make("div", { class: "chart", role: "img", "aria-label": `Probabilities of ${row.id} over time` });
  root.replaceChildren(
    make("div", { class: "verdict" }, verdict(probe, k, detail, task, words)),
    make("figure", { class: "history" }, [make("figcaption", { text: "Probability, last 30 min" }), chart]),
    make("div", { class: "why" }, evidence(detail, task, words)),
  );
  drawHistory(chart, detail, task);
}

/** @param {HTMLElement} root @param {HTMLElement|null} note @param {string} text */
function empty(root, note, text) {
  if (note) note.textContent = "";
  shownKey = "";
  plot?.destroy();
  plot = null;
  if (root.textContent !== text) root.replaceChildren(make("p", { class: "nothing", text }));
}

/** @param {Probe} probe @param {number} k @param {UnitDetail} detail @param {number} task @param {Words} words @returns {HTMLElement[]} */
function verdict(probe, k, detail, task, words) {
  const row = rowOf(probe, k);
  const one = detail.tasks[task];
  const top = one.probabilities.indexOf(Math.max(...one.probabilities));
  const found = detail.evidence?.units?.[0]?.tasks?.[one.name];
  const needed = found?.abstain_below;
  const lines = [];
  if (one.why === 0) {
    lines.push(make("p", { class: "call" }, [swatch(colour(top), edge(top)), make("strong", { text: one.classes[top] }), ` p ${p(one.probabilities[top])}`]));
    lines.push(make("p", { text: `The same for ${duration(row.tasks[task].stable)}${one.set.length > 1 ? `; not ruled out: ${one.set.join(", ")}` : ""}.` }));
  } else {
    lines.push(make("p", { class: "call" }, [swatch("transparent", inks().edge, one.why === 3 ? "cross" : "ring"), make("strong", { text: "undecided" })]));
    const least = one.why === 2 && needed ? `: ${one.classes[top]} has ${p(one.probabilities[top])}, a call needs ${needed >= 1 ? "more than any can have" : p(needed)}` : "";
    lines.push(make("p", { text: `${sentence(words.why[String(one.why)] ?? "no class is named")}${least}.` }));
    if (one.why === 2) lines.push(make("p", { text: one.set.length === one.classes.length ? "No class is ruled out." : `Not ruled out: ${one.set.join(", ")}.` }));
  }
  const flags = probe.of.flags?.[k] ?? 0;
  for (const [bit, text] of Object.entries(words.flags)) {
    if (flags & Number(bit)) lines.push(make("p", { class: "flag", text: `${sentence(text)}${Number(bit) & bits.ood && row.score ? ` (${row.score.toFixed(1)} × the limit)` : ""}.` }));
  }
  probe.tasks.forEach((other, t) => {
    const { why, top, p: share, stable } = row.tasks[t];
    if (t === task || why === 1) return;
    lines.push(make("p", { text: `${sentence(other.name.replace(/_/g, " "))}: ${why === 0 ? `${top} p ${p(share)}, the same for ${duration(stable)}` : `undecided (${top} p ${p(share)})`}.` }));
  });
  lines.push(make("p", { class: "note", text: `Rests on ${row.windows} windows, worth ${row.exposure.toFixed(1)} that do not overlap.` }));
  return lines;
}

/** @param {UnitDetail} detail @param {number} task @param {Words} words @returns {HTMLElement[]} */
function evidence(detail, task, words) {
  const one = detail.tasks[task];
  const found = detail.evidence?.units?.[0]?.tasks?.[one.name];
  if (!found || !Object.keys(found.predictors).length) return [make("p", { class: "nothing", text: "The daemon gives no evidence for this unit now." })];
  const header = make("tr", {}, [make("th", { scope: "col", text: "described by" }), make("th", { scope: "col", text: "weight" }), ...one.classes.map((name, c) => make("th", { scope: "col", class: "class" }, [swatch(colour(c), edge(c)), name]))]);
  const total = Object.values(found.predictors).reduce((sum, /** @type {any} */ one) => sum + one.weight, 0);
  const rows = Object.entries(found.predictors).map(([name, /** @type {any} */ predictor]) => {
    const used = predictor.weight > 0 && predictor.has_data;
    return make("tr", { class: used ? "" : "unused" }, [
      make("th", { scope: "row", text: words.sets[name] ?? name }),
      make("td", { text: !predictor.has_data ? "no data" : total ? `${Math.round((100 * predictor.weight) / total)} %` : "–" }),
      ...predictor.probabilities.map((/** @type {number} */ value, /** @type {number} */ c) => heat(value, c)),
    ]);
  });
  const pooled = make("tr", { class: "pooled" }, [make("th", { scope: "row", text: "together, calibrated" }), make("td", { text: "" }), ...one.probabilities.map((value, c) => heat(value, c))]);
  return [make("table", { class: "evidence" }, [make("caption", { text: "Why? What each description of the unit predicts alone" }), make("thead", {}, [header]), make("tbody", {}, [...rows, pooled])])];
}

/** @param {number} value @param {number} c @returns {HTMLElement} */
function heat(value, c) {
  const cell = make("td", { class: "heat", text: p(value) });
  cell.style.backgroundColor = faded(colour(c), value);
  cell.style.color = value > 0.6 ? textOn(colour(c)) : inks().ink;
  return cell;
}

/** @param {HTMLElement} root @param {UnitDetail} detail @param {number} task */
function drawHistory(root, detail, task) {
  const ink = inks();
  const { classes } = detail.tasks[task];
  const time = [...detail.arrays.time_s];
  /** @type {Uint8Array} */
  const values = detail.arrays[`p${task}`];
  /** @type {Uint8Array} */
  const why = detail.arrays[`why${task}`];
  const series = classes.map((_, c) => time.map((_, k) => values[k * classes.length + c] / 255));
  const tops = time.map((_, k) => series.reduce((best, one, c) => (one[k] > series[best][k] ? c : best), 0));
  plot?.destroy();
  const axis = { stroke: ink.faint, grid: { stroke: ink.line, width: 1 }, ticks: { stroke: ink.line, width: 1 }, font: "11px system-ui, sans-serif" };
  plot = new uPlot(
    {
      width: Math.max(root.clientWidth, 120),
      height: Math.max(root.clientHeight, 80),
      legend: { show: false },
      cursor: { show: false },
      scales: { x: { time: false }, y: { range: [0, 1] } },
      axes: [
        { ...axis, size: 26, values: (/** @type {any} */ _, /** @type {number[]} */ ticks) => ticks.map((s) => (s >= 600 ? `${number(s / 60, s % 60 ? 1 : 0)} min` : `${s} s`)) },
        { ...axis, size: 34, splits: [0, 0.25, 0.5, 0.75, 1], values: (/** @type {any} */ _, /** @type {number[]} */ ticks) => ticks.map((v) => (v === 0 || v === 1 ? String(v) : p(v))) },
      ],
      series: [{}, ...classes.map((name, c) => ({ label: name, stroke: colour(c), width: 2, points: { show: time.length < 3, size: 5 } }))],
      hooks: { drawClear: [(/** @type {any} */ u) => shade(u, time, why, tops)] },
    },
    /** @type {any} */ ([time, ...series]),
    root,
  );
}

/** @param {any} u @param {number[]} time @param {Uint8Array} why @param {number[]} tops  where undecided it is grey, changes of the class are dashed */
function shade(u, time, why, tops) {
  const ink = inks();
  const { left, top, width, height } = u.bbox;
  const g = u.ctx;
  g.save();
  g.fillStyle = faded(ink.edge, 0.16);
  for (let k = 0; k < time.length; k++) {
    if (!why[k]) continue;
    const from = k;
    while (k + 1 < time.length && why[k + 1]) k++;
    const [a, b] = [u.valToPos(time[from], "x", true), u.valToPos(time[Math.min(k + 1, time.length - 1)], "x", true)];
    g.fillRect(Math.max(a, left), top, Math.max(Math.min(b, left + width) - Math.max(a, left), 1), height);
  }
  g.strokeStyle = ink.ink;
  g.setLineDash([4, 4]);
  for (let k = 1; k < time.length; k++) {
    if (tops[k] === tops[k - 1] || why[k] === 1 || why[k - 1] === 1) continue;
    const x = u.valToPos(time[k], "x", true);
    g.beginPath();
    g.moveTo(x, top);
    g.lineTo(x, top + height);
    g.stroke();
  }
  g.restore();
}

/** @param {string} text */
const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);
