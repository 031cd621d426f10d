// Puts the page together: frames go into the model, the model is drawn once per animation frame, keys and clicks change
// what is shown. The display can be frozen; the stream never is.

import { drawActivity } from "./activity.js";
import { DepthAxis } from "./canvas.js";
import { drawDepth } from "./depth.js";
import { the, setText } from "./dom.js";
import { drawAlerts, drawBorders, drawLegend, drawLink, drawProbes, drawTasks, isStale } from "./frame.js";
import { drawEvents, drawHealth } from "./health.js";
import { listen, showHelp } from "./keys.js";
import { Link } from "./link.js";
import { Model } from "./model.js";
import { borderWords, drawRegions, planWords } from "./regions.js";
import { Rows } from "./rows.js";
import { Table } from "./table.js";
import { drawUnit } from "./unit.js";
import { saveTable } from "./save.js";

const SLOW_MS = 500; // words are read, not watched: they are written anew this often at most

const model = new Model();
const rows = new Rows();
const page = { received: 0, drawn: 0, skipped: 0, drawMs: 0, kbps: 0, open: false, frozen: false, lateMs: NaN };
const canvases = /** @type {HTMLCanvasElement[]} */ (["activity", "depth", "regions"].map((id) => the(id)));
/** @type {import("./depth.js").Place[]} */
let places = [];
/** @type {string[]} what every canvas shows */
const drawnKeys = [];
let regionsNote = "";
let pending = false;
let slowAt = 0;
let rateAt = performance.now();
let rateBytes = 0;
let fresh = 0;
/** @type {string|null} the probe that the unit is selected on */
let selectedOn = null;
/** @type {Map<string, string>} the unit that was selected last on every probe */
const remembered = new Map();

const link = new Link(
  (header, arrays) => {
    model.take(header, arrays);
    if (header.kind === "frame") {
      fresh += 1;
      page.received += 1;
    }
    ask();
  },
  (open) => {
    page.open = open;
    model.open = open;
    slowAt = 0;
    ask();
  },
);

const table = new Table(the("table"), rows, (k) => choose(k), () => ask());

function ask() {
  if (pending) return;
  pending = true;
  requestAnimationFrame(draw);
}

function draw() {
  pending = false;
  const start = performance.now();
  const probe = model.probe;
  if (probe && selectedOn !== probe.stream) follow(probe.stream);
  const selected = probe ? probe.unitIds.indexOf(model.selected ?? "") : -1;
  rows.refresh(probe, model.task);
  const axis = new DepthAxis(probe, canvases[1].clientHeight);
  const isFiltered = rows.order.length < rows.total;
  const common = [probe?.stream, probe?.layout, axis.key, document.documentElement.dataset.theme, window.devicePixelRatio];
  if (isNew(0, [...common, probe?.activity?.end_s, selected, probe?.activity ? 0 : probe?.version])) drawActivity(canvases[0], probe, axis, selected);
  if (isNew(1, [...common, probe?.version, selected, model.task, rows.filter, rows.order.length])) {
    places = drawDepth(canvases[1], probe, axis, { task: model.task, selected, shown: isFiltered ? new Set(rows.order) : null });
  }
  if (isNew(2, [...common, probe?.placed, probe?.summary.step === undefined])) regionsNote = drawRegions(canvases[2], probe, axis, model.words);
  table.draw(probe, model.task, selected);
  if (start - slowAt > SLOW_MS) {
    slowAt = start;
    drawProbes(the("probes"), model, watch);
    drawWords(regionsNote, axis, selected);
  }
  count(start);
}

/** @param {number} place of the canvas @param {any[]} parts  everything that it shows @returns {boolean} whether it must be drawn anew */
function isNew(place, parts) {
  const key = [...parts, canvases[place].clientWidth, canvases[place].clientHeight].join("|");
  if (drawnKeys[place] === key) return false;
  drawnKeys[place] = key;
  return true;
}

