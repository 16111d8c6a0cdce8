// Puts what is new into the page and leaves the rest alone: what has focus keeps it, what is read stays where it is.

import { tell } from "./time.js";

const ENDED = new Set(["completed", "failed", "cancelled"]);

/** What an element says, without what the passing of time alone changes. */
function essence(element) {
  const copy = element.cloneNode(true);
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

/** Replace an element, and give the focus back to what stands at the same place. */
export function replace(old, other) {
  const places = "a, button, input, select, summary, [tabindex]";
  const index = [...old.querySelectorAll(places)].indexOf(document.activeElement);
  const adopted = document.importNode(other, true);
  old.replaceWith(adopted);
  tell(adopted);
  if (index >= 0) adopted.querySelectorAll(places)[index]?.focus({ preventScroll: true });
  return adopted;
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
    if (!kept.has(id) && (isExact || index < last)) shown.get(id).remove();
  });
}

/** Put the rows of the next page below the others. Returns how many came. */
export function appendRows(fresh) {
  const body = document.querySelector("#jobs tbody");
  const rows = rowsOf(fresh).filter((row) => !document.getElementById(row.id));
  for (const row of rows) body.append(document.importNode(row, true));
  tell(body);
  return rows.length;
}
