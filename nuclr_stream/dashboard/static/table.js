// The table of units. Only the rows in sight exist: a page of 8,000 rows would take seconds, forty take none.

import { duration, make, number, p, setText } from "./dom.js";
import { colour, edge, inks } from "./palette.js";
import { rowOf } from "./rows.js";

/** @typedef {import("./types.js").Probe} Probe */
/** @typedef {import("./rows.js").Rows} Rows */

const ROW = 24;

/** @typedef {{key: string, title: string, hint: string, align?: string}} Column */

/** @param {Probe|undefined} probe @returns {Column[]} */
function columnsOf(probe) {
  const none = [{ name: "prediction", classes: [] }]; // before the first window
  const tasks = (probe?.tasks.length ? probe.tasks : none).map((task, t) => ({ key: `task${t}`, title: task.name.replace(/_/g, " "), hint: "Most probable class and its calibrated probability; grey where undecided" }));
  return [
    { key: "id", title: "unit", hint: "Unit id" },
    { key: "shank", title: "sh", hint: "Shank, as the source names it", align: "right" },
    { key: "depth", title: "µm", hint: "Depth from the tip", align: "right" },
    { key: "rate", title: "Hz", hint: "Spikes a second in the last window", align: "right" },
    { key: "windows", title: "win", hint: "Windows behind the prediction", align: "right" },
    ...tasks,
    { key: "doubt", title: "doubt", hint: "Entropy of the task that is shown, 1 for no idea", align: "right" },
    { key: "stable", title: "stable", hint: "Time since which the class is the same, of the task that is shown", align: "right" },
    { key: "score", title: "ood", hint: "Distance from the units of training; above 1 out of distribution", align: "right" },
  ];
}

export class Table {
  /**
   * @param {HTMLElement} root
   * @param {Rows} rows
   * @param {(k: number) => void} choose called with the row of the unit that is clicked
   * @param {() => void} changed called when the order is another
   */
  constructor(root, rows, choose, changed) {
    this.root = root;
    this.rows = rows;
    this.changed = changed;
    this.head = make("div", { class: "row head", role: "row" });
    this.body = make("div", { class: "rows", role: "rowgroup" });
    this.space = make("div", { class: "space", role: "presentation" });
    this.body.append(this.space);
    root.append(make("div", { role: "rowgroup" }, [this.head]), this.body);
    /** @type {HTMLElement[]} */
    this.pool = [];
    this.columns = "";
    this.seen = "";
    this.body.addEventListener("scroll", () => this.paint());
    this.body.addEventListener("click", (event) => {
      const row = /** @type {HTMLElement} */ (event.target).closest(".row");
      if (row instanceof HTMLElement && row.dataset.k) choose(Number(row.dataset.k));
    });
    /** @type {{probe: Probe|undefined, task: number, selected: number}} */
    this.view = { probe: undefined, task: 0, selected: -1 };
  }

  /** @param {Probe|undefined} probe @param {number} task @param {number} selected */
  draw(probe, task, selected) {
    this.view = { probe, task, selected };
    this.drawHead(probe);
    this.paint();
  }

  /** @param {Probe|undefined} probe */
  drawHead(probe) {
    const columns = columnsOf(probe);
    const key = JSON.stringify([columns.map((one) => one.key + one.title), this.rows.sort, this.rows.descending]);
    if (key === this.columns) return;
    this.columns = key;
    this.root.setAttribute("aria-colcount", String(columns.length));
    this.root.style.setProperty("--tasks", String(probe?.tasks.length || 1));
    this.pool = [];
    this.body.replaceChildren(this.space);
    this.head.replaceChildren(
      ...columns.map((column) => {
        const on = this.rows.sort === column.key;
        const sorted = on ? (this.rows.descending ? "descending" : "ascending") : "none";
        const button = make("button", { type: "button", title: column.hint, text: column.title + (on ? (this.rows.descending ? " ▾" : " ▴") : ""), onclick: () => this.sortBy(column.key) });
        return make("div", { class: `cell ${column.key.startsWith("task") ? "task" : column.key} ${column.align ?? ""}`, role: "columnheader", "aria-sort": sorted }, [button]);
      }),
    );
  }

  /** @param {string} key */
  sortBy(key) {
    this.rows.descending = this.rows.sort === key ? !this.rows.descending : key !== "id";
    this.rows.sort = key;
    this.changed();
  }

