// One job as it goes on: asked for again while it is not over, and what is asked of it done without leaving the page.

import { patchChildren } from "./patch.js";
import { isBusy, poll } from "./poll.js";
import { askDocument, Refused, say, tellServer } from "./talk.js";
import { tell } from "./time.js";
import { growTrees } from "./tree.js";

const EVERY_MS = 2000;
const UNFINISHED = new Set(["pending", "processing"]);

/** `place` holds the job (`#job`), or will; `address()` is the job's page, null for none; `onJob` is told what was shown. */
export function followJob({ place, failure, address, onJob = () => {} }) {
  const etags = new Map();
  const job = () => place.querySelector("#job");
  const isShown = (url) => url.includes(`/${job()?.dataset.id}`);

  async function look() {
    let url;
    let fresh;
    do {
      url = address();
      if (!url) return;
      fresh = await askJob(url, isShown(url) ? etags : null);
    } while (url !== address());
    if (fresh) show(fresh);
  }

  function show(fresh) {
    const other = fresh.getElementById("job");
    const here = job();
    if (here?.dataset.id === other.dataset.id) {
      patchChildren(here, other);
      here.dataset.status = other.dataset.status;
    } else {
      const placed = document.importNode(other, true);
      if (here) here.replaceWith(placed);
      else place.append(placed);
      tell(placed);
      say(fresh.title);
    }
    growTrees(place);
    document.title = fresh.title;
    onJob();
  }

  place.addEventListener("submit", (event) => {
    const form = event.target.closest(".deed form");
    if (!form) return;
    event.preventDefault();
    act(form);
  });

  async function act(form) {
    const { action, job_id } = Object.fromEntries(new FormData(form));
    const button = form.querySelector("button");
    button.disabled = true;
    try {
      const { message, job_ids } = await tellServer("/admin/actions", { action, job_ids: [job_id] });
      note(message, job_ids[0] === job_id ? null : job_ids[0]);
    } catch (error) {
      note(error.message);
    }
    button.disabled = false;
    const deed = form.closest(".deed");
    deed.open = false;
    deed.querySelector("summary").focus();
    live.soon();
  }

  /** Say what became of it, with the way to the new job where there is one. */
  function note(words, newId = null) {
    place.querySelector(".done")?.remove();
    const line = Object.assign(document.createElement("p"), { className: "notice done", textContent: words });
    if (newId) {
      const link = Object.assign(document.createElement("a"), { href: `/admin/queue/${newId}${location.search}`, textContent: "Open the new job" });
      line.append(" ", link);
    }
    job().before(line);
    say(words);
  }

  const live = poll({
    interval: () => (UNFINISHED.has(job()?.dataset.status) ? EVERY_MS : 0),
    look,
    failure,
    isHeld: isBusy,
  });
  growTrees(place);
  return live;
}

async function askJob(url, etags) {
  try {
    return await askDocument(url, etags);
  } catch (error) {
    if (error.status !== 404) throw error;
    throw new Refused(404, "This job is not there any more: it was deleted.", error.requestId, 0);
  }
}

/** The questions on a job's buttons close like menus: with Escape, and when one goes on elsewhere. */
export function closeQuestions() {
  document.addEventListener("keydown", (event) => {
    const open = event.key === "Escape" && document.querySelector(".deed[open]");
    if (!open) return;
    event.preventDefault();
    open.open = false;
    open.querySelector("summary").focus();
  });
  document.addEventListener("click", (event) => {
    for (const open of document.querySelectorAll(".deed[open]")) if (!open.contains(event.target)) open.open = false;
  });
}
