// What this browser remembers: theme, zone, interval, keys, whether charts are open. Never a filter: those are in the address.

const PREFIX = "llm-queue.";

export function recall(name, otherwise) {
  try {
    return localStorage.getItem(PREFIX + name) ?? otherwise;
  } catch {
    return otherwise; // storage is switched off
  }
}

export function remember(name, value) {
  try {
    localStorage.setItem(PREFIX + name, value);
  } catch {
    // It holds for this page, then.
  }
}