  /** Write the rows in sight. */
  paint() {
    const { probe, task, selected } = this.view;
    const order = this.rows.order;
    this.root.setAttribute("aria-rowcount", String(order.length + 1));
    this.space.style.height = `${order.length * ROW}px`;
    const first = Math.max(0, Math.floor(this.body.scrollTop / ROW) - 2);
    const count = Math.min(order.length - first, Math.ceil(this.body.clientHeight / ROW) + 4);
    while (this.pool.length < count) {
      const row = make("div", { class: "row", role: "row" }, columnsOf(probe).map((column) => make("div", { class: `cell ${column.key.startsWith("task") ? "task" : column.key} ${column.align ?? ""}`, role: "gridcell" })));
      this.pool.push(row);
      this.body.append(row);
    }
    let active = "";
    this.pool.forEach((element, n) => {
      element.hidden = n >= count || !probe;
      if (element.hidden || !probe) return;
      const k = order[first + n];
      element.style.transform = `translateY(${(first + n) * ROW}px)`;
      element.dataset.k = String(k);
      element.id = `row-${k}`;
      element.setAttribute("aria-rowindex", String(first + n + 2));
      element.setAttribute("aria-selected", String(k === selected));
      if (k === selected) active = element.id;
      this.write(element, probe, k, task);
    });
    if (active) this.root.setAttribute("aria-activedescendant", active);
    else this.root.removeAttribute("aria-activedescendant");
  }

  /** @param {HTMLElement} element @param {Probe} probe @param {number} k @param {number} task */
  write(element, probe, k, task) {
    const row = rowOf(probe, k);
    const cells = /** @type {HTMLElement[]} */ ([...element.children]);
    const shown = row.tasks[task];
    let c = 0;
    setText(cells[c++], row.id);
    setText(cells[c++], row.shank < 0 ? "–" : String(row.shank));
    setText(cells[c++], number(row.depth));
    setText(cells[c++], number(row.rate, 1));
    setText(cells[c++], String(row.windows));
    row.tasks.forEach((one, t) => call(cells[c++], one, probe.tasks[t].classes.indexOf(one.top), row.ood));
    if (!row.tasks.length) setText(cells[c++], "–");
    setText(cells[c++], shown && shown.why !== 1 ? p(shown.doubt) : "–");
    setText(cells[c++], duration(shown?.stable ?? NaN));
    setText(cells[c], row.score ? row.score.toFixed(1) : "–");
    cells[c].classList.toggle("far", row.ood);
  }

  /** @param {number} k  scroll so that unit k can be seen */
  reveal(k) {
    const place = this.rows.order.indexOf(k);
    if (place < 0) return;
    const [top, height] = [this.body.scrollTop, this.body.clientHeight];
    if (place * ROW < top) this.body.scrollTop = place * ROW;
    else if ((place + 1) * ROW > top + height) this.body.scrollTop = (place + 1) * ROW - height;
  }
}

/** @param {HTMLElement} cell @param {{top: string, p: number, why: number}} one @param {number} place of the class @param {boolean} ood */
function call(cell, one, place, ood) {
  const key = `${one.top} ${one.p.toFixed(2)} ${one.why} ${ood} ${document.documentElement.dataset.theme}`;
  if (cell.dataset.key === key) return;
  cell.dataset.key = key;
  if (!cell.firstChild) {
    cell.append(make("span", { class: "swatch", "aria-hidden": "true" }), make("span", { class: "name" }), make("span", { class: "bar" }, [make("i")]), make("span", { class: "p" }));
  }
  const [mark, name, bar, value] = /** @type {HTMLElement[]} */ ([...cell.children]);
  const called = one.why === 0;
  mark.className = `swatch ${called ? "" : one.why === 3 ? "cross" : "ring"}`;
  mark.style.backgroundColor = called ? colour(place) : "";
  mark.style.borderColor = called ? edge(place) : inks().edge;
  cell.classList.toggle("undecided", !called);
  name.textContent = called ? one.top : one.why === 1 ? "no data" : `${one.top}?`;
  cell.title = called ? "" : SHORT[one.why] ?? "undecided";
  /** @type {HTMLElement} */ (bar.firstChild).style.width = `${Math.round(one.p * 100)}%`;
  /** @type {HTMLElement} */ (bar.firstChild).style.backgroundColor = called ? colour(place) : inks().edge;
  value.textContent = one.why === 1 ? "" : p(one.p);
}

/** @type {Object<number, string>} */
const SHORT = { 1: "nothing has been gathered yet", 2: "undecided: no class is probable enough", 3: "unlike the units of training", 4: "too few active units", 5: "the model gave no number" };
