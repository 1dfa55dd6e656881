// A run's events as they happen: reads the stream with fetch, so that the key stays in a header and a refused
// reconnect is not the end, and comes back by itself from the last event it was given.

import { TERMINAL } from "./fold.js";

const WAITS_MS = [500, 1000, 2000, 4000, 8000, 15000];
const SILENCE_MS = 35000; // the server says something every 15 s

// Feed it text in any cutting; it calls back with each whole event: { id, event, data }.
export function sseParser(onEvent) {
  let rest = "", event = "", data = [], id = "";
  return (text) => {
    const lines = (rest + text).split(/\r\n|\n|\r(?!$)/); // a last \r may be half of \r\n: it waits
    rest = lines.pop();
    for (const line of lines) {
      if (line === "") {
        if (data.length) onEvent({ id, event: event || "message", data: data.join("\n") });
        event = "";
        data = [];
        continue;
      }
      const colon = line.indexOf(":");
      const field = colon < 0 ? line : line.slice(0, colon);
      const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
      if (field === "event") event = value;
      else if (field === "data") data.push(value);
      else if (field === "id" && !value.includes("\0")) id = value;
    }
  };
}

async function readOnce(path, headers, signal, onFrame, onOpen) {
  const silence = new AbortController();
  let timer = setTimeout(() => silence.abort(), SILENCE_MS);
  try {
    const response = await fetch(path, {
      headers: { ...headers, Accept: "text/event-stream" },
      cache: "no-store",
      signal: AbortSignal.any([signal, silence.signal]),
    });
    if (response.status !== 200) return response;
    const kind = response.headers.get("Content-Type") ?? "";
    if (!kind.startsWith("text/event-stream")) throw new TypeError("a proxy answered with its own page");
    onOpen();
    const feed = sseParser(({ event, data }) => onFrame(event, JSON.parse(data)));
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      clearTimeout(timer);
      timer = setTimeout(() => silence.abort(), SILENCE_MS);
      feed(part.value);
    }
    return response;
  } finally {
    clearTimeout(timer);
  }
}

// Follows a run from a cursor to its end. `onState` hears "live", "waiting" (and how many ms), "ended", or "refused"
// (and the answer): then no reconnect would help.
export async function follow({ path, cursor = 0, headers, signal, onFrame, onState, waits = WAITS_MS }) {
  let failures = 0, ended = false;
  while (!signal.aborted) {
    let wait = 0, news = false, bug = null;
    const take = (name, frame) => {
      if (frame.seq > cursor) {
        cursor = frame.seq;
        news = true;
        failures = 0;
        ended ||= TERMINAL.has(frame.type);
      }
      try {
        onFrame(name, frame);
      } catch (fault) {
        throw (bug = fault); // ours, not the network's: trying again would hide it
      }
    };
    try {
      const answer = await readOnce(`${path}?after=${cursor}`, headers, signal, take, () => onState("live"));
      if (ended || answer.status === 204) return onState("ended");
      const { status } = answer;
      if (status >= 400 && status < 500 && status !== 408 && status !== 429) return onState("refused", answer);
      wait = 1000 * (Number(answer.headers.get("Retry-After")) || 0);
    } catch (fault) {
      if (signal.aborted) return;
      if (bug) throw bug;
      if (ended) return onState("ended");
    }
    if (!news) wait ||= waits[Math.min(failures++, waits.length - 1)] * (0.7 + 0.6 * Math.random());
    if (wait) onState("waiting", wait);
    await new Promise((done) => {
      const timer = setTimeout(done, wait);
      signal.addEventListener("abort", () => (clearTimeout(timer), done()), { once: true });
      if (wait) window.addEventListener("online", () => (clearTimeout(timer), done()), { once: true });
    });
  }
}
