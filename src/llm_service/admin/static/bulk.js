// The dialog before something is done to many jobs: it repeats the filter in words and shows what the server counted.

import { say, tellServer } from "./talk.js";

const TYPED_ABOVE = 100;
const VERBS = { cancel: "Cancel", retry: "Retry", redeliver: "Send again", delete: "Delete" };

const make = (tag, text = "") => Object.assign(document.createElement(tag), { textContent: text });
const jobs = (count) => `${count.toLocaleString("en")} ${count === 1 ? "job" : "jobs"}`;

/** Ask, do, and call `onDone` with the answer when something was done. */
export async function askAndDo(action, target, opener, onDone) {
  const dialog = document.getElementById("bulk");
  const title = document.getElementById("bulk-title");
  const body = document.getElementById("bulk-body");
  const yes = document.getElementById("bulk-yes");
  const no = document.getElementById("bulk-no");
  title.textContent = `${VERBS[action]}…`;
  body.replaceChildren(make("p", "Counting the jobs that this is about."));
  yes.hidden = true;
  no.textContent = "Keep as it is";
  dialog.onclose = () => opener.isConnected && opener.focus();
  dialog.showModal();

  let preview;
  try {
    preview = await tellServer("/admin/actions/preview", { action, ...target });
  } catch (error) {
    fail(error);
    return;
  }
  const { count } = preview;
  title.textContent = count === 0 ? `Nothing to ${action}` : `${preview.words}?`;
  body.replaceChildren(...describe(action, preview));
  if (count === 0) {
    no.textContent = "Close";
    return;
  }
  const typed = count > TYPED_ABOVE ? typedCount(count) : null;
  if (typed) body.append(typed.label);
  yes.textContent = `${VERBS[action]} ${jobs(count)}`;
  yes.classList.toggle("danger", action === "delete");
  yes.hidden = false;
  yes.disabled = typed !== null;
  typed?.input.addEventListener("input", () => (yes.disabled = !typed.isRight()));
  yes.onclick = () => run();
  if (typed) typed.input.focus();

  async function run() {
    yes.disabled = true;
    no.textContent = "Stop after this";
    let isStopped = false;
    no.onclick = () => (isStopped = true);
    const progress = make("p");
    body.replaceChildren(progress);
    const total = { done: 0, skipped: 0, failed: 0 };
    let after = null;
    try {
      do {
        const request = target.filter === undefined ? { action, ...target } : { action, ...target, expected: count, until: preview.until };
        const answer = await tellServer("/admin/actions", after ? { ...request, after } : request);
        for (const name of Object.keys(total)) total[name] += answer[name];
        after = answer.after ?? null;
        progress.textContent = after ? `${total.done.toLocaleString("en")} of ${count.toLocaleString("en")} done…` : answer.message;
      } while (after && !isStopped && dialog.open);
    } catch (error) {
      fail(error, total.done);
      return;
    } finally {
      no.onclick = null;
    }
    dialog.close();
    const parts = [`${jobs(total.done)} done`, total.skipped && `${total.skipped} skipped: gone or in another state`, total.failed && `${total.failed} failed`];
    const words = `${VERBS[action]}: ${parts.filter(Boolean).join(", ")}.`;
    say(words);
    onDone(words);
  }

  function fail(error, done = 0) {
    const words = make("p", error.message);
    words.className = "bad";
    body.replaceChildren(words);
    if (error.requestId) body.append(make("p", `Request id ${error.requestId}`));
    title.textContent = done ? `${jobs(done)} done, then it broke off` : "This was not done";
    yes.hidden = true;
    no.textContent = "Close";
  }
}

function describe(action, preview) {
  const parts = [];
  if (action === "retry") {
    const it = preview.count === 1 ? ["It runs again as a new job and calls the model", "it"] : ["Each runs again as a new job and calls the model", "they"];
    const cost = preview.cost_usd === null ? `what ${it[1]} cost is not known` : `${it[1]} cost $${preview.cost_usd.toFixed(4)} before`;
    parts.push(make("p", `${it[0]}; ${cost}.`));
    if (preview.starts_per_s) {
      const minutes = Math.max(1, Math.round(preview.count / preview.starts_per_s / 60));
      parts.push(make("p", `They start one after another, ${preview.starts_per_s} a second: it takes about ${minutes} min until the last one starts.`));
    }
  }
  if (action === "delete") parts.push(make("p", "They are gone for good, with their inputs, outputs and logs. Unfinished ones are stopped first."));
  if (action === "cancel") parts.push(make("p", "Running ones are broken off; what the model has answered so far is lost."));
  if (preview.sample.length) {
    const list = make("ul");
    for (const job of preview.sample) {
      list.append(make("li", `${job.action ?? job.workflow_name}, ${job.username ?? "no user"}, ${job.status}, ${job.created_at.slice(0, 19).replace("T", " ")} UTC`));
    }
    parts.push(make("p", preview.count > preview.sample.length ? `The newest ${preview.sample.length}:` : "These:"), list);
  }
  return parts;
}

function typedCount(count) {
  const label = make("label", `Type ${count} to confirm `);
  const input = Object.assign(document.createElement("input"), { inputMode: "numeric", autocomplete: "off" });
  label.append(input);
  return { label, input, isRight: () => input.value.replace(/[,\s]/g, "") === String(count) };
}
