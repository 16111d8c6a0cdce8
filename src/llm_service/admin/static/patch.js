// Puts what is new into the page and leaves the rest alone: what has focus keeps it, what is read stays where it is.

import { tell } from "./time.js";

const ENDED = new Set(["completed", "failed", "cancelled"]);

/** What the server said of an element: without what the passing of time changes, and what script has added. */
function essence(element) {
  const copy = element.cloneNode(true);
  for (const made of copy.querySelectorAll("[data-made]")) made.remove();
  for (const moving of copy.querySelectorAll("time, [data-since]")) {
    moving.textContent = "";
    moving.removeAttribute("title");
  }
  return copy.innerHTML;
}

/** Replace the parts named by `data-live` that differ. */
export function patchParts(fresh, root = document) {
  for (const part of root.querySelectorAll("[data-live]")) {
    const other = fresh.querySelector(`[data-live="${part.dataset.live}"]`);
    if (!other) continue;
    if (essence(part) !== essence(other)) replace(part, other);
  }
}

/**
 * Bring the children of `here` to those of `other`: parts come and go, those that differ are replaced, and the others
 * are not touched.
 */
export function patchChildren(here, other) {
  const name = (part) => part.dataset.live ?? part.className;
  const left = new Map([...here.children].map((part) => [name(part), part]));
  let before = here.firstElementChild;
  for (const part of other.children) {
    let placed = left.get(name(part));
    left.delete(name(part));
    if (!placed) {
      placed = document.importNode(part, true);
      here.insertBefore(placed, before);
      tell(placed);
    } else if (!part.dataset.live) patchChildren(placed, part);
    else if (essence(placed) !== essence(part)) placed = replace(placed, part);
    before = placed.nextElementSibling;
  }
  for (const gone of left.values()) gone.remove();
}

/** Replace an element: what was opened or ticked in it stays so, and the focus goes to what stands at the same place. */
export function replace(old, other) {
  const places = "a, button, input, select, summary, [tabindex]";
  const index = [...old.querySelectorAll(places)].indexOf(document.activeElement);
  const adopted = document.importNode(other, true);
  carry(old, adopted);
  old.replaceWith(adopted);
  tell(adopted);
  if (index >= 0) adopted.querySelectorAll(places)[index]?.focus({ preventScroll: true });
  return adopted;
}

function carry(old, fresh) {
  const name = (details) => details.querySelector("summary").textContent;
  const opened = new Set([...old.querySelectorAll("details[open]")].map(name));
  for (const details of fresh.querySelectorAll("details")) details.open ||= opened.has(name(details));
  const ticked = new Set([...old.querySelectorAll("input:checked")].map((box) => box.id || box.value));
  for (const box of fresh.querySelectorAll("input")) if (ticked.has(box.id || box.value)) box.checked = true;
}

const rowsOf = (root) => [...root.querySelectorAll("#jobs tbody tr")];

/**
 * Bring the table up to date. New rows are put in only where `mayInsert`; otherwise they are counted.
 * Where `isExact` the table has exactly the rows of the answer, else what was loaded further down stays.
 */
export function patchTable(fresh, { mayInsert, isExact }) {
  const table = document.getElementById("jobs");
  const other = fresh.getElementById("jobs");
  if (table.tagName !== "TABLE" || other.tagName !== "TABLE") {
    if (essence(table) !== essence(other)) replace(table, other);
    return 0;
  }
  const shown = new Map(rowsOf(document).map((row) => [row.id, row]));
  const incoming = rowsOf(fresh);
  const unknown = incoming.filter((row) => !shown.has(row.id));
  for (const row of incoming) {
    const old = shown.get(row.id);
    if (old && essence(old) !== essence(row)) renew(old, row);
  }
  drop(shown, incoming, isExact && (mayInsert || unknown.length === 0));
  if (!mayInsert) return unknown.length;
  const body = table.tBodies[0];
  let before = body.firstElementChild;
  for (const row of incoming) {
    if (before?.id === row.id) before = before.nextElementSibling;
    else {
      const known = document.getElementById(row.id);
      const placed = known ?? document.importNode(row, true);
      body.insertBefore(placed, before);
      if (!known) tell(placed);
    }
  }
  return 0;
}

function renew(old, row) {
  const hasEnded = old.dataset.state !== row.dataset.state && ENDED.has(row.dataset.state);
  const adopted = replace(old, row);
  if (hasEnded) adopted.classList.add("just-ended");
}

/** Take away what no longer matches: what stands above the last row of the answer and is not in it. */
function drop(shown, incoming, isExact) {
  const kept = new Set(incoming.map((row) => row.id));
  const order = [...shown.keys()];
  const last = incoming.map((row) => order.indexOf(row.id)).reduce((a, b) => Math.max(a, b), -1);
  order.forEach((id, index) => {
    if (!kept.has(id) && (isExact || index < last)) takeAway(shown.get(id));
  });
}

/** The focus of a row that goes is on the next one. */
function takeAway(row) {
  const next = row.contains(document.activeElement) && (row.nextElementSibling ?? row.previousElementSibling);
  row.remove();
  if (next) next.querySelector(".title").focus({ preventScroll: true });
}

/** Put the rows of the next page below the others. Returns how many came. */
export function appendRows(fresh) {
  const body = document.querySelector("#jobs tbody");
  const rows = rowsOf(fresh).filter((row) => !document.getElementById(row.id));
  for (const row of rows) body.append(document.importNode(row, true));
  tell(body);
  return rows.length;
}
