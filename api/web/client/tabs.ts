// This tab's side of the worker that all tabs share. When there is no such worker, or it does not answer, the tab
// follows for itself from its own cursor: sharing saves connections, and nothing depends on it.

import type { Credential } from "./credential.ts";
import type { Following, Reader, Wanted } from "./follower.ts";
import type { ToHub, ToTab } from "./messages.ts";

const READY_MS = 3_000;
const HERE_MS = 20_000;
const UNANSWERED_MAX = 2;

export interface SharedPort {
  onmessage: ((event: MessageEvent<ToTab>) => void) | null;
  postMessage(message: ToHub): void;
  close(): void;
}

type Alone = (wanted: Wanted, credential: Credential, reader: Reader) => Following;

export class Tabs {
  readonly #port: SharedPort;
  readonly #alone: Alone;
  readonly #shared = new Map<number, SharedFollowing>();
  readonly #timer: ReturnType<typeof setInterval>;
  #ready: ReturnType<typeof setTimeout> | null;
  #unanswered = 0;
  #broken = false;
  #ids = 0;

  constructor(port: SharedPort, alone: Alone) {
    this.#port = port;
    this.#alone = alone;
    port.onmessage = ({ data }) => this.#hear(data);
    this.#ready = setTimeout(() => this.break(), READY_MS);
    this.#timer = setInterval(() => this.#here(), HERE_MS);
  }

  follow(wanted: Wanted, credential: Credential, reader: Reader): Following {
    if (this.#broken) return this.#alone(wanted, credential, reader);
    this.#ids += 1;
    const id = this.#ids;
    const following = new SharedFollowing(id, wanted, credential, reader, (message) => this.#say(message));
    this.#shared.set(id, following);
    following.over = () => this.#shared.delete(id);
    void following.start();
    return following;
  }

  // The page is put away: the worker need not think of it until it is back.
  hide(): void {
    for (const id of this.#shared.keys()) this.#say({ do: "leave", id });
  }

  show(): void {
    for (const following of this.#shared.values()) void following.start();
  }

  wake(): void {
    this.#say({ do: "wake" });
  }

  // The worker is not to be had: everybody for himself.
  break(): void {
    if (this.#broken) return;
    this.close();
    this.#broken = true;
    for (const following of this.#shared.values()) following.goAlone(this.#alone);
  }

  leave(): void {
    for (const following of [...this.#shared.values()]) following.leave();
    this.close();
  }

  close(): void {
    clearInterval(this.#timer);
    if (this.#ready !== null) clearTimeout(this.#ready);
    this.#ready = null;
    this.#port.close();
  }

  #say(message: ToHub): void {
    if (!this.#broken) this.#port.postMessage(message);
  }

  #here(): void {
    this.#unanswered += 1;
    if (this.#unanswered > UNANSWERED_MAX) this.break();
    else this.#say({ do: "here", ids: [...this.#shared.keys()] });
  }

  #hear(message: ToTab): void {
    if (this.#broken) return;
    this.#unanswered = 0;
    if (this.#ready !== null) clearTimeout(this.#ready);
    this.#ready = null;
    if (message.say !== "here") this.#shared.get(message.id)?.hear(message);
  }
}

class SharedFollowing implements Following {
  cursor: number;
  over: () => void = () => undefined;
  readonly #id: number;
  readonly #wanted: Wanted;
  readonly #credential: Credential;
  readonly #reader: Reader;
  readonly #say: (message: ToHub) => void;
  #alone: Following | null = null;
  #left = false;

  constructor(id: number, wanted: Wanted, credential: Credential, reader: Reader, say: (message: ToHub) => void) {
    this.#id = id;
    this.#wanted = wanted;
    this.cursor = wanted.after;
    this.#credential = credential;
    this.#reader = reader;
    this.#say = say;
  }

  async start(): Promise<void> {
    const key = await this.#credential.key().catch(() => null);
    if (this.#left || this.#alone !== null) return;
    if (key === null) this.#end({ say: "end", id: this.#id, end: { how: "refused", status: 401, problem: null } });
    else {
      const { url, runId } = this.#wanted;
      this.#say({ do: "follow", id: this.#id, url, runId, after: this.cursor, key });
    }
  }

  hear(message: ToTab): void {
    if (this.#left) return;
    if (message.say === "frames") {
      const fresh = message.frames.filter((frame) => frame.seq === undefined || frame.seq > this.cursor);
      this.cursor = fresh.reduce((cursor, frame) => Math.max(cursor, frame.seq ?? 0), this.cursor);
      if (fresh.length > 0) this.#reader.frames(fresh);
    } else if (message.say === "condition") this.#reader.condition(message.condition);
    else if (message.say === "key") void this.#bringKey(message.refused);
    else if (message.say === "again") void this.start();
    else if (message.say === "end") this.#end(message);
  }

  goAlone(alone: Alone): void {
    if (this.#left) return;
    this.#alone = alone({ ...this.#wanted, after: this.cursor }, this.#credential, {
      ...this.#reader,
      frames: (frames) => {
        this.cursor = this.#alone?.cursor ?? this.cursor;
        this.#reader.frames(frames);
      },
    });
  }

  leave(): void {
    if (this.#left) return;
    this.#say({ do: "leave", id: this.#id });
    if (this.#alone !== null) this.#alone.leave();
    else this.#end({ say: "end", id: this.#id, end: { how: "left" } });
  }

  wake(): void {
    this.#alone?.wake(); // the worker is told once for all
  }

  online(): void {
    this.#alone?.online();
  }

  offline(): void {
    this.#alone?.offline();
  }

  tryLive(): void {
    if (this.#alone !== null) this.#alone.tryLive();
    else this.#say({ do: "live", id: this.#id });
  }

  async #bringKey(refused: string): Promise<void> {
    const key = await this.#credential.instead(refused).catch(() => null);
    this.#say({ do: "key", id: this.#id, key });
  }

  #end(message: ToTab & { say: "end" }): void {
    this.#left = true;
    this.over();
    this.#reader.end(message.end);
  }
}
