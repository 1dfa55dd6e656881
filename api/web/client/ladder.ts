// Which way events come, and why. Pure. It goes down to short requests only on proof, because a server that restarts
// looks like a network that lets nothing through: a request got through, or brought news, where the stream did not.

import type { Pace, Reason, Transport } from "./terms.ts";
import { backoffMs } from "./waits.ts";

export const NEVER = Number.POSITIVE_INFINITY;
const ASK_AGAIN_MS = 1_000;
const FAILURES_MAX = 2; // without a byte, before a short request is tried
const STALLS_MAX = 2; // streams that went silent after a good beginning, while there was news

const CROWDED: ReadonlySet<Reason> = new Set(["tabs", "limit"]); // a request that waits takes a place too

export class Ladder {
  down: Reason | null;
  failures = 0; // in a row, of whatever is tried
  everyMs = ASK_AGAIN_MS;
  waitS: number;
  liveAt = NEVER; // when the stream is tried again beside short requests
  checkNext = false; // a short request is to show whether the server is there
  readonly #pace: Pace;
  readonly #random: () => number;
  #liveTries = 0;
  #lostAsks = 0;
  #stalls = 0;
  #shortLives = 0;
  #checked = false; // it is, and the stream has its last chance

  constructor(pace: Pace, random: () => number, down: Reason | null) {
    this.#pace = pace;
    this.#random = random;
    this.down = down;
    this.waitS = down !== null && CROWDED.has(down) ? 0 : pace.waitS;
  }

  get transport(): Transport {
    return this.down === null ? "stream" : this.waitS > 0 ? "long-poll" : "short-poll";
  }

  // A byte came on the stream; true when this brings us up again.
  heard(): boolean {
    this.failures = this.#lostAsks = 0;
    this.checkNext = this.#checked = false;
    if (this.down === null) return false;
    this.down = null;
    this.liveAt = NEVER;
    this.#liveTries = 0;
    this.waitS = this.#pace.waitS;
    return true;
  }

  goDown(reason: Reason, now: number): void {
    this.down = reason;
    this.failures = this.#lostAsks = this.#stalls = 0;
    this.checkNext = this.#checked = false;
    this.waitS = CROWDED.has(reason) ? 0 : this.#pace.waitS;
    this.everyMs = ASK_AGAIN_MS;
    this.liveLater(now);
  }

  liveLater(now: number): void {
    this.liveAt = now + Math.min(this.#pace.retryLiveMs * 2 ** this.#liveTries, this.#pace.retryLiveMaxMs);
    this.#liveTries += 1;
  }

  // A stream that had begun is over: when the next one may begin.
  nextAfterStream(livedMs: number, news: boolean, now: number): number {
    this.#shortLives = news || livedMs >= ASK_AGAIN_MS ? 0 : this.#shortLives + 1;
    return this.#shortLives === 0 ? now : now + backoffMs(this.#shortLives, this.#random);
  }

  // A stream went silent after a good beginning; true when that has happened too often.
  stalled(): boolean {
    this.#stalls += 1;
    return this.#stalls >= STALLS_MAX;
  }

  // A stream came to nothing: when to try again, or null when we are down now.
  streamFailed(retryMs: number | null, limited: boolean, now: number): number | null {
    this.failures += 1;
    this.checkNext = this.failures >= FAILURES_MAX;
    if (!this.#checked) return now + (retryMs ?? backoffMs(this.failures, this.#random));
    this.goDown(limited ? "limit" : "blocked", now);
    return null;
  }

  // A short request was answered in place of the stream, or below: when to act again.
  answered(more: boolean, retryMs: number | null, now: number): number {
    this.#lostAsks = 0;
    if (this.down === null) {
      this.#checked = true;
      this.checkNext = false;
      return now;
    }
    this.failures = 0;
    if (more) return now;
    this.everyMs = retryMs ?? ASK_AGAIN_MS;
    return now + this.everyMs;
  }

  // A short request failed, or nothing answered it at all.
  askFailed(retryMs: number | null, lost: boolean, now: number): number {
    this.failures += 1;
    this.checkNext = false; // nothing passes: the stream's turn again
    if (lost) this.#lostAsks += 1;
    if (this.down !== null && this.#lostAsks >= FAILURES_MAX) this.waitS = 0;
    return now + (retryMs ?? backoffMs(this.failures, this.#random));
  }
}
