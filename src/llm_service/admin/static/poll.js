// When to look again: not while the page is hidden, left alone, or in use; less often when the service is in trouble.

import { now, tell } from "./time.js";

const SHORTEST_MS = 2000;
const IDLE_MS = 15 * 60 * 1000;
const LONGEST_MS = 60 * 1000;
const BANNER_AFTER = 2;
const AFTER_OTHERS_MS = 500;

/** Whether somebody is in the middle of something that any update would disturb. */
export function isBusy() {
  const active = document.activeElement;
  return Boolean(
    document.querySelector("dialog[open], :popover-open, .deed[open]") ||
      active?.matches("input:not([type=checkbox], [type=radio]), textarea") ||
      !(document.getSelection()?.isCollapsed ?? true),
  );
}

/** The same for the list, where also a selection must stay what it is. */
export const isInUse = () => isBusy() || document.querySelector(".pick input:checked") !== null;

/** An interval that the server does not refuse, whatever a setting says; what is no number is never. */
export const spaced = (ms) => (ms > 0 ? Math.max(SHORTEST_MS, ms) : 0);

/**
 * Calls `look()` every `interval()` ms (2 s at least; 0 is never) unless `isHeld()`; `look` returns false where it left it
 * to another tab. What goes wrong is said in `failure`. Returns `soon()`, which looks now, `heard()` for news that came in
 * another way, and `replan()` for another interval.
 */
export function poll({ interval: wanted, look, failure, isHeld = isInUse }) {
  const interval = () => spaced(wanted());
  let timer = 0;
  let failures = 0;
  let isLooking = false;
  let lastGood = now();
  let lastSign = performance.now();

  const sign = () => {
    const wasIdle = performance.now() - lastSign > IDLE_MS;
    lastSign = performance.now();
    if (wasIdle) plan(0);
  };
  for (const kind of ["pointermove", "keydown", "pointerdown", "scroll"]) addEventListener(kind, sign, { passive: true });
  document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : plan(0)));

  function plan(delay) {
    clearTimeout(timer);
    if (interval() > 0) timer = setTimeout(tick, delay);
  }

  function tick() {
    if (document.hidden || performance.now() - lastSign > IDLE_MS) return;
    if (isHeld()) {
      plan(Math.min(1000, interval()));
      return;
    }
    soon(false);
  }

  async function soon(isAsked = true) {
    if (isLooking) return;
    isLooking = true;
    clearTimeout(timer);
    let delay = interval();
    try {
      if ((await look(isAsked)) !== false) wentWell();
    } catch (error) {
      failures += 1;
      delay = Math.max(error.retryAfter * 1000 || 0, Math.min(LONGEST_MS, interval() * 2 ** failures || 5000));
      if (isAsked || failures > BANNER_AFTER || error.status === 503) complain(error, delay);
    } finally {
      isLooking = false;
    }
    plan(delay);
  }

  function wentWell() {
    failures = 0;
    lastGood = now();
    failure.hidden = true;
    failure.parentElement.classList.remove("stale");
  }

  /** Another tab has just looked: this one does so only when the other falls silent. */
  function heard() {
    wentWell();
    plan(interval() + AFTER_OTHERS_MS);
  }

  function complain(error, delay) {
    failure.parentElement.classList.add("stale");
    const again = interval() > 0 ? `, retrying in ${Math.round(delay / 1000)} s` : "";
    const id = error.requestId ? ` Request id ${error.requestId}.` : "";
    failure.replaceChildren(`${error.message} Not updating since `, time(lastGood), `${again}.${id} `, retryButton());
    failure.hidden = false;
    tell(failure);
  }

  function retryButton() {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Retry now";
    button.addEventListener("click", () => soon());
    return button;
  }

  plan(interval());
  return { soon, heard, replan: () => plan(interval()) };
}

function time(ms) {
  const element = document.createElement("time");
  element.className = "clock";
  element.dateTime = new Date(ms).toISOString();
  return element;
}
