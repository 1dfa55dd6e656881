// One run as its reader has it: frames to iterate over or to be called with, how they come, and how it ended.

import { Refused } from "./answers.ts";
import type { FollowOptions } from "./client.ts";
import type { Following, Reader } from "./follower.ts";
import { type Frame, wantedOf } from "./frames.ts";
import type { Condition, End } from "./terms.ts";

const WAITING_MAX = 1_000; // frames that nobody took: then the network is read no further

export class Story implements AsyncIterable<Frame> {
  condition: Condition = { state: "connecting", transport: "stream", reason: null, everyMs: null };
  readonly ended: Promise<End>;
  readonly #following: Following;
  #waiting: Frame[] = [];
  #end: End | null = null;
  #moved: () => void = () => undefined; // whoever waits for a frame
  #drained: () => void = () => undefined; // whoever waits for room

  constructor(options: FollowOptions, follow: (reader: Reader) => Following) {
    let over: (end: End) => void = () => undefined;
    this.ended = new Promise((resolve) => {
      over = resolve;
    });
    const wanted = wantedOf(options.types);
    this.#following = follow({
      frames: (all) => {
        const frames = all.filter(wanted);
        if (options.onFrames === undefined) this.#waiting.push(...frames);
        else if (frames.length > 0) options.onFrames(frames);
        this.#moved();
      },
      condition: (condition) => {
        this.condition = condition;
        options.onCondition?.(condition);
      },
      end: (end) => {
        this.#end = end;
        over(end);
        this.#moved();
        this.#drained();
      },
      ready: () => (this.#waiting.length < WAITING_MAX ? null : this.#room()),
    });
    const leave = () => this.leave();
    if (options.signal?.aborted) leave();
    options.signal?.addEventListener("abort", leave, { once: true });
    void this.ended.then(() => options.signal?.removeEventListener("abort", leave));
  }

  // The last seq that came.
  get cursor(): number {
    return this.#following.cursor;
  }

  leave(): void {
    this.#following.leave();
  }

  // Tries the live stream now, while events come by short requests.
  tryLive(): void {
    this.#following.tryLive();
  }

  // Ends after the terminal event, or when it is left; throws Refused when the server will say no again.
  async *[Symbol.asyncIterator](): AsyncGenerator<Frame, void, void> {
    try {
      for (;;) {
        const frames = this.#waiting;
        this.#waiting = [];
        this.#drained();
        yield* frames;
        if (this.#waiting.length > 0) continue;
        if (this.#end?.how === "refused") throw new Refused(this.#end.status, this.#end.problem);
        if (this.#end !== null) return;
        await new Promise<void>((resolve) => {
          this.#moved = resolve;
        });
      }
    } finally {
      this.leave();
    }
  }

  #room(): Promise<void> {
    return new Promise((resolve) => {
      this.#drained = resolve;
    });
  }
}
