// What every page offers: theme, zone, copying, and single keys.

import { recall, remember } from "./prefs.js";
import { keepTelling, offset, tell } from "./time.js";
import { say } from "./talk.js";

export function openView() {
  choose("theme", "auto", (theme) => {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
  });
  choose("zone", "utc", () => tell());
  document.getElementById("zone-offset").textContent = ` ${offset()}`;
  const keys = document.getElementById("keys-on");
  keys.checked = recall("keys", "on") === "on";
  keys.addEventListener("change", () => remember("keys", keys.checked ? "on" : "off"));
  document.addEventListener("click", copyOnClick);
  keepTelling();
}

function choose(name, otherwise, apply) {
  const chosen = recall(name, otherwise);
  for (const input of document.querySelectorAll(`#view input[name="${name}"]`)) {
    input.checked = input.value === chosen;
    input.addEventListener("change", () => {
      remember(name, input.value);
      apply(input.value);
    });
  }
}

export const isTyping = (element) => element.matches("input:not([type=checkbox], [type=radio]), select, textarea, [contenteditable]");

/** `keys` maps a key to what it does. Off while something is typed, held with Ctrl/Alt/Meta, or switched off. */
export function listenToKeys(keys) {
  document.addEventListener("keydown", (event) => {
    if (isTyping(event.target) || event.ctrlKey || event.altKey || event.metaKey || recall("keys", "on") !== "on") return;
    if (document.querySelector("dialog[open]")) return;
    const act = event.key === "?" ? () => document.getElementById("view").togglePopover() : keys[event.key];
    if (!act) return;
    event.preventDefault();
    act(event);
  });
}

function copyOnClick(event) {
  const button = event.target.closest("[data-copy], [data-copy-from], #copy-link");
  if (!button) return;
  const from = button.dataset.copyFrom && document.getElementById(button.dataset.copyFrom);
  copy(button, from ? from.textContent.trim() : button.dataset.copy ?? location.href.split("?")[0]);
}

async function copy(button, text) {
  try {
    await navigator.clipboard.writeText(text);
    say("Copied.");
    flash(button, "Copied");
  } catch {
    say("The browser did not allow copying.");
    flash(button, "Not allowed");
  }
}

function flash(button, word) {
  if (button.classList.contains("hint") || button.dataset.word) return;
  const label = [...button.childNodes].reverse().find((node) => node.textContent.trim());
  button.dataset.word = label.textContent;
  label.textContent = word;
  setTimeout(() => {
    label.textContent = button.dataset.word;
    delete button.dataset.word;
  }, 1500);
}
