// When to look again: not while the page is hidden, left alone, or in use; less often when the service is in trouble.

import { now, tell } from "./time.js";

const SHORTEST_MS = 2000;
const IDLE_MS = 15 * 60 * 1000;
const LONGEST_MS = 60 * 1000;
const BANNER_AFTER = 2;

/** Whether somebody is in the middle of something that an update would disturb. */
export function isInUse() {
  const active = document.activeElement;
  return Boolean(
    document.querySelector(".pick input:checked, dialog[open], :popover-open, .deed[open]") ||
      active?.matches("input:not([type=checkbox], [type=radio]), textarea") ||
      !(document.getSelection()?.isCollapsed ?? true),
  );
}

/** An interval that the server does not refuse, whatever a setting says; what is no number is never. */
export const spaced = (ms) => (ms > 0 ? Math.max(SHORTEST_MS, ms) : 0);

/** Calls `look()` every `interval()` ms, 2 s at least; 0 is never. Returns `soon()`, which looks now, and `stop()`. */
export function poll({ interval: wanted, look }) {
  const interval = () => spaced(wanted());
  const failure = document.getElementById("failure");
  let timer = 0;
  let failures = 0;
  let isLooking = false;
  let lastGood = now();
  let lastSign = performance.now();
  let stopped = false;

  const sign = () => {
    const wasIdle = performance.now() - lastSign > IDLE_MS;
    lastSign = performance.now();
    if (wasIdle) plan(0);
  };
  for (const kind of ["pointermove", "keydown", "pointerdown", "scroll"]) addEventListener(kind, sign, { passive: true });
  document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : plan(0)));

  function plan(delay) {
    clearTimeout(timer);
    if (!stopped && interval() > 0) timer = setTimeout(tick, delay);
  }

  function tick() {
    if (document.hidden || performance.now() - lastSign > IDLE_MS) return;
    if (isInUse()) {
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
      await look(isAsked);
      failures = 0;
      lastGood = now();
      failure.hidden = true;
      document.body.classList.remove("stale");
    } catch (error) {
      failures += 1;
      delay = Math.max(error.retryAfter * 1000 || 0, Math.min(LONGEST_MS, interval() * 2 ** failures || 5000));
      if (isAsked || failures > BANNER_AFTER || error.status === 503) complain(error, delay);
    } finally {
      isLooking = false;
    }
    plan(delay);
  }

  function complain(error, delay) {
    document.body.classList.add("stale");
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
  return { soon, replan: () => plan(interval()), stop: () => ((stopped = true), clearTimeout(timer)) };
}

function time(ms) {
  const element = document.createElement("time");
  element.className = "clock";
  element.dateTime = new Date(ms).toISOString();
  return element;
}
