// The list: looks again by itself, puts new rows in where they disturb nobody, and does things to many jobs.

import { askAndDo } from "./bulk.js";
import { explainMidnight, openFilters } from "./filters.js";
import { openInsight } from "./insight.js";
import { openPanel } from "./panel.js";
import { appendRows, patchParts, patchTable } from "./patch.js";
import { isInUse, poll } from "./poll.js";
import { recall, remember } from "./prefs.js";
import { openSelection } from "./select.js";
import { share } from "./share.js";
import { ask, askDocument, parsed, say } from "./talk.js";
import { now } from "./time.js";
import { listenToKeys, openView } from "./view.js";

const COUNTS_EVERY_MS = 30 * 1000;
const query = location.search.slice(1);
const isWindow = !/^\d+$/.test(new URLSearchParams(query).get("limit") ?? "25");
const isElsewhere = new URLSearchParams(query).has("cursor");
const byId = (id) => document.getElementById(id);

const etags = new Map();
let countedAt = performance.now();
let waiting = null;

/** Look at the server once. What was asked for by hand goes in; what was not must not move what is being read. */
async function look(isAsked) {
  const refresh = byId("refresh");
  if (isAsked) {
    byId("jobs").setAttribute("aria-busy", "true");
    refresh.classList.add("busy");
  }
  try {
    const withCounts = isAsked || performance.now() - countedAt > COUNTS_EVERY_MS;
    const url = `/admin/queue/rows?${query}${withCounts ? `${query ? "&" : ""}part=all` : ""}`;
    const answer = isAsked ? await shared.ask(() => askRows(url, null)) : await shared.askUnlessAsked(() => askRows(url, etags));
    if (!answer) return false;
    take(answer, isAsked || isAtTop());
    if (isAsked) {
      rememberOrder();
      say(`${byId("jobs").tagName === "TABLE" ? document.querySelector(".showing").textContent.trim() : "No jobs"}, updated.`);
    }
    return true;
  } finally {
    byId("jobs").setAttribute("aria-busy", "false");
    refresh.classList.remove("busy");
  }
}

/** The rows and the name of what they say; `text` is null where that is what `tags` has. */
async function askRows(url, tags) {
  const response = await ask(url, tags);
  if (!response) return { url, etag: tags.get(url), text: null };
  return { url, etag: response.headers.get("etag"), text: await response.text() };
}

const isAtTop = () => scrollY < 80 && !byId("jobs").contains(document.activeElement);

function take({ url, etag, text }, mayInsert) {
  if (url.endsWith("part=all")) countedAt = performance.now();
  if (text !== null) {
    etags.set(url, etag);
    put(parsed(text), mayInsert);
  }
  showUpdated();
}

/** What another tab with the same list got. Without it this one is behind, and asks when its own turn comes. */
function hear(answer) {
  const isBehind = answer.text === null && etags.get(answer.url) !== answer.etag;
  if (interval.value === "0" || isInUse() || isBehind) return;
  take(answer, isAtTop());
  live.heard();
}

function put(fresh, mayInsert) {
  const parts = fresh.querySelector('template[data-part="chips"]');
  if (parts) fresh.body.append(parts.content.cloneNode(true));
  const isExtended = document.querySelectorAll("#jobs tbody tr").length > fresh.querySelectorAll("#jobs tbody tr").length;
  const moreHere = byId("more");
  const left = patchTable(fresh, { mayInsert, isExact: !isWindow });
  waiting = left > 0 ? fresh : null;
  const pill = byId("new-jobs");
  pill.hidden = left === 0;
  pill.textContent = `${left} new ${left === 1 ? "job" : "jobs"}`;
  if (isWindow && isExtended && moreHere) fresh.querySelector('[data-live="more"]')?.remove();
  patchParts(fresh);
  if (isWindow && isExtended) countShown();
  selection.show();
  panel.mark();
}

function countShown() {
  const shown = document.querySelector(".showing b");
  if (shown) shown.textContent = document.querySelectorAll("#jobs tbody tr").length.toLocaleString("en");
}

function showUpdated() {
  const updated = byId("updated");
  updated.dateTime = new Date(now()).toISOString();
  const date = new Date(now());
  const isLocal = recall("zone", "utc") === "local";
  updated.textContent = isLocal ? date.toTimeString().slice(0, 8) : date.toISOString().slice(11, 19);
}

