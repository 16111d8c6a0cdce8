// How the page speaks to the server: as itself, with its token, and back to the login when the session has ended.

import { hearTime } from "./time.js";

const token = document.querySelector('meta[name="csrf-token"]').content;

export class Refused extends Error {
  constructor(status, message, requestId, retryAfter) {
    super(message);
    Object.assign(this, { status, requestId, retryAfter });
  }
}

/** A GET of a part of the page; null where it is what the page has (304). `etags` remembers by address. */
export async function ask(url, etags = null) {
  const headers = { "X-Requested-With": "fetch" };
  if (etags?.has(url)) headers["If-None-Match"] = etags.get(url);
  const response = await reach(url, { headers, cache: "no-store" });
  if (response.status === 304) return null;
  const tag = response.headers.get("etag");
  if (etags && tag) etags.set(url, tag);
  return response;
}

/** A POST of JSON; the answer's JSON. */
export async function tellServer(url, body) {
  const response = await reach(url, {
    method: "POST",
    headers: { "X-Requested-With": "fetch", "X-CSRF-Token": token, "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  return response.json();
}

async function reach(url, options) {
  let response;
  try {
    response = await fetch(url, { ...options, credentials: "same-origin", signal: AbortSignal.timeout(15000) });
  } catch {
    throw new Refused(0, "The service can't be reached.", "", 0);
  }
  hearTime(response);
  if (response.ok || response.status === 304) return response;
  const requestId = response.headers.get("x-request-id") ?? "";
  if (response.status === 401) {
    location.assign(`/admin?next=${encodeURIComponent(location.pathname + location.search)}`);
  }
  const detail = await response.json().then((body) => body.detail, () => null);
  const retryAfter = Number(response.headers.get("retry-after")) || 0;
  const words = response.status === 503 ? "Database unavailable." : detail?.message ?? `The service answered ${response.status}.`;
  throw new Refused(response.status, words, requestId, retryAfter);
}

export const parsed = (text) => new DOMParser().parseFromString(text, "text/html");

export async function askDocument(url, etags) {
  const response = await ask(url, etags);
  return response && parsed(await response.text());
}

export function say(text) {
  document.getElementById("said").textContent = text;
}
