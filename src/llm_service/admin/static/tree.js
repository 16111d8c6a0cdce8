// JSON as a tree that opens and closes, made of the server's own lines: nothing is parsed and printed again, so every
// number is spelled as it was. The text comes with one value or bracket in each line.

import { recall, remember } from "./prefs.js";

const MOST_NODES = 2000;
const ALL_OPEN = 200;
const LINE = /^ *("(?:[^"\\]|\\.)*": )?(.*?),?$/;
const CLOSING = { "{": "}", "[": "]" };
const UNITS = { "{": ["key", "keys"], "[": ["item", "items"] };

const make = (tag, className, text = "") => Object.assign(document.createElement(tag), { className, textContent: text });

/** Give each payload within `root` that is shown whole, and is not too large, a tree and a switch between both. */
export function growTrees(root = document) {
  for (const text of root.querySelectorAll(".payload[data-whole]")) {
    const card = text.closest(".card");
    if (card.querySelector(".tree")) continue;
    const tree = treeOf(text.textContent);
    if (!tree) continue;
    text.before(tree);
    card.querySelector(".card-tools").prepend(switchOf(card));
  }
}

/** Null where there are too many nodes, or nothing to open. */
export function treeOf(text) {
  const lines = text.split("\n").map((line) => LINE.exec(line).slice(1));
  const count = lines.filter(([, value]) => value !== "}" && value !== "]").length;
  if (count > MOST_NODES || count === 1) return null;
  const tree = make("div", "tree code");
  tree.dataset.made = "";
  const levels = [];
  let place = tree;
  for (const [key, value] of lines) {
    if (CLOSING[value]) {
      const branch = branchOf(key, value, count <= ALL_OPEN || levels.length === 0);
      place.append(levels.length ? inItem(branch.details) : branch.details);
      levels.push({ ...branch, place });
      place = branch.list;
    } else if (levels.at(-1) && value === CLOSING[levels.at(-1).bracket]) {
      const closed = levels.pop();
      close(closed);
      place = closed.place;
    } else place.append(inItem(keyOf(key), valueOf(value)));
  }
  return tree;
}

function branchOf(key, bracket, isOpen) {
  const details = Object.assign(document.createElement("details"), { open: isOpen });
  const summary = document.createElement("summary");
  const size = make("span", "tree-size");
  summary.append(keyOf(key), bracket, size);
  const list = document.createElement("ul");
  details.append(summary, list);
  return { details, list, size, bracket };
}

function close({ details, list, size, bracket }) {
  const count = list.children.length;
  if (count === 0) {
    const key = details.querySelector(".tree-key");
    details.replaceWith(key ?? "", valueOf(`${bracket}${CLOSING[bracket]}`));
    return;
  }
  size.textContent = ` ${count.toLocaleString("en")} ${UNITS[bracket][count === 1 ? 0 : 1]} ${CLOSING[bracket]}`;
}

function inItem(...parts) {
  const item = document.createElement("li");
  item.append(...parts);
  return item;
}

const keyOf = (key) => (key ? make("bdi", "tree-key", key) : "");
const valueOf = (value) => make("bdi", value.startsWith('"') ? "tree-text" : "tree-plain", value);

function switchOf(card) {
  const group = make("span", "choice");
  group.dataset.made = "";
  group.setAttribute("role", "group");
  group.setAttribute("aria-label", `Show the ${card.dataset.live} as`);
  const buttons = ["tree", "text"].map((kind) => {
    const button = make("button", "", kind === "tree" ? "Tree" : "Text");
    button.type = "button";
    button.addEventListener("click", () => {
      remember("payload", kind);
      show(kind);
    });
    return [kind, button];
  });
  function show(kind) {
    card.dataset.shows = kind;
    for (const [other, button] of buttons) button.setAttribute("aria-pressed", String(kind === other));
  }
  group.append(...buttons.map(([, button]) => button));
  show(recall("payload", "tree") === "text" ? "text" : "tree");
  return group;
}
