// Of several tabs with the same list one asks the server, and the others show what it got.
// There is no leader: whoever is due first asks, and whoever hears of it puts its own question off.

/** `hear` is called with what the others got: `{ url, etag, text }`, `text` null where nothing was new. */
export function share(name, hear) {
  const channel = new BroadcastChannel(name);
  channel.addEventListener("message", (event) => hear(event.data));

  async function ask(question) {
    const answer = await question();
    channel.postMessage(answer);
    return answer;
  }

  return {
    ask,
    /** The same, or null where another tab is asking at this moment. */
    askUnlessAsked: (question) =>
      navigator.locks.request(name, { ifAvailable: true }, (lock) => (lock ? ask(question) : null)),
  };
}
