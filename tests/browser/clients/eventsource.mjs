// The npm package `eventsource`: prints each event as a line of JSON, and says when it has stopped for good.
import { EventSource } from "eventsource";

const [address, key] = process.argv.slice(2);
const TYPES = ["accepted", "started", "token", "result", "message"];
const source = new EventSource(address, {
  fetch: (input, init) => fetch(input, { ...init, headers: { ...init.headers, Authorization: `Bearer ${key}` } }),
});
const alive = setInterval(() => undefined, 60_000); // waiting to reconnect does not keep a process going
const say = (told) => console.log(JSON.stringify(told));
for (const type of TYPES) source.addEventListener(type, (event) => say([type, event.lastEventId, event.data]));
source.addEventListener("error", () => {
  if (source.readyState !== EventSource.CLOSED) return;
  clearInterval(alive);
  say(["closed", "", ""]);
});
