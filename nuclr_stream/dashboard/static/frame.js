// What stands around the panels: connection, tabs of the probes, tasks, alerts, and the legend that counts.

import { duration, make, setText, swatch } from "./dom.js";
import { colour, edge, inks } from "./palette.js";

/** @typedef {import("./model.js").Model} Model */

/** @param {HTMLElement} pill @param {HTMLElement} facts @param {Model} model @param {{open: boolean, frozen: boolean}} page */
export function drawLink(pill, facts, model, page) {
  const [state, text] = !page.open ? ["error", "page server lost, reconnecting"] : !model.connected ? ["error", "no daemon"] : page.frozen ? ["warning", "display frozen"] : ["good", "live"];
  pill.dataset.state = state;
  setText(pill, text);
  const { daemon } = model;
  setText(facts, [daemon.bundle && `bundle ${daemon.bundle}`, daemon.provider?.replace("ExecutionProvider", ""), model.source && `from ${model.source}`].filter(Boolean).join(" · "));
}

/** @param {HTMLElement} root @param {Model} model @param {(task: number) => void} show */
export function drawTasks(root, model, show) {
  const tasks = model.probe?.tasks ?? [];
  const key = `${tasks.map((task) => task.name)} ${model.task}`;
  if (root.dataset.key === key) return;
  root.dataset.key = key;
  root.replaceChildren(...tasks.map((task, t) => make("button", { type: "button", role: "radio", "aria-checked": String(t === model.task), text: task.name.replace(/_/g, " "), onclick: () => show(t) })));
}

/** @param {HTMLElement} root @param {Model} model @param {(stream: string) => void} watch */
export function drawProbes(root, model, watch) {
  const streams = [...model.probes.keys()];
  const key = streams.join("\n");
  if (root.dataset.key !== key) {
    root.dataset.key = key;
    root.hidden = !streams.length;
    root.replaceChildren(
      ...streams.map((stream) => {
        const strip = make("canvas", { width: "64", height: "28", "aria-hidden": "true" });
        return make("button", { type: "button", role: "tab", "data-stream": stream, onclick: () => watch(stream) }, [strip, make("span", { class: "name", text: stream }), make("span", { class: "state" }), make("span", { class: "called" })]);
      }),
    );
  }
  for (const tab of /** @type {HTMLElement[]} */ ([...root.children])) {
    const probe = model.probes.get(tab.dataset.stream ?? "");
    if (!probe) continue;
    const { summary } = probe;
    const on = probe.stream === model.watched;
    tab.setAttribute("aria-selected", String(on));
    tab.dataset.state = isStale(probe, model) ? "stale" : (summary.state ?? "waiting");
    const [strip, , state, called] = /** @type {HTMLElement[]} */ ([...tab.children]);
    setText(state, isStale(probe, model) ? "not live" : summary.state === "warming_up" ? `warming up ${Math.round((summary.progress ?? 0) * 100)} %` : (summary.state ?? "waiting").replace(/_/g, " "));
    const counts = calledOf(probe, model, on);
    setText(called, counts === null ? `${summary.units} units` : `${counts.toLocaleString("en")} of ${summary.units.toLocaleString("en")} called${summary.time_s !== undefined ? ` · ${duration(summary.time_s)}` : ""}`);
    drawStrip(/** @type {HTMLCanvasElement} */ (strip), probe, model, on);
  }
}

/** @param {import("./types.js").Probe} probe @param {Model} model @returns {boolean} whether what is shown of it is of the past */
export function isStale(probe, model) {
  return !model.live || model.alerts.some((one) => one.level === "error" && one.stream === probe.stream);
}

/** @param {import("./types.js").Probe} probe @param {Model} model @param {boolean} on @returns {number|null} */
function calledOf(probe, model, on) {
  const why = on ? probe.of[`why${model.task}`] : undefined;
  if (why) return /** @type {Uint8Array} */ (why).reduce((sum, one) => sum + Number(one === 0), 0);
  const brief = probe.brief;
  return brief ? brief.p.reduce((sum, one) => sum + Number(one > 0), 0) : null;
}