async function loadMore(link) {
  link.setAttribute("aria-disabled", "true");
  try {
    const url = new URL(link.href);
    const fresh = await askDocument(`/admin/queue/rows${url.search}`);
    const came = appendRows(fresh);
    byId("more").closest("[data-live]").replaceChildren(...document.importNode(fresh.querySelector('[data-live="more"]'), true).childNodes);
    for (const back of document.querySelectorAll('[data-live="more"] a:not(#more)')) back.remove();
    countShown();
    rememberOrder();
    panel.mark();
    say(`${came} more jobs.`);
    document.querySelectorAll("#jobs tbody tr")[document.querySelectorAll("#jobs tbody tr").length - came]?.querySelector(".title").focus({ preventScroll: true });
  } catch (error) {
    link.removeAttribute("aria-disabled");
    say(error.message);
    byId("failure").textContent = error.message;
    byId("failure").hidden = false;
  }
}

/** For "newer" and "older" on the page of a job. */
function rememberOrder() {
  const ids = [...document.querySelectorAll("#jobs tbody tr")].map((row) => row.dataset.id);
  try {
    sessionStorage.setItem("llm-queue.order", JSON.stringify({ ids, search: location.search }));
  } catch {
    // Without storage there is no order.
  }
}

const list = {
  move(step) {
    const links = [...document.querySelectorAll("#jobs .title")];
    const at = links.findIndex((link) => link.closest("tr").contains(document.activeElement));
    links[at < 0 ? 0 : Math.min(links.length - 1, Math.max(0, at + step))]?.focus();
  },
};

openView();
openFilters();
explainMidnight();
openInsight();
rememberOrder();

const nothing = { clear() {}, show() {} };
const selection = !byId("selection") ? nothing : openSelection({
  totalText: () => document.querySelectorAll(".showing b")[1]?.textContent ?? "0",
  onAction: (action, target, opener) =>
    askAndDo(action, target, opener, () => {
      const first = document.querySelector("#jobs .pick input:checked");
      selection.clear();
      first?.focus({ preventScroll: true });
      live.soon();
    }),
});

const panel = openPanel();
const shared = share(`llm-queue ${query}`, hear);
const interval = byId("live");
interval.value = ["0", "5", "15", "60"].includes(recall("live", "5")) ? recall("live", "5") : "5";
const live = poll({
  interval: () => (isElsewhere ? 0 : Number(interval.value) * 1000),
  look,
  failure: byId("failure"),
});
const showDot = () => byId("live-dot").classList.toggle("off", interval.value === "0");
interval.addEventListener("change", () => {
  remember("live", interval.value);
  showDot();
  live.replan();
});
showDot();

byId("refresh").addEventListener("click", (event) => {
  if (isElsewhere || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  live.soon();
});
byId("new-jobs").addEventListener("click", () => {
  if (waiting) put(waiting, true);
  scrollTo({ top: 0 });
  document.querySelector("#jobs .title")?.focus({ preventScroll: true });
});
document.addEventListener("click", (event) => {
  const link = event.target.closest?.("#more");
  if (link && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    if (link.getAttribute("aria-disabled") !== "true") loadMore(link);
    return;
  }
  const title = event.target.closest?.(".job-row .title");
  if (title && !event.ctrlKey && !event.metaKey && !event.shiftKey && panel.open(title)) event.preventDefault();
  if (event.target.matches?.("#jobs .pick")) event.target.querySelector("input").click();
  const row = event.target.closest?.(".job-row");
  const isPlain = !event.target.closest("a, button, input, label, summary") && document.getSelection().isCollapsed;
  if (row && isPlain && !event.target.closest(".pick")) row.querySelector(".title").click();
});
listenToKeys({
  j: () => (panel.isOpen() ? panel : list).move(1),
  k: () => (panel.isOpen() ? panel : list).move(-1),
  u: () => panel.isOpen() && panel.close(),
  x: () => document.activeElement.closest?.("tr")?.querySelector(".pick input")?.click(),
  r: (event) => event.repeat || live.soon(),
  "/": () => {
    byId("f-action").closest("details").open = true;
    byId("f-action").focus();
  },
});
