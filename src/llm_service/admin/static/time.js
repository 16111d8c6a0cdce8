// Times as people say them, by the clock of the server: a wrong clock of this machine changes nothing.

import { recall } from "./prefs.js";

const meta = document.querySelector('meta[name="server-time"]');
let serverStart = Date.parse(meta.content);
let localStart = performance.now();

/** Milliseconds since 1970 at the server. */
export const now = () => serverStart + performance.now() - localStart;

/** Move on to the Date header of an answer, which knows whole seconds. */
export function hearTime(response) {
  const told = Date.parse(response.headers.get("date") ?? "");
  if (Number.isFinite(told) && Math.abs(told - now()) > 2000) {
    serverStart = told;
    localStart = performance.now();
  }
}

export function ago(moment) {
  const seconds = (now() - moment) / 1000;
  const words = oneUnit(Math.abs(seconds));
  if (words === null) return seconds >= 0 ? "just now" : "in a moment";
  return seconds >= 0 ? `${words} ago` : `in ${words}`;
}

function oneUnit(seconds) {
  if (seconds < 5) return null;
  for (const [size, unit] of [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]]) {
    if (seconds >= size) return `${Math.floor(seconds / size)} ${unit}`;
  }
  return null;
}

const two = (number) => String(number).padStart(2, "0");

export function span(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} m ${two(seconds % 60)} s`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${two(Math.floor((seconds % 3600) / 60))} m`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor((seconds % 86400) / 3600)} h`;
}

/** The local offset from UTC at a moment, e.g. "UTC+01:00". */
export function offset(date = new Date(now())) {
  const minutes = -date.getTimezoneOffset();
  return `UTC${minutes < 0 ? "−" : "+"}${two(Math.floor(Math.abs(minutes) / 60))}:${two(Math.abs(minutes) % 60)}`;
}

function exact(date, isLocal) {
  const get = (part) => date[`get${isLocal ? "" : "UTC"}${part}`]();
  const day = `${get("FullYear")}-${two(get("Month") + 1)}-${two(get("Date"))}`;
  const clock = `${two(get("Hours"))}:${two(get("Minutes"))}:${two(get("Seconds"))}`;
  return { clock, whole: `${day} ${clock} ${isLocal ? offset(date) : "UTC"}` };
}

/** Write every time within `root` again, in the zone that was chosen. */
export function tell(root = document) {
  const isLocal = recall("zone", "utc") === "local";
  for (const element of root.querySelectorAll("time[datetime]")) {
    const date = new Date(element.dateTime);
    const { clock, whole } = exact(date, isLocal);
    if (element.classList.contains("clock") || element.id === "updated") set(element, clock);
    else if (element.classList.contains("exact")) set(element, whole);
    else {
      set(element, ago(date.getTime()));
      if (element.title !== whole) element.title = whole;
    }
  }
  for (const element of root.querySelectorAll("[data-since]")) {
    set(element, span(now() - Date.parse(element.dataset.since)));
  }
}

function set(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Keep times fresh: those of running jobs each second, the others as often as they can change. */
export function keepTelling() {
  let beats = 0;
  tell();
  setInterval(() => {
    if (document.hidden) return;
    beats += 1;
    if (beats % 10 === 0) tell();
    else {
      for (const element of document.querySelectorAll("[data-since]")) {
        set(element, span(now() - Date.parse(element.dataset.since)));
      }
    }
  }, 1000);
}
