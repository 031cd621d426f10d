// Everything that the page knows, put together from frames. Nothing here draws.

import { bits } from "./rows.js";

/** @typedef {import("./types.js").Probe} Probe */
/** @typedef {import("./types.js").Words} Words */

/** @type {Words} */
const NO_WORDS = { why: {}, flags: {}, states: {}, reasons: {}, losses: {}, sets: {}, placement: {} };
const EVENTS = 300;

export class Model {
  constructor() {
    /** @type {Map<string, Probe>} */
    this.probes = new Map();
    this.words = NO_WORDS;
    /** @type {string[]} */
    this.noLoss = [];
    this.notes = false;
    this.connected = false;
    this.open = false; // the connection to the page's server
    this.source = "";
    this.watched = "";
    this.task = 0;
    /** @type {import("./types.js").Alert[]} */
    this.alerts = [];
    /** @type {import("./types.js").Happening[]} the newest first */
    this.events = [];
    /** @type {any} */
    this.daemon = {};
    /** @type {import("./types.js").UnitDetail|null} */
    this.unit = null;
    /** @type {string|null} */
    this.selected = null;
    this.answer = "";
    this.frame = 0;
    this.sentUnixS = 0;
  }

  /** @returns {boolean} whether the daemon is received now */
  get live() {
    return this.connected && this.open;
  }

  /** @returns {Probe|undefined} the probe that is watched */
  get probe() {
    return this.probes.get(this.watched);
  }

  /**
   * @param {any} header
   * @param {Object<string, any>} arrays
   */
  take(header, arrays) {
    if (header.kind === "hello") {
      this.words = header.words;
      this.noLoss = header.no_loss;
      this.notes = header.notes;
      bits.ood = header.ood_flags;
      this.events = [];
      this.probes.clear();
    } else if (header.kind === "frame") this.takeFrame(header, arrays);
    else if (header.kind === "layout") this.takeLayout(header, arrays);
    else if (header.kind === "activity") this.takeActivity(header, arrays);
    else if (header.kind === "placement") {
      const probe = this.probes.get(header.stream);
      if (probe) Object.assign(probe, { placement: header.placement, placed: probe.placed + 1 });
    } else if (header.kind === "daemon") this.daemon = header;
    else if (header.kind === "events") this.events = [...header.events.reverse(), ...this.events].slice(0, EVENTS);
    else if (header.kind === "unit" && header.unit_id === this.selected) this.unit = { ...header, arrays };
  }

  /** @param {any} header @param {Object<string, any>} arrays */
  takeLayout(header, arrays) {
    const old = this.probes.get(header.stream);
    const same = old && old.unitIds.length === header.unit_ids.length && old.unitIds.every((/** @type {string} */ id, /** @type {number} */ k) => id === header.unit_ids[k]);
    /** @type {Probe} */
    const probe = {
      stream: header.stream,
      summary: old ? old.summary : { stream: header.stream, place: 0, layout: header.layout, units: header.unit_ids.length },
      layout: header.layout,
      unitIds: header.unit_ids,
      tasks: header.tasks.length || !old ? header.tasks : old.tasks,
      of: same && old ? { ...old.of, ...arrays } : arrays,
      brief: null,
      activity: null,
      placement: old ? old.placement : {},
      placed: old ? old.placed : 0,
      version: old ? old.version + 1 : 0,
      at: old ? old.at : performance.now(),
    };
    if (same && old && old.activity) probe.activity = { ...old.activity, layout: header.layout };
    this.probes.set(header.stream, probe);
    this.probes = new Map([...this.probes].sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0)));
  }

  /** @param {any} header @param {Object<string, any>} arrays */
  takeFrame(header, arrays) {
    this.connected = header.connected;
    this.source = header.source;
    this.alerts = header.alerts;
    this.watched = header.watched;
    this.task = header.task;
    this.frame = header.n;
    this.sentUnixS = header.unix_s;
    if (header.answer) this.answer = header.answer;
    for (const stream of [...this.probes.keys()]) {
      if (!header.streams.includes(stream)) this.probes.delete(stream);
    }
    for (const summary of header.probes) {
      const probe = this.probes.get(summary.stream);
      if (!probe || probe.layout !== summary.layout) continue; // rows of another layout are other units
      if (summary.step !== probe.summary.step || summary.epoch !== /** @type {any} */ (probe.summary).epoch) probe.at = performance.now();
      probe.version += 1;
      const before = probe.summary;
      probe.summary = { ...summary };
      for (const kept of ["counters", "latency_ms"]) {
        if (!(kept in summary) && kept in before) /** @type {any} */ (probe.summary)[kept] = /** @type {any} */ (before)[kept];
      }
      const prefix = `${summary.place}.`;
      for (const name in arrays) {
        if (name.startsWith(prefix)) probe.of[name.slice(prefix.length)] = arrays[name];
      }
      if (summary.step === undefined) for (const name of Object.keys(probe.of)) if (!GEOMETRY.includes(name)) delete probe.of[name];
      probe.brief = probe.of.top ? { top: probe.of.top, p: probe.of.p, task: header.task } : null;
    }
  }

  /** @param {any} header @param {Object<string, any>} arrays */
  takeActivity(header, arrays) {
    const probe = this.probes.get(header.stream);
    if (!probe || probe.layout !== header.layout) return;
    probe.activity = { ...header, counts: arrays.counts, observed: arrays.observed };
    probe.of.rate = arrays.rate;
    probe.version += 1;
  }
}

const GEOMETRY = ["shank", "x_um", "depth_um", "channel", "contact_shank", "contact_x", "contact_depth"];
