// The charts over the list: fetched after the page, each minute while it is looked at. The table does not wait for them.

import { recall, remember } from "./prefs.js";
import { askDocument } from "./talk.js";
import { isInUse } from "./poll.js";

const EVERY_MS = 60 * 1000;

export function openInsight() {
  const section = document.querySelector(".insight");
  const body = section.querySelector(".insight-body");
  const narrow = matchMedia("(max-width: 760px)");

  async function load(focus = "") {
    const isWhole = recall("insight", "less") === "more";
    const source = section.dataset.src;
    try {
      const fresh = await askDocument(source + (isWhole ? `${source.endsWith("?") ? "" : "&"}part=all` : ""));
      body.replaceChildren(...document.importNode(fresh.body, true).childNodes);
      section.classList.remove("failed");
    } catch (error) {
      const words = document.createElement("p");
      words.className = "muted";
      words.textContent = `The charts can't be shown: ${error.message}`;
      body.replaceChildren(words);
    }
    body.removeAttribute("aria-busy");
    if (focus) document.getElementById(focus)?.focus();
  }

  body.addEventListener("click", (event) => {
    if (event.target.id !== "more-insight" && event.target.id !== "less-insight") return;
    const more = event.target.id === "more-insight";
    remember("insight", more ? "more" : "less");
    load(more ? "less-insight" : "more-insight");
  });
  const opener = section.querySelector("summary");
  let isLoaded = false;
  const loadOnce = () => {
    if (section.open && !isLoaded) {
      isLoaded = true;
      load();
    }
  };
  section.open = recall("charts", narrow.matches ? "closed" : "open") === "open";
  section.addEventListener("toggle", loadOnce);
  opener.addEventListener("click", () => remember("charts", section.open ? "closed" : "open"));
  loadOnce();
  setInterval(() => {
    if (section.open && !document.hidden && !isInUse() && !body.contains(document.activeElement)) load();
  }, EVERY_MS);
}
