// What a run tells: stored events, and frames that only this reader gets and that have no place in the log.

import { DRAFTS, type EventData, type EventType, TERMINAL } from "./events.ts";

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

// Draft text was gathered for this reader, who is slow. Each piece has its seq, so that a later `retry` can take it back.
export interface Lagging {
  readonly type: "lagging";
  readonly seq?: undefined;
  readonly final: false;
  readonly data: {
    readonly first: number;
    readonly last: number;
    readonly count: number;
    readonly drafts: readonly {
      readonly type: "token" | "reasoning";
      readonly attempt: number;
      readonly shared: Readonly<Record<string, unknown>>;
      readonly pieces: readonly (readonly [number, string] | readonly [number])[];
    }[];
  };
}

// The state that the events after it build on.
export interface Reset {
  readonly type: "reset";
  readonly seq?: undefined;
  readonly final: false;
  readonly data: Readonly<Record<string, unknown>>;
}

export type Frame = RunEvent | Lagging | Reset;

// A place in the log to go on from, and no event.
export interface Checkpoint {
  readonly type: "checkpoint";
  readonly seq: number;
}

const WITHOUT_PLACE: ReadonlySet<string> = new Set(["lagging", "reset"]);

// What a stream or a page holds, as a frame; null when it is none that we know.
export function frameOf(body: unknown): Frame | Checkpoint | null {
  if (typeof body !== "object" || body === null) return null;
  const told = body as { seq?: unknown; type?: unknown };
  if (typeof told.type !== "string") return null;
  return Number.isSafeInteger(told.seq) || WITHOUT_PLACE.has(told.type) ? (body as Frame | Checkpoint) : null;
}

// Which frames a reader of these types is given: the same over every way, whatever the server leaves out by itself.
export function wantedOf(types: readonly EventType[] | undefined): (frame: Frame) => boolean {
  if (types === undefined) return () => true;
  const wanted: ReadonlySet<string> = new Set([...types, ...TERMINAL, ...(types.some(isDraft) ? ["retry"] : [])]);
  const gathered = types.includes("token") || types.includes("reasoning");
  return ({ type }) => wanted.has(type) || type === "reset" || (type === "lagging" && gathered);
}

function isDraft(type: EventType): boolean {
  return DRAFTS.has(type);
}