/** @param {HTMLCanvasElement} canvas @param {import("./types.js").Probe} probe @param {Model} model @param {boolean} on  a probe in small: deep units left, shallow right */
function drawStrip(canvas, probe, model, on) {
  const g = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  g.clearRect(0, 0, canvas.width, canvas.height);
  const top = on ? probe.of[`top${model.task}`] : probe.brief?.top;
  const why = on ? probe.of[`why${model.task}`] : null;
  const p = on ? probe.of[`p${model.task}`] : probe.brief?.p;
  const depth = /** @type {Float32Array|undefined} */ (probe.of.depth_um);
  if (!depth) return;
  let [low, high] = [Infinity, -Infinity];
  for (const um of depth) if (um === um) [low, high] = [Math.min(low, um), Math.max(high, um)];
  const shank = /** @type {Int32Array|undefined} */ (probe.of.shank);
  const names = [...new Set(shank ?? [])].sort((a, b) => a - b);
  for (let k = 0; k < depth.length; k++) {
    if (Number.isNaN(depth[k])) continue;
    const called = top && p && (why ? why[k] === 0 : p[k] > 0);
    g.fillStyle = called ? colour(top[k]) : inks().edge;
    g.globalAlpha = called ? 0.9 : 0.35;
    const lane = names.length > 1 && shank ? names.indexOf(shank[k]) / names.length : ((k * 7) % 11) / 11;
    g.fillRect(((depth[k] - low) / Math.max(high - low, 1)) * (canvas.width - 2), 2 + lane * (canvas.height - 6), 2, 3);
  }
  g.globalAlpha = 1;
}

/** @param {HTMLElement} root @param {Model} model @param {boolean} open */
export function drawAlerts(root, model, open) {
  const alerts = open ? model.alerts : [{ level: "error", stream: "", text: "The page's server does not answer", detail: "What is shown is from before. Is nuclr-stream dashboard still running? It is tried again every second." }];
  const key = JSON.stringify(alerts);
  if (root.dataset.key === key) return;
  root.dataset.key = key;
  root.replaceChildren(...alerts.map((one) => make("p", { class: `alert ${one.level}` }, [make("strong", { text: one.text }), " ", make("span", { text: one.detail })])));
}

/** @param {HTMLElement} root @param {Model} model @param {(name: string) => void} filter */
export function drawLegend(root, model, filter) {
  const probe = model.probe;
  const task = probe?.tasks[model.task];
  if (!probe || !task) {
    root.dataset.key = "";
    return root.replaceChildren(...(probe ? [make("span", { class: "legend-title", text: "Predictions come with the first complete window." })] : []));
  }
  const [top, why] = [probe.of[`top${model.task}`] ?? [], probe.of[`why${model.task}`] ?? []];
  const counts = task.classes.map(() => 0);
  const causes = new Map();
  for (let k = 0; k < why.length; k++) {
    if (why[k] === 0) counts[top[k]] += 1;
    else causes.set(why[k], (causes.get(why[k]) ?? 0) + 1);
  }
  const key = [task.name, counts, [...causes].flat(), document.documentElement.dataset.theme].join();
  if (root.dataset.key === key) return;
  root.dataset.key = key;
  const total = why.length || 1;
  const undecided = [...causes].sort(([a], [b]) => a - b);
  root.replaceChildren(
    make("span", { class: "legend-title", text: `${task.name.replace(/_/g, " ")}, called` }),
    ...task.classes.map((name, c) => make("button", { type: "button", title: `Show only ${name}`, onclick: () => filter(name) }, [swatch(colour(c), edge(c)), make("span", { text: name }), make("b", { text: counts[c].toLocaleString("en") })])),
    make("span", { class: "legend-title", text: "not called" }),
    ...undecided.map(([cause, n]) => make("span", { class: "cause" }, [swatch("transparent", inks().edge, cause === 3 ? "cross" : cause === 1 ? "dot" : "ring"), make("span", { text: model.words.why[String(cause)] ?? "undecided" }), make("b", { text: n.toLocaleString("en") })])),
    ...(undecided.length ? [] : [make("span", { class: "cause", text: "none" })]),
    make("span", { class: "legend-total", text: `${total.toLocaleString("en")} units` }),
  );
}

/** @param {HTMLElement} root @param {string[]} texts */
export function drawBorders(root, texts) {
  const key = texts.join("\n");
  if (root.dataset.key === key) return;
  root.dataset.key = key;
  root.replaceChildren(...texts.map((text) => make("li", { text })));
}
