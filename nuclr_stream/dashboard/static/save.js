// The table as it is shown, as a CSV file of the viewer's own machine.

import { rowOf } from "./rows.js";

/** @param {import("./model.js").Model} model @param {import("./rows.js").Rows} rows @returns {string} */
export function tableText(model, rows) {
  const probe = model.probe;
  if (!probe) return "";
  const names = probe.tasks.flatMap(({ name }) => [`${name}_predicted`, `${name}_probability`, `${name}_why`]);
  const lines = [["stream", "time_s", "unit_id", "shank", "depth_um", "rate_hz", "windows", "exposure", "ood_score", ...names]];
  for (const k of rows.order) {
    const row = rowOf(probe, k);
    lines.push([
      probe.stream,
      (probe.summary.time_s ?? NaN).toFixed(3),
      row.id,
      row.shank < 0 ? "" : String(row.shank),
      known(row.depth, 1),
      known(row.rate, 2),
      String(row.windows),
      row.exposure.toFixed(2),
      row.score.toFixed(3),
      ...row.tasks.flatMap((one) => [one.why === 1 ? "" : one.top, one.why === 1 ? "" : one.p.toFixed(3), one.why ? model.words.why[String(one.why)] : ""]),
    ]);
  }
  return `${lines.map((line) => line.map(quoted).join(",")).join("\n")}\n`;
}

/** @param {import("./model.js").Model} model @param {import("./rows.js").Rows} rows */
export function saveTable(model, rows) {
  const text = tableText(model, rows);
  if (!text) return;
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = `${model.watched.replace(/[^\w.-]+/g, "_")}_${Math.round(model.probe?.summary.time_s ?? 0)}s.csv`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

/** @param {number} value @param {number} digits */
const known = (value, digits) => (Number.isNaN(value) ? "" : value.toFixed(digits));
/** @param {string} text  a cell that begins like a formula would be run by a spreadsheet */
const quoted = (text) => {
  const safe = /^[=+@\t]|^-[^\d.]/.test(text) ? `'${text}` : text;
  return /[",\n]/.test(safe) ? `"${safe.replace(/"/g, '""')}"` : safe;
};
