// A job beside the list, where there is room. It has the address of its page, so a reload or a copied link leads there.

import { closeQuestions, followJob } from "./follow.js";
import { say } from "./talk.js";
import { isTyping } from "./view.js";

const PAGE = /^\/admin\/queue\/([0-9a-f-]{36})$/;
const byId = (id) => document.getElementById(id);
const rowsNow = () => [...document.querySelectorAll("#jobs tbody tr")];
const linkOf = (row) => row?.querySelector(".title");

/** Returns `open(link)`, `move(step)`, `close()`, `mark()` and `isOpen()`. */
export function openPanel() {
  const panel = byId("panel");
  const place = byId("panel-job");
  const room = matchMedia("(min-width: 1280px)");
  const listTitle = document.title;
  history.scrollRestoration = "auto"; // also where this entry was left with a job beside the list
  let shown = null;
  let at = 0;

  const live = followJob({
    place,
    failure: byId("panel-failure"),
    address: () => shown && location.pathname + location.search,
    onJob: () => setBusy(false),
  });
  closeQuestions();

  /** Whether the job of this link is now beside the list; false where there is no room. */
  function open(link) {
    if (!room.matches) return false;
    if (shown !== null) history.replaceState(null, "", link.href);
    else {
      // Going back must not move a list that was scrolled meanwhile.
      history.scrollRestoration = "manual";
      history.pushState(null, "", link.href);
    }
    show();
    return true;
  }

  /** Show the job that the address names. */
  function show() {
    shown = PAGE.exec(location.pathname)[1];
    panel.hidden = false;
    setBusy(true);
    document.body.classList.add("with-panel");
    byId("panel-page").href = location.href;
    place.querySelector(".done")?.remove();
    panel.scrollTop = 0;
    mark();
    panel.focus({ preventScroll: true });
    live.soon();
  }

  /** The job before stays until the next has come, but nothing can be done to it any more. */
  function setBusy(isBusy) {
    panel.setAttribute("aria-busy", String(isBusy));
    place.inert = isBusy;
  }

  function hide() {
    const row = byId(`job-${shown}`) ?? rowsNow()[at];
    shown = null;
    panel.hidden = true;
    place.replaceChildren();
    byId("panel-failure").hidden = true;
    document.body.classList.remove("with-panel");
    document.title = listTitle;
    history.scrollRestoration = "auto";
    mark();
    (linkOf(row) ?? byId("main")).focus({ preventScroll: true });
    row?.scrollIntoView({ block: "nearest" });
  }

  /** Show in the list which job it is; the list may have changed since. */
  function mark() {
    const rows = rowsNow();
    for (const row of rows) row.ariaCurrent = row.dataset.id === shown ? "true" : null;
    if (shown === null) return;
    const found = rows.findIndex((row) => row.dataset.id === shown);
    if (found >= 0) at = found;
    byId("panel-previous").disabled = !neighbour(-1);
    byId("panel-next").disabled = !neighbour(1);
  }

  function neighbour(step) {
    const rows = rowsNow();
    const isThere = rows[at]?.dataset.id === shown;
    // A job that has left the list leaves its place to the next one.
    return rows[step > 0 && !isThere ? at : at + step];
  }

  function move(step) {
    const row = neighbour(step);
    if (!row) {
      say(step > 0 ? "This is the last job shown." : "This is the first job shown.");
      return;
    }
    open(linkOf(row));
    row.scrollIntoView({ block: "nearest" });
  }

  const close = () => history.back();
  byId("panel-previous").addEventListener("click", () => move(-1));
  byId("panel-next").addEventListener("click", () => move(1));
  byId("panel-close").addEventListener("click", close);
  document.addEventListener("keydown", (event) => {
    const isElsewhere = event.defaultPrevented || isTyping(event.target) || document.querySelector("dialog[open], :popover-open");
    if (event.key === "Escape" && shown !== null && !isElsewhere) close();
  });
  addEventListener("popstate", () => {
    if (!PAGE.test(location.pathname)) {
      if (shown !== null) hide();
    } else if (!room.matches) location.reload();
    else if (PAGE.exec(location.pathname)[1] !== shown) show();
  });
  // Where there is no room any more, the job has its page.
  room.addEventListener("change", () => shown !== null && !room.matches && location.reload());

  return { open, move, close, mark, isOpen: () => shown !== null };
}
