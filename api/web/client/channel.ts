// One run's events for several tabs: followed once, the last of them kept, each tab at its own cursor.

import { Credential } from "./credential.ts";
import { Follower, type Surroundings } from "./follower.ts";
import type { Frame } from "./frames.ts";
import type { Port, ToHub } from "./messages.ts";
import type { Condition, End, Pace } from "./terms.ts";

const KEPT_MAX = 2_000;
const KEPT_AFTER_CUT = 1_500;
const NO_STREAM = { retryLiveMs: Number.POSITIVE_INFINITY, retryLiveMaxMs: Number.POSITIVE_INFINITY };

type Asked = ToHub & { do: "follow" };

export interface Watcher {
  readonly id: number;
  readonly port: Port;
  readonly channel: Channel;
  readonly ended: () => void;
  cursor: number;
}

// A frame, and the place up to which it tells. Whoever is further has no need of it.
interface Kept {
  readonly at: number;
  readonly frame: Frame;
}

export class Channel {
  readonly #asked: Asked;
  readonly #around: Surroundings;
  readonly #pace: Partial<Pace> | undefined;
  readonly #closed: () => void;
  readonly #credential: Credential;
  readonly #follower: Follower;
  readonly #joined = new Set<Watcher>();
  readonly #behind = new Map<Watcher, Follower>(); // those who read what came before
  #key: string;
  #kept: Kept[] = [];
  #keptAfter: number;
  #cursor: number;
  #condition: Condition | null = null;
  #end: End | null = null;
  #keyWanted: { readonly from: Set<Watcher>; readonly give: (key: string | null) => void } | null = null;

  constructor(asked: Asked, around: Surroundings, pace: Partial<Pace> | undefined, closed: () => void) {
    this.#asked = asked;
    this.#around = around;
    this.#pace = pace;
    this.#closed = closed;
    this.#key = asked.key;
    this.#keptAfter = this.#cursor = asked.after;
    this.#credential = new Credential((refused) => (refused === null ? this.#key : this.#askTabs(refused)));
    this.#follower = new Follower(
      asked,
      { credential: this.#credential, surroundings: around, pace },
      {
        frames: (frames) => this.#take(frames),
        condition: (condition) => this.#tell(condition),
        end: (end) => this.#over(end),
      },
    );
    void this.#follower.start();
  }

  // Whoever shows another key may be shown other things, so keys are never shared.
  carries(asked: Asked): boolean {
    const same = asked.url === this.#asked.url && asked.runId === this.#asked.runId;
    return this.#end === null && same && asked.key === this.#key;
  }

  add(watcher: Watcher): void {
    if (this.#condition !== null) watcher.port.say({ say: "condition", id: watcher.id, condition: this.#condition });
    if (watcher.cursor >= this.#keptAfter) this.#join(watcher);
    else this.#catchUp(watcher);
  }

  remove(watcher: Watcher): void {
    this.#joined.delete(watcher);
    this.#behind.get(watcher)?.leave();
    this.#behind.delete(watcher);
    this.keyFrom(watcher, null);
    if (this.#joined.size + this.#behind.size > 0) return;
    this.#follower.leave();
    this.#closed();
  }

  each(what: (follower: Follower) => void): void {
    for (const follower of [this.#follower, ...this.#behind.values()]) what(follower);
  }

  // A tab's answer to the question for another key. The first one that brings a key answers for all.
  keyFrom(watcher: Watcher, key: string | null): void {
    const wanted = this.#keyWanted;
    if (wanted === null || !wanted.from.delete(watcher) || (key === null && wanted.from.size > 0)) return;
    this.#keyWanted = null;
    if (key !== null) this.#key = key;
    wanted.give(key);
  }

  #askTabs(refused: string): Promise<string | null> {
    return new Promise((give) => {
      const from = new Set([...this.#joined, ...this.#behind.keys()]);
      if (from.size === 0) give(null);
      this.#keyWanted = { from, give };
      for (const watcher of from) watcher.port.say({ say: "key", id: watcher.id, refused });
    });
  }

  #join(watcher: Watcher): void {
    this.#behind.delete(watcher);
    this.#joined.add(watcher);
    this.#give(watcher, this.#kept);
    if (this.#end !== null) this.#giveEnd(watcher, this.#end);
  }

  #catchUp(watcher: Watcher): void {
    const reached = (cursor: number) => {
      if (this.#behind.get(watcher) !== follower || cursor < this.#keptAfter) return;
      watcher.cursor = Math.max(watcher.cursor, cursor);
      this.#join(watcher);
      follower.leave();
    };
    const follower = new Follower(
      { ...this.#asked, after: watcher.cursor },
      { credential: this.#credential, surroundings: this.#around, pace: { ...this.#pace, ...NO_STREAM }, down: "tabs" },
      {
        frames: (frames) =>
          this.#give(
            watcher,
            frames.map((frame) => ({ at: placeOf(frame) ?? 0, frame })),
          ),
        moved: reached,
        condition: () => undefined,
        end: (end) => {
          if (end.how !== "left" && this.#behind.delete(watcher)) this.#giveEnd(watcher, end);
        },
      },
    );
    this.#behind.set(watcher, follower);
    void follower.start();
  }

  #take(frames: readonly Frame[]): void {
    const fresh = frames.map((frame) => {
      const at = placeOf(frame) ?? this.#cursor;
      this.#cursor = Math.max(this.#cursor, at);
      return { at, frame };
    });
    this.#kept.push(...fresh);
    if (this.#kept.length > KEPT_MAX) {
      const cut = this.#kept.splice(0, this.#kept.length - KEPT_AFTER_CUT);
      this.#keptAfter = cut.at(-1)?.at ?? this.#keptAfter;
    }
    for (const watcher of [...this.#joined]) this.#give(watcher, fresh);
  }

  #give(watcher: Watcher, kept: readonly Kept[]): void {
    const fresh = kept.filter(({ at }) => at > watcher.cursor);
    if (fresh.length === 0) return;
    watcher.cursor = Math.max(watcher.cursor, fresh.at(-1)?.at ?? 0);
    watcher.port.say({ say: "frames", id: watcher.id, frames: fresh.map(({ frame }) => frame) });
  }

  #tell(condition: Condition): void {
    this.#condition = condition;
    for (const { port, id } of [...this.#joined, ...this.#behind.keys()]) port.say({ say: "condition", id, condition });
  }

  #over(end: End): void {
    if (end.how === "left") return;
    this.#end = end;
    this.#closed();
    for (const watcher of [...this.#joined]) this.#giveEnd(watcher, end);
  }

  #giveEnd(watcher: Watcher, end: End): void {
    this.#joined.delete(watcher);
    watcher.ended();
    watcher.port.say({ say: "end", id: watcher.id, end });
  }
}

function placeOf(frame: Frame): number | undefined {
  return frame.type === "lagging" ? frame.data.last : frame.seq;
}
