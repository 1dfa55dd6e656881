// Answers of the server that are no success, in words; and which of them may pass.

import { retryAfterMs } from "./waits.ts";

export interface Problem {
  readonly type?: string;
  readonly title?: string;
  readonly status?: number;
  readonly detail?: string;
  readonly errors?: readonly { readonly pointer?: string; readonly detail?: string }[];
  readonly allowed?: readonly string[];
  readonly request_id?: string;
}

// The server said no. `problem` holds what it said, field by field.
export class Refused extends Error {
  readonly status: number;
  readonly problem: Problem;

  constructor(status: number, problem: unknown) {
    const told = (typeof problem === "object" && problem !== null ? problem : {}) as Problem;
    const places = (told.errors ?? []).map((one) => `${one.pointer ?? ""} ${one.detail ?? ""}`.trim());
    super([told.detail ?? told.title ?? `The server answered ${status}.`, ...places].join(" "));
    this.name = "Refused";
    this.status = status;
    this.problem = told;
  }
}

// Nothing answered, or nothing that is the server.
export class Unreachable extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "Unreachable";
  }
}

const MAY_PASS: ReadonlySet<number> = new Set([408, 425, 429, 500, 502, 503, 504]);

export function mayPass(status: number): boolean {
  return MAY_PASS.has(status);
}

export interface Told {
  readonly status: number;
  readonly retryMs: number | null;
  readonly problem: unknown;
}

// What an answer that was not hoped for says.
export async function told(response: Response, now: number): Promise<Told> {
  const problem: unknown = isJson(response) ? await response.json().catch(() => null) : null;
  if (problem === null) await response.body?.cancel().catch(() => undefined);
  return { status: response.status, retryMs: retryAfterMs(response.headers.get("Retry-After"), now), problem };
}

export function isJson(response: Response): boolean {
  return /^application\/([\w.-]+\+)?json\b/i.test(response.headers.get("Content-Type") ?? "");
}
