// Single requests, sent again while the server is away for a moment: only such as may be sent twice.

import { isJson, mayPass, Refused, told, Unreachable } from "./answers.ts";
import type { Credential } from "./credential.ts";
import type { Surroundings } from "./follower.ts";
import { backoffMs } from "./waits.ts";

const TRIES_MAX = 5;
const ANSWER_MS = 30_000;
const LONGEST_WAIT_MS = 30_000;

export interface Asking {
  readonly method?: string;
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal | undefined;
}

export class Requests {
  readonly #url: string;
  readonly #credential: Credential;
  readonly #around: Surroundings;

  constructor(url: string, credential: Credential, around: Surroundings) {
    this.#url = url;
    this.#credential = credential;
    this.#around = around;
  }

  // The body of a success; Refused or Unreachable otherwise.
  async ask(path: string, asking: Asking = {}): Promise<unknown> {
    let key = await this.#credential.key();
    let signedIn = false;
    for (let tries = 1; ; tries += 1) {
      let waitMs: number | null = null;
      let fault: Error;
      try {
        const response = await this.#send(path, asking, key);
        if (response.ok && isJson(response)) return await response.json();
        const answer = await told(response, this.#around.now());
        fault = response.ok
          ? new Unreachable("Something between here and the server answered with a page of its own.")
          : new Refused(answer.status, answer.problem);
        waitMs = answer.retryMs;
        if (answer.status === 401 && !signedIn) {
          signedIn = true;
          key = await this.#credential.instead(key);
          if (key !== null) continue;
        }
        if (!response.ok && !mayPass(answer.status)) throw fault;
      } catch (error) {
        asking.signal?.throwIfAborted();
        if (error instanceof Refused) throw error;
        fault = new Unreachable("The server did not answer. Nothing was lost; try again.", { cause: error });
      }
      if (tries >= TRIES_MAX || (waitMs ?? 0) > LONGEST_WAIT_MS) throw fault;
      await this.#pause(waitMs ?? backoffMs(tries, this.#around.random), asking.signal);
    }
  }

  async #send(path: string, asking: Asking, key: string | null): Promise<Response> {
    const headers: Record<string, string> = { Accept: "application/json", ...asking.headers };
    if (key) headers.Authorization = `Bearer ${key}`;
    const late = AbortSignal.timeout(ANSWER_MS);
    const init: RequestInit = {
      method: asking.method ?? "GET",
      headers,
      cache: "no-store",
      signal: asking.signal ? AbortSignal.any([asking.signal, late]) : late,
    };
    if (asking.body !== undefined) {
      headers["Content-Type"] = "application/json";
      init.body = JSON.stringify(asking.body);
    }
    return this.#around.fetch(`${this.#url}/v1/${path}`, init);
  }

  #pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const stop = this.#around.later(ms, () => {
        signal?.removeEventListener("abort", aborted);
        resolve();
      });
      const aborted = () => {
        stop();
        reject(signal?.reason);
      };
      signal?.addEventListener("abort", aborted, { once: true });
    });
  }
}

// Names a submission, so that it starts one run however often it is sent. Also where the page is not served securely.
export function onceKey(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
