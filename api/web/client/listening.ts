// One stream that is listened to: since when, what came of it, and what its silence means. Pure.

import { NEVER } from "./ladder.ts";
import type { Pace } from "./terms.ts";

export class Listening {
  readonly since: number;
  opened = false;
  heardAt: number | null = null;
  news = false;
  compared = false; // a short request was answered meanwhile
  #doubtAt: number | null = null;
  #probes = 0;
  readonly #pace: Pace;
  #probing: boolean;

  constructor(pace: Pace, now: number, probing: boolean) {
    this.#pace = pace;
    this.since = now;
    this.#probing = probing;
  }

  get mute(): boolean {
    return this.heardAt === null;
  }

  get dueAt(): number {
    return Math.min(this.#doubtAt ?? NEVER, this.#probeAt(), this.#deadAt());
  }

  silentFor(now: number): number {
    return now - (this.heardAt ?? this.since);
  }

  heard(now: number): void {
    this.opened = this.#probing = true;
    this.heardAt = now;
    this.#doubtAt = null;
    this.#probes = 0;
  }

  // A short request was answered. What it brought may be on its way here too.
  answeredBeside(news: boolean, now: number): void {
    this.compared = true;
    if (news) this.#doubtAt = now + this.#pace.graceMs;
  }

  // `overtaken`: news came by another way only. `dead`: too long silent. `probe`: silent, so compare it.
  verdict(now: number): "overtaken" | "dead" | "probe" | null {
    if (this.#doubtAt !== null && now >= this.#doubtAt) return "overtaken";
    if (now >= this.#deadAt()) return "dead";
    if (now < this.#probeAt()) return null;
    this.#probes += 1;
    return "probe";
  }

  // 3, 6, 12 s … without a first byte; after that only when a keep-alive is overdue.
  #probeAt(): number {
    if (!this.#probing || this.#doubtAt !== null) return NEVER;
    const first = this.mute ? this.#pace.probeMs : this.#pace.dueMs;
    return (this.heardAt ?? this.since) + first * 2 ** this.#probes;
  }

  #deadAt(): number {
    return this.heardAt === null ? this.since + this.#pace.muteMs : this.heardAt + this.#pace.deadMs;
  }
}
