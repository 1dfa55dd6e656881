// What a run tells: stored events, and frames that only this reader gets and that have no place in the log.

import type { EventData, EventType } from "./events.ts";

// A stored event as the caller's role may see it: a policy may withhold fields, so each of them may be absent.
export type RunEvent = { [T in EventType]: Envelope<T> }[EventType];

export interface Envelope<T extends EventType = EventType> {
  readonly seq: number; // its place in the log, and the cursor
  readonly run_id: string;
  readonly type: T;
  readonly at: string;
  readonly attempt: number;
  readonly final: boolean; // true for `result` and for nothing else
  readonly data: EventData[T];
}

// `lagging`: draft text was joined for this reader. `reset`: the state that the events after it build on.
export interface Ephemeral {
  readonly type: "lagging" | "reset";
  readonly seq?: undefined;
  readonly data: Readonly<Record<string, unknown>>;
}

export type Frame = RunEvent | Ephemeral;

export const TERMINAL: ReadonlySet<string> = new Set(["result", "cancelled", "error"]);

// An event of the stream or of a page as a frame; null when it is none.
export function frameOf(name: string | null, body: unknown): Frame | null {
  if (typeof body !== "object" || body === null) return null;
  const told = body as { seq?: unknown; type?: unknown };
  const type = name ?? told.type;
  if (type === "lagging" || type === "reset") return { type, data: body as Ephemeral["data"] };
  if (typeof told.type !== "string" || !Number.isSafeInteger(told.seq)) return null;
  return body as RunEvent;
}
