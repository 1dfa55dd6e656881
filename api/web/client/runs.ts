// What answers about runs hold, in the fields that every role is told.

export type Status = "queued" | "running" | "waiting" | "stopping" | "completed" | "failed" | "cancelled";

export interface Accepted {
  readonly id: string;
  readonly status: Status;
  readonly done: boolean;
  readonly workflow: string;
  readonly title: string;
  readonly created_at: string;
  readonly links: Readonly<Record<string, string>>;
}

export interface RunInList {
  readonly id: string;
  readonly workflow: string;
  readonly title: string;
  readonly status: Status;
  readonly created_at: string;
  readonly seq: number;
  readonly queue: InLine | null;
}

export interface RunPage {
  readonly runs: readonly RunInList[];
  readonly next: string | null; // `before` of the page after it
}

export interface InLine {
  readonly position?: number | null;
  readonly exact?: boolean;
  readonly reason?: string;
}

export interface Seen {
  readonly seq: number;
  readonly chain: string;
}

// The folded state. Only what is under `result` is final; `partial` never is.
export interface RunState {
  readonly id: string;
  readonly status: Status;
  readonly done: boolean;
  readonly workflow: string | null;
  readonly title: string | null;
  readonly seq: number;
  readonly seen: Seen;
  readonly queue: InLine | null;
  readonly result: ({ readonly final: true } & Readonly<Record<string, unknown>>) | null;
  readonly partial: ({ readonly final: false } & Readonly<Record<string, unknown>>) | null;
  readonly error: Readonly<Record<string, unknown>> | null;
  readonly milestones: readonly Readonly<Record<string, unknown>>[];
  readonly questions: readonly Readonly<Record<string, unknown>>[];
  readonly [more: string]: unknown;
}

export interface Listing {
  readonly workflow?: string;
  readonly status?: Status;
  readonly limit?: number;
  readonly before?: string;
}

// An answer to what a run asks. `seen` is the state's, of what the person was looking at.
export interface Answer {
  readonly escalation: number;
  readonly seen: Seen;
  readonly choice?: string;
  readonly answer?: unknown;
  readonly note?: string;
}
