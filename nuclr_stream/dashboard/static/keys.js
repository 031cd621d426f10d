// Everything that the page does, by key: one list for what happens and for what the help says.

import { make } from "./dom.js";

/** @typedef {{keys: string[], text: string, run: () => void}} Key */

/** @param {Key[]} keys */
export function listen(keys) {
  document.addEventListener("keydown", (event) => {
    const target = /** @type {HTMLElement} */ (event.target);
    const typing = target instanceof HTMLInputElement || target instanceof HTMLTextAreaElement;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (typing) {
      if (event.key === "Escape" && target.id === "filter") target.blur();
      return;
    }
    if (document.querySelector("dialog[open]")) return;
    // a button that has the focus keeps its own keys
    if (target instanceof HTMLButtonElement && (event.key === " " || event.key === "Enter")) return;
    const found = keys.find((one) => one.keys.includes(event.key));
    if (!found) return;
    event.preventDefault();
    found.run();
  });
}

/** @param {HTMLDialogElement} dialog @param {Key[]} keys @param {string} version */
export function showHelp(dialog, keys, version) {
  const name = (/** @type {string} */ key) => ({ " ": "space", ArrowDown: "↓", ArrowUp: "↑", ArrowLeft: "←", ArrowRight: "→", Escape: "esc" })[key] ?? key;
  dialog.replaceChildren(
    make("h2", { id: "keys-title", text: "Keys" }),
    make("table", {}, [
      make("tbody", {}, keys.map((one) => make("tr", {}, [make("th", { scope: "row" }, one.keys.flatMap((key) => [make("kbd", { text: name(key) }), " "])), make("td", { text: one.text })]))),
    ]),
    make("h2", { text: "Filter" }),
    make("p", { text: "PV p>0.8 — a space means and, | means or, ! means not. Columns: id depth x shank rate windows exposure score p stable doubt, and tasks by name, as region=CTX. Words: a class, ood, called, abstained; any other word is part of an id." }),
    make("p", { class: "note", text: `Disc: a call, the more opaque the more probable. Grey ring: undecided. Cross: unlike the units of training. Dot: no data yet. Everything shown is predicted. ${version}` }),
    make("form", { method: "dialog" }, [make("menu", {}, [make("button", { text: "Close", autofocus: true })])]),
  );
  dialog.showModal();
}
