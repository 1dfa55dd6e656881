// The worker that all tabs of a browser share: `new SharedWorker(new URL("./shared.js", …), { type: "module" })`.

import { Hub } from "./hub.ts";
import type { Port, ToHub } from "./messages.ts";

const SWEEP_MS = 30_000;

interface SharedScope extends EventTarget {
  onconnect: ((event: MessageEvent) => void) | null;
}

const scope = globalThis as unknown as SharedScope;
const hub = new Hub();

scope.onconnect = ({ ports: [port] }) => {
  if (port === undefined) return;
  const tab: Port = { say: (message) => port.postMessage(message) };
  const hear = hub.join(tab);
  port.addEventListener("close", () => hub.part(tab)); // newer browsers say so; for others there is the sweep
  port.onmessage = (event: MessageEvent<ToHub>) => hear(event.data);
};
scope.addEventListener("online", () => hub.each((follower) => follower.online()));
scope.addEventListener("offline", () => hub.each((follower) => follower.offline()));
setInterval(() => hub.sweep(), SWEEP_MS);
