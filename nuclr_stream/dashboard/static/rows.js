// The units of the probe that is watched as rows: filtered and sorted for the table, the same selection for every panel.

import { parse } from "./filter.js";

/** @typedef {import("./filter.js").Row} Row */
/** @typedef {import("./types.js").Probe} Probe */

export const OOD_FLAGS = 8 | 16 | 32 | 64;

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
    ood: ((of.flags?.[k] ?? 0) & OOD_FLAGS) !== 0,
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

export class Rows {
  constructor() {
    this.filter = "";
    this.sort = "depth";
    this.descending = true;
    this.error = "";
    /** @type {number[]} numbers of the units that are shown, in order */
    this.order = [];
    this.total = 0;
  }

  /** @param {Probe|undefined} probe @param {number} task the one that is shown */
  refresh(probe, task) {
    if (!probe) {
      this.order = [];
      this.total = 0;
      return;
    }
    const { test, error } = parse(this.filter, probe.tasks, task);
    this.error = error;
    this.total = probe.unitIds.length;
    const rows = probe.unitIds.map((_, k) => rowOf(probe, k));
    const keys = rows.map((row) => this.key(row, task));
    const sign = this.descending ? -1 : 1;
    this.order = rows.map((_, k) => k).filter((k) => test(rows[k]));
    this.order.sort((a, b) => {
      const [x, y] = [keys[a], keys[b]];
      if (typeof x === "string" || typeof y === "string") return sign * String(x).localeCompare(String(y), undefined, { numeric: true });
      // what is unknown comes last, whichever way
      if (Number.isNaN(x) || Number.isNaN(y)) return Number(Number.isNaN(x)) - Number(Number.isNaN(y)) || a - b;
      return sign * (x - y) || a - b;
    });
  }

  /** @param {Row} row @param {number} task @returns {number|string} */
  key(row, task) {
    if (this.sort === "id") return row.id;
    if (this.sort.startsWith("task")) {
      // called units first, by class, then by probability
      const one = row.tasks[Number(this.sort.slice(4))];
      return one ? `${one.why ? "~" : one.top} ${String(Math.round(one.p * 255)).padStart(3, "0")}` : "";
    }
    if (this.sort === "stable") return row.tasks[task]?.stable ?? NaN;
    if (this.sort === "p") return row.tasks[task]?.p ?? NaN;
    return /** @type {any} */ (row)[this.sort];
  }
}
