// The filters: applied as soon as they are chosen, with values to choose from. The address is the only state.

import { ask } from "./talk.js";

const DEFAULTS = { status: "all", limit: "25", time: "created" };
const FRESH_MS = 60 * 1000;

export function openFilters() {
  const form = document.getElementById("filters");
  const fold = form.closest("details");
  const narrow = matchMedia("(max-width: 760px)");
  fold.open = !narrow.matches;
  narrow.addEventListener("change", () => (fold.open = !narrow.matches));
  form.reset(); // to what the address says, not to what the browser remembers of an earlier visit
  addEventListener("pageshow", (event) => event.persisted && form.reset());
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    go(form);
  });
  form.addEventListener("change", (event) => {
    if (event.target.name !== "q") form.requestSubmit();
  });
  for (const input of form.querySelectorAll("input[list]")) {
    input.addEventListener("focus", () => suggest(input));
    input.addEventListener("input", (event) => {
      const wasChosen = event.inputType === "insertReplacementText" || event.inputType === undefined;
      if (wasChosen && [...input.list.options].some((option) => option.value === input.value)) form.requestSubmit();
    });
  }
}

/** Go to the address of what the form says, without what is the default. */
function go(form) {
  const wanted = new URLSearchParams();
  for (const [name, value] of new FormData(form)) {
    if (value && value !== DEFAULTS[name]) wanted.set(name, value);
  }
  const text = wanted.toString();
  const url = text ? `/admin/queue?${text}` : "/admin/queue";
  if (url !== location.pathname + location.search) location.assign(url);
}

const asked = new Map();

async function suggest(input) {
  if (performance.now() - (asked.get(input.name) ?? -FRESH_MS) < FRESH_MS) return;
  asked.set(input.name, performance.now());
  const params = new URLSearchParams({ column: input.name, filter: location.search.slice(1) });
  try {
    const response = await ask(`/admin/suggestions?${params}`);
    const options = (await response.json()).map(({ value, count }) => {
      const option = new Option(`${count.toLocaleString("en")} ${count === 1 ? "job" : "jobs"}`, value);
      return option;
    });
    input.list.replaceChildren(...options);
  } catch {
    asked.delete(input.name); // typing works without
  }
}

/** Say what midnight UTC is on this clock. */
export function explainMidnight() {
  const midnight = new Date();
  midnight.setUTCHours(0, 0, 0, 0);
  const clock = midnight.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
  document.getElementById("midnight").textContent = `, which is ${clock} your time`;
}
