// The units of the probe that is watched as rows: filtered and sorted for the table, the same selection for every panel.

import { parse } from "./filter.js";

/** @typedef {import("./filter.js").Row} Row */
/** @typedef {import("./types.js").Probe} Probe */

/** Bits of `flags` that say "out of distribution", as the server names them. */
export const bits = { ood: 0 };

/** @param {Probe} probe @param {number} k @returns {Row} */
export function rowOf(probe, k) {
  const of = probe.of;
  return {
    id: probe.unitIds[k],
    depth: of.depth_um?.[k] ?? NaN,
    x: of.x_um?.[k] ?? NaN,
    shank: of.shank?.[k] ?? -1,
    rate: of.rate?.[k] ?? NaN,
    windows: of.windows?.[k] ?? 0,
    exposure: of.exposure?.[k] ?? 0,
    score: of.ood?.[k] ?? 0,
    ood: ((of.flags?.[k] ?? 0) & bits.ood) !== 0,
    tasks: probe.tasks.map((task, t) => ({
      name: task.name,
      top: task.classes[of[`top${t}`]?.[k] ?? 0] ?? "",
      p: (of[`p${t}`]?.[k] ?? 0) / 255,
      why: of[`why${t}`]?.[k] ?? 1,
      stable: of[`stable${t}`]?.[k] ?? NaN,
      doubt: (of[`doubt${t}`]?.[k] ?? 255) / 255,
    })),
  };
}

/** Columns that change only with the layout: an order by them holds from frame to frame. */
const STILL = ["id", "depth", "shank", "x"];
/** @type {Object<string, string>} */
const ARRAYS = { depth: "depth_um", x: "x_um", score: "ood" };

export class Rows {
  constructor() {
    this.filter = "";
    this.sort = "depth";
    this.descending = true;
    this.error = "";
    /** @type {number[]} numbers of the units that are shown, in order */
    this.order = [];
    this.total = 0;
    this.key = "";
  }

  /** @param {Probe|undefined} probe @param {number} task the one that is shown */
  refresh(probe, task) {
    if (!probe) {
      this.order = [];
      this.total = 0;
      this.key = "";
      return;
    }
    this.total = probe.unitIds.length;
    // every frame asks for this, ten times a second: nothing is done again that cannot have changed
    const moves = this.filter !== "" || !STILL.includes(this.sort);
    const key = [probe.stream, probe.layout, task, this.filter, this.sort, this.descending, probe.tasks.length, moves ? probe.version : 0].join("|");
    if (key === this.key) return;
    this.key = key;
    const { test, error } = parse(this.filter, probe.tasks, task);
    this.error = error;
    const all = Array.from({ length: this.total }, (_, k) => k);
    this.order = this.filter && !error ? all.filter((k) => test(rowOf(probe, k))) : all;
    this.sortBy(probe, task);
  }

  /** @param {Probe} probe @param {number} task */
  sortBy(probe, task) {
    const sign = this.descending ? -1 : 1;
    const { sort } = this;
    if (sort === "id") {
      const ids = probe.unitIds;
      this.order.sort((a, b) => sign * COLLATOR.compare(ids[a], ids[b]));
      return;
    }
    const keys = Float64Array.from({ length: this.total }, (_, k) => this.number(probe, k, task));
    // what is unknown comes last, whichever way; ties stay in the order of rows
    this.order.sort((a, b) => {
      const [x, y] = [keys[a], keys[b]];
      if (x !== x || y !== y) return Number(x !== x) - Number(y !== y) || a - b;
      return sign * (x - y) || a - b;
    });
  }

  /** @param {Probe} probe @param {number} k @param {number} task @returns {number} what unit k is sorted by */
  number(probe, k, task) {
    const { of } = probe;
    if (this.sort.startsWith("task")) {
      const t = this.sort.slice(4);
      // classes one after the other, the surest first when descending; units that are not called come last
      return of[`why${t}`]?.[k] === 0 ? of[`p${t}`][k] - 256 * of[`top${t}`][k] : NaN;
    }
    if (this.sort === "stable" || this.sort === "doubt") return of[`${this.sort}${task}`]?.[k] ?? NaN;
    const value = of[ARRAYS[this.sort] ?? this.sort]?.[k] ?? NaN;
    return this.sort === "shank" && value < 0 ? NaN : value;
  }
}

const COLLATOR = new Intl.Collator(undefined, { numeric: true });
