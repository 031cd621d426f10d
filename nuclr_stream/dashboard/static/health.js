// How the stream and the daemon are doing: each figure with its limit, each loss with its cause.

import { duration, make, number } from "./dom.js";
import { planWords } from "./regions.js";

/** @typedef {import("./model.js").Model} Model */

/** @typedef {{name: string, value: string, bad?: boolean, cause?: string}} Figure */

/** @param {Model} model @param {{received: number, drawn: number, skipped: number, drawMs: number, kbps: number}} page @returns {Figure[]} */
function figures(model, page) {
  const probe = model.probe;
  /** @type {Figure[]} */
  const found = [];
  if (probe) {
    const { summary } = probe;
    const hop = summary.hop_s ?? 1;
    const latency = summary.latency_ms;
    if (latency) {
      const late = latency.p99 > hop * 1000;
      found.push({ name: "window closed to predictions", value: `p50 ${ms(latency.p50)}, p95 ${ms(latency.p95)}, p99 ${ms(latency.p99)} (limit ${ms(hop * 1000)})`, bad: late, cause: late ? "slower than a hop: windows are skipped; use fewer units, a longer hop or a faster machine" : "" });
    }
    if (summary.step !== undefined) {
      const age = (performance.now() - probe.at) / 1000;
      const old = age > 3 * hop + 1 && summary.state !== "ended";
      found.push({ name: "age of the newest predictions", value: `${age.toFixed(1)} s (limit ${number(3 * hop + 1)} s)`, bad: old, cause: old ? "no new window: do spikes still arrive?" : "" });
      const missing = summary.missing ?? 0;
      found.push({ name: "window filled", value: `${Math.round((1 - missing) * 100)} %`, bad: missing > 0.05, cause: missing > 0.05 ? "data are missing in it: see losses" : "" });
      found.push({ name: "units in the encoder", value: `${summary.active_units} of ${summary.units}` });
      found.push({ name: "class changes in the last step", value: probe.tasks.map((task, t) => `${task.name.replace(/_/g, " ")} ${summary.flips?.[t] ?? 0}`).join(", ") });
      found.push(...planWords(probe));
    } else found.push({ name: "first window", value: `${Math.round((summary.progress ?? 0) * 100)} % filled` });
    const skipped = summary.skipped_steps ?? 0;
    found.push({ name: "windows skipped", value: number(skipped), bad: skipped > 0, cause: skipped ? "a newer one came before they were embedded: the machine is too slow" : "" });
  }
  const { daemon } = model;
  if (daemon.bundle) found.push({ name: "bundle", value: daemon.bundle }, { name: "runs on", value: `${daemon.provider}${daemon.status?.threads ? `, ${daemon.status.threads} threads` : ""}`, bad: Boolean(daemon.status?.provider_note), cause: daemon.status?.provider_note });
  if (daemon.uptime_s) found.push({ name: "daemon up for", value: duration(daemon.uptime_s) });
  found.push({ name: "this page", value: `${number(page.received)} frames, ${number(page.drawn)} drawn, ${number(page.skipped)} overtaken, ${page.drawMs.toFixed(1)} ms a drawing, ${number(page.kbps)} kB/s` });
  return found;
}

/** @param {Model} model @returns {Figure[]} */
function losses(model) {
  /** @type {Object<string, number>} */
  const counters = { ...(model.daemon.counters ?? {}), ...(model.probe?.summary.counters ?? {}) };
  if (model.daemon.lost) counters.lost_by_page = model.daemon.lost;
  return Object.entries(counters)
    .filter(([name, count]) => count && !model.noLoss.includes(name))
    .sort(([, a], [, b]) => b - a)
    .map(([name, count]) => ({ name: model.words.losses[name] ?? model.words.reasons[name] ?? name.replace(/_/g, " "), value: number(count), bad: true }));
}

/** @param {HTMLElement} root @param {Model} model @param {{received: number, drawn: number, skipped: number, drawMs: number, kbps: number}} page */
export function drawHealth(root, model, page) {
  const lost = losses(model);
  const rows = (/** @type {Figure[]} */ list) => list.flatMap((one) => [make("dt", { text: one.name }), make("dd", { class: one.bad ? "bad" : "" }, [one.value, ...(one.cause ? [make("small", { text: one.cause })] : [])])]);
  root.replaceChildren(
    make("dl", {}, rows(figures(model, page))),
    make("h3", { text: "Losses" }),
    lost.length ? make("dl", { class: "losses" }, rows(lost)) : make("p", { class: "good", text: "Nothing was lost." }),
  );
}

/** @param {HTMLElement} root @param {import("./types.js").Happening[]} events */
export function drawEvents(root, events) {
  const key = `${events.length} ${events[0]?.number} ${events[0]?.unix_s}`;
  if (root.dataset.key === key) return;
  root.dataset.key = key;
  if (!events.length) return root.replaceChildren(make("li", { class: "nothing", text: "Nothing yet." }));
  root.replaceChildren(
    ...events.map((one) => {
      const time = new Date(one.unix_s * 1000);
      return make("li", { class: one.kind === "note" ? "is-note" : "" }, [
        make("time", { datetime: time.toISOString(), text: time.toLocaleTimeString("en-GB") }),
        make("span", { class: "what", text: `${one.stream ? `${one.stream}: ` : ""}${one.kind.replace(/_/g, " ")}` }),
        make("span", { text: one.detail }),
        ...(one.sample_s !== null ? [make("span", { class: "note", text: `at ${one.sample_s.toFixed(1)} s` })] : []),
      ]);
    }),
  );
}

/** @param {number} value */
const ms = (value) => (value >= 1000 ? `${(value / 1000).toFixed(1)} s` : `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`);