/** @param {string} note @param {DepthAxis} axis @param {number} selected */
function drawWords(note, axis, selected) {
  const probe = model.probe;
  drawLink(the("link"), the("facts"), model, page);
  drawTasks(the("tasks"), model, (task) => show(task));
  drawAlerts(the("alerts"), model, page.open);
  document.body.classList.toggle("stale", probe ? isStale(probe, model) : !model.live);
  drawLegend(the("legend"), model, (name) => filterBy(name));
  setText(the("shown"), probe ? `${rows.order.length.toLocaleString("en")} of ${rows.total.toLocaleString("en")} shown` : "");
  setText(the("filter-error"), rows.error);
  the("filter-error").hidden = !rows.error;
  const without = rows.total - axis.known;
  setText(the("depth-note"), !probe || !axis.hasDepth ? "" : without ? `${axis.known} of ${rows.total}, ${without} without depth` : `${rows.total} of ${rows.total}`);
  setText(the("activity-note"), page.frozen ? "frozen" : probe?.activity ? `the ${probe.activity.window_s} s that the model saw` : "");
  setText(the("regions-note"), note);
  drawBorders(the("borders"), borderWords(probe));
  the("regions-panel").title = planWords(probe).map((one) => `${one.name}: ${one.value}`).join("\n");
  drawUnit(the("unit"), the("unit-note"), { probe, k: selected, detail: model.unit, task: model.task, words: model.words, selected: model.selected });
  const now = performance.now();
  if (now - rateAt > 2000) {
    page.kbps = (link.bytes - rateBytes) / (now - rateAt);
    [rateAt, rateBytes] = [now, link.bytes];
  }
  drawHealth(the("health"), model, page);
  drawEvents(the("events"), model.events);
  if (model.answer) {
    setText(the("shown"), model.answer);
    model.answer = "";
  }
}

/** @param {number} start */
function count(start) {
  if (fresh) {
    page.drawn += 1;
    page.skipped += fresh - 1;
    fresh = 0;
    link.say({ drawn: model.frame });
    page.lateMs = performance.timeOrigin + performance.now() - model.sentUnixS * 1000;
  }
  page.drawMs += 0.1 * (performance.now() - start - page.drawMs);
  const root = document.documentElement.dataset;
  root.received = String(page.received);
  root.drawn = String(page.drawn);
  root.skipped = String(page.skipped);
  root.lateMs = page.lateMs.toFixed(2);
  root.bytes = String(link.bytes);
}

// -- what the viewer does ---------------------------------------------------------------------------------------------

/** @param {string} stream  a probe that was left keeps its selection */
function follow(stream) {
  selectedOn = stream;
  model.selected = remembered.get(stream) ?? null;
  model.unit = null;
  link.wish({ unit: model.selected === null ? null : [stream, model.selected] });
}

/** @param {number} k */
function choose(k) {
  const probe = model.probe;
  if (!probe || k < 0 || k >= probe.unitIds.length) return;
  model.selected = probe.unitIds[k];
  remembered.set(probe.stream, model.selected);
  model.unit = null;
  link.wish({ unit: [probe.stream, model.selected] });
  table.reveal(k);
  slowAt = 0;
  ask();
}

/** @param {number} by */
function step(by) {
  const probe = model.probe;
  if (!probe || !rows.order.length) return;
  const place = rows.order.indexOf(probe.unitIds.indexOf(model.selected ?? ""));
  choose(rows.order[place < 0 ? 0 : Math.min(Math.max(place + by, 0), rows.order.length - 1)]);
}

/** @param {string} stream */
function watch(stream) {
  model.watched = stream;
  link.wish({ watch: stream });
  slowAt = 0;
  ask();
}

/** @param {number} by */
function stepProbe(by) {
  const streams = [...model.probes.keys()];
  if (streams.length) watch(streams[(streams.indexOf(model.watched) + by + streams.length) % streams.length]);
}

