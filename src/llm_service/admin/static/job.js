// The page of one job: follows it, and knows its neighbours in the list it was opened from.

import { closeQuestions, followJob } from "./follow.js";
import { listenToKeys, openView } from "./view.js";

const byId = (id) => document.getElementById(id);
const here = location.pathname;

openView();
closeQuestions();
const live = followJob({
  place: byId("main"),
  failure: byId("failure"),
  address: () => location.pathname + location.search,
});

function neighbours() {
  let order;
  try {
    order = JSON.parse(sessionStorage.getItem("llm-queue.order") ?? "null");
  } catch {
    return;
  }
  const at = order?.ids.indexOf(byId("job").dataset.id) ?? -1;
  if (at < 0) return;
  for (const [id, step] of [["previous", -1], ["next", 1]]) {
    const target = order.ids[at + step];
    if (!target) continue;
    const link = byId(id);
    link.href = `/admin/queue/${target}${location.search}`;
    link.hidden = false;
  }
}
neighbours();

// The entry before this one may be the list that this job stood beside: the same page to the browser, not to us.
addEventListener("popstate", () => location.pathname !== here && location.reload());

const follow = (id) => () => {
  const link = byId(id);
  if (link && !link.hidden) link.click();
};
listenToKeys({ j: follow("next"), k: follow("previous"), u: follow("up"), r: (event) => event.repeat || live.soon() });
