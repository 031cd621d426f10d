// Filter expressions of the unit table.
//
//   PV p>0.8          units called PV with a probability above .8 (a space means "and")
//   PV | SST          either; binds weaker than "and"
//   !abstained        not
//   region=CTX        by the name of a task, or the end of it; = and != know names, < <= > >= = != numbers
//   depth>1200 rate<5 shank=2 windows>=30 ood p stable doubt id=u12
//   12                no word of ours: ids that contain it

/**
 * @typedef {Object} Row What a filter can ask of a unit.
 * @property {string} id
 * @property {number} depth
 * @property {number} x
 * @property {number} shank
 * @property {number} rate
 * @property {number} windows
 * @property {number} exposure
 * @property {number} score
 * @property {boolean} ood
 * @property {{name: string, top: string, p: number, why: number, stable: number, doubt: number}[]} tasks
 */

/** @typedef {(row: Row) => boolean} Test */

const NUMBERS = ["depth", "x", "shank", "rate", "windows", "exposure", "score"];
const OF_TASK = ["p", "stable", "doubt"];
const TERM = /^([\w-]+)\s*(<=|>=|!=|=|<|>)\s*(.+)$/;

/**
 * @param {string} text the expression
 * @param {{name: string, classes: string[]}[]} tasks
 * @param {number} shown the task that is shown: `p`, `stable` and `doubt` are of it
 * @returns {{test: Test, error: string}} what units must pass; with an error all do
 */
export function parse(text, tasks, shown) {
  try {
    const spaced = text.replace(/\s*(<=|>=|!=|=|<|>)\s*/g, "$1").replace(/\|/g, " | ").replace(/[&,]/g, " ");
    const ways = spaced.split("|").map((way) => way.trim().split(/\s+/).filter(Boolean));
    if (ways.length > 1 && ways.some((way) => way.length === 0)) throw new Error("| needs something on both sides");
    const tests = ways.map((way) => way.map((term) => parseTerm(term, tasks, shown)));
    return { test: (row) => tests.some((way) => way.every((test) => test(row))), error: "" };
  } catch (error) {
    return { test: () => true, error: error instanceof Error ? error.message : String(error) };
  }
}

/** @param {string} term @param {{name: string, classes: string[]}[]} tasks @param {number} shown @returns {Test} */
function parseTerm(term, tasks, shown) {
  if (term.startsWith("!") && term.length > 1) {
    const inner = parseTerm(term.slice(1), tasks, shown);
    return (row) => !inner(row);
  }
  const found = TERM.exec(term);
  return found ? compared(found[1], found[2], found[3], tasks, shown) : word(term, tasks);
}

/** @param {string} name @param {string} sign @param {string} value @param {{name: string, classes: string[]}[]} tasks @param {number} shown @returns {Test} */
function compared(name, sign, value, tasks, shown) {
  if (name === "id") return equal(sign, value, (row) => row.id);
  const task = tasks.findIndex((one) => one.name === name || one.name.split("_").includes(name));
  if (task >= 0) {
    if (!tasks[task].classes.includes(value)) throw new Error(`${name} is one of ${tasks[task].classes.join(", ")}`);
    // a class that is abstained from is no call
    return equal(sign, value, (row) => (row.tasks[task]?.why === 0 ? row.tasks[task].top : ""));
  }
  const number = Number(value);
  if (!NUMBERS.includes(name) && !OF_TASK.includes(name)) throw new Error(`no column ${name}: use ${[...NUMBERS, ...OF_TASK, "id"].join(", ")}`);
  if (Number.isNaN(number)) throw new Error(`${name}${sign}${value}: give a number`);
  /** @param {Row} row @returns {number} */
  const of = (row) => (OF_TASK.includes(name) ? /** @type {any} */ (row.tasks[shown] ?? {})[name] : /** @type {any} */ (row)[name]);
  switch (sign) {
    case "<": return (row) => of(row) < number;
    case "<=": return (row) => of(row) <= number;
    case ">": return (row) => of(row) > number;
    case ">=": return (row) => of(row) >= number;
    case "!=": return (row) => of(row) !== number;
    default: return (row) => of(row) === number;
  }
}

/** @param {string} sign @param {string} value @param {(row: Row) => string} of @returns {Test} */
function equal(sign, value, of) {
  if (sign === "=") return (row) => of(row) === value;
  if (sign === "!=") return (row) => of(row) !== value;
  throw new Error(`names know = and != only, not ${sign}`);
}

/** @param {string} text @param {{name: string, classes: string[]}[]} tasks @returns {Test} */
function word(text, tasks) {
  if (text === "ood") return (row) => row.ood;
  if (text === "abstained") return (row) => row.tasks.every((task) => task.why !== 0);
  if (text === "called") return (row) => row.tasks.some((task) => task.why === 0);
  const task = tasks.findIndex((one) => one.classes.includes(text));
  if (task >= 0) return (row) => row.tasks[task]?.why === 0 && row.tasks[task].top === text;
  const lower = text.toLowerCase();
  return (row) => row.id.toLowerCase().includes(lower);
}