/** @param {number} task */
function show(task) {
  model.task = task;
  link.wish({ task });
  slowAt = 0;
  ask();
}

/** @param {string} text */
function filterBy(text) {
  const input = /** @type {HTMLInputElement} */ (the("filter"));
  input.value = input.value === text ? "" : text;
  rows.filter = input.value;
  slowAt = 0;
  ask();
}

function freeze() {
  page.frozen = !page.frozen;
  the("freeze").setAttribute("aria-pressed", String(page.frozen));
  setText(the("freeze"), page.frozen ? "frozen" : "freeze");
  link.wish({ freeze: page.frozen });
  slowAt = 0;
  ask();
}

function turnTheme() {
  const root = document.documentElement;
  root.dataset.theme = root.dataset.theme === "light" ? "dark" : "light";
  try {
    localStorage.setItem("theme", root.dataset.theme);
  } catch {
    // a browser that keeps nothing begins with the system's theme again
  }
  slowAt = 0;
  ask();
}

function takeNote() {
  const dialog = /** @type {HTMLDialogElement} */ (the("note-dialog"));
  const text = /** @type {HTMLTextAreaElement} */ (the("note"));
  setText(the("note-hint"), model.notes ? `Kept with the time, on ${model.watched || "no probe"}.` : "Notes are off: start the page with --notes FILE.");
  /** @type {HTMLButtonElement} */ (the("note-save")).disabled = !model.notes;
  text.value = "";
  dialog.showModal();
  dialog.onclose = () => {
    if (dialog.returnValue === "save" && text.value.trim()) link.say({ note: text.value });
  };
}

/** @type {import("./keys.js").Key[]} */
const KEYS = [
  { keys: ["j", "ArrowDown"], text: "next unit", run: () => step(1) },
  { keys: ["k", "ArrowUp"], text: "unit before", run: () => step(-1) },
  { keys: ["]"], text: "next probe", run: () => stepProbe(1) },
  { keys: ["["], text: "probe before", run: () => stepProbe(-1) },
  { keys: ["c"], text: "next task: cell type, brain region", run: () => show((model.task + 1) % Math.max(model.probe?.tasks.length ?? 1, 1)) },
  { keys: ["/"], text: "filter units", run: () => the("filter").focus() },
  { keys: ["Escape"], text: "clear the filter", run: () => filterBy(rows.filter) },
  { keys: [" "], text: "freeze the display, never the stream", run: freeze },
  { keys: ["n"], text: "keep a note", run: takeNote },
  { keys: ["e"], text: "save the table as it is shown (CSV)", run: () => saveTable(model, rows) },
  { keys: ["t"], text: "light or dark", run: turnTheme },
  { keys: ["?"], text: "this list", run: help },
];

function help() {
  showHelp(/** @type {HTMLDialogElement} */ (the("keys")), KEYS, model.daemon.status?.version ? `Daemon ${model.daemon.status.version}.` : "");
}

/** @param {MouseEvent} event */
function pick(event) {
  const near = places
    .map((place) => ({ k: place.k, far: (place.x - event.offsetX) ** 2 + (place.y - event.offsetY) ** 2 }))
    .sort((a, b) => a.far - b.far)[0];
  if (near && near.far < 144) choose(near.k);
}

listen(KEYS);
the("freeze").addEventListener("click", freeze);
the("theme").addEventListener("click", turnTheme);
the("help").addEventListener("click", help);
the("depth").addEventListener("click", pick);
the("filter").addEventListener("input", (event) => {
  rows.filter = /** @type {HTMLInputElement} */ (event.target).value;
  slowAt = 0;
  ask();
});
new ResizeObserver(() => {
  slowAt = 0;
  ask();
}).observe(the("table"));
document.addEventListener("visibilitychange", () => ask());
setInterval(ask, 1000); // ages grow without frames
try {
  document.documentElement.dataset.theme = localStorage.getItem("theme") ?? (matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark");
} catch {
  document.documentElement.dataset.theme = "dark";
}
ask();
