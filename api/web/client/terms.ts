// The words between the machine that follows a run and the shell that does what it says.

import type { Checkpoint, Frame } from "./frames.ts";

export type Transport = "stream" | "long-poll" | "short-poll";

// Why there is no live stream: what came was held back, nothing came, it is refused or cut where short requests pass,
// there are too many of this caller, or other tabs hold as many as a browser allows.
export type Reason = "buffered" | "silent" | "blocked" | "limit" | "tabs";

export interface Condition {
  readonly state: "connecting" | "live" | "polling" | "reconnecting" | "offline" | "signed-out" | "over";
  readonly transport: Transport;
  readonly reason: Reason | null;
  readonly everyMs: number | null; // how often it asks, when it asks
}

// How it ended: the run ended; the server said no and will say so again; the caller left.
export type End =
  | { readonly how: "ended" }
  | { readonly how: "refused"; readonly status: number; readonly problem: unknown }
  | { readonly how: "left" };

export type Command =
  | { readonly do: "open"; readonly after: number }
  | { readonly do: "drop" }
  | { readonly do: "ask"; readonly after: number; readonly waitS: number }
  | { readonly do: "drop-ask" }
  | { readonly do: "credential" }
  | { readonly do: "frames"; readonly frames: readonly Frame[] }
  | { readonly do: "tell"; readonly condition: Condition }
  | { readonly do: "end"; readonly end: End };

// Any answer that is not what was asked for.
export interface Refusal {
  readonly status: number; // 200: a page of somebody's in between
  readonly retryMs: number | null;
  readonly problem: unknown;
}

export interface Page {
  readonly frames: readonly (Frame | Checkpoint)[];
  readonly nextAfter: number;
  readonly more: boolean;
  readonly done: boolean;
}

export interface Pace {
  readonly probeMs: number; // a stream without a byte this long is compared with a short request
  readonly graceMs: number; // what a request brought may be on its way on the stream too
  readonly muteMs: number; // no first byte at all: longer than the server's keep-alive
  readonly dueMs: number; // a keep-alive is overdue
  readonly deadMs: number; // silence: the connection is dead
  readonly waitS: number; // how long a long poll waits
  readonly answerMs: number; // and how much longer its answer may take
  readonly retryLiveMs: number; // when the stream is tried again, later and later …
  readonly retryLiveMaxMs: number; // … up to this
}

export const PACE: Pace = {
  probeMs: 3_000,
  graceMs: 700,
  muteMs: 20_000,
  dueMs: 17_000,
  deadMs: 35_000,
  waitS: 20,
  answerMs: 10_000,
  retryLiveMs: 30_000,
  retryLiveMaxMs: 300_000,
};
