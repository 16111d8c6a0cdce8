// One job: looks again while it is not over, and knows its neighbours in the list it was opened from.

import { patchParts, replace } from "./patch.js";
import { poll } from "./poll.js";
import { askDocument } from "./talk.js";
import { listenToKeys, openView } from "./view.js";

const EVERY_MS = 2000;
const UNFINISHED = new Set(["pending", "processing"]);
const job = () => document.getElementById("job");
const etags = new Map();

async function look() {
  const fresh = await askDocument(location.pathname + location.search, etags);
  if (!fresh) return;
  const other = fresh.getElementById("job");
  if (!other) return;
  const isSameShape = other.querySelectorAll("[data-live]").length === job().querySelectorAll("[data-live]").length;
  if (isSameShape && other.dataset.status === job().dataset.status) patchParts(fresh);
  else {
    replace(job(), other);
    document.title = fresh.title;
  }
  if (!UNFINISHED.has(job().dataset.status)) live.stop();
}

openView();
const live = poll({ interval: () => (UNFINISHED.has(job().dataset.status) ? EVERY_MS : 0), look });

function neighbours() {
  let order;
  try {
    order = JSON.parse(sessionStorage.getItem("llm-queue.order") ?? "null");
  } catch {
    return;
  }
  const at = order?.ids.indexOf(job().dataset.id) ?? -1;
  if (at < 0) return;
  for (const [id, step] of [["previous", -1], ["next", 1]]) {
    const target = order.ids[at + step];
    if (!target) continue;
    const link = document.getElementById(id);
    link.href = `/admin/queue/${target}${location.search}`;
    link.hidden = false;
  }
}
neighbours();

const follow = (id) => () => {
  const link = document.getElementById(id);
  if (link && !link.hidden) link.click();
};
listenToKeys({ j: follow("next"), k: follow("previous"), u: follow("up"), r: (event) => event.repeat || live.soon() });

document.addEventListener("keydown", (event) => {
  const open = event.key === "Escape" && document.querySelector(".deed[open]");
  if (open) {
    open.open = false;
    open.querySelector("summary").focus();
  }
});
document.addEventListener("click", (event) => {
  for (const open of document.querySelectorAll(".deed[open]")) if (!open.contains(event.target)) open.open = false;
});
