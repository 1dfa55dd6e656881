// Does what the machine says: opens streams, asks, waits, and tells it what came of them.

import { isJson, type Told, told } from "./answers.ts";
import type { Credential } from "./credential.ts";
import { type Frame, frameOf } from "./frames.ts";
import { Machine } from "./machine.ts";
import type { Room } from "./room.ts";
import { SseParser } from "./sse.ts";
import type { Command, Condition, End, Pace, Page, Reason } from "./terms.ts";
import { retryAfterMs } from "./waits.ts";

const LOOK_MS = 5_000; // the clock is looked at this often: when it jumped, the machine slept

export interface Surroundings {
  readonly fetch: (address: string, init: RequestInit) => Promise<Response>;
  readonly now: () => number;
  readonly later: (ms: number, then: () => void) => () => void;
  readonly random: () => number;
}

export const SURROUNDINGS: Surroundings = {
  fetch: (address, init) => fetch(address, init),
  now: () => Date.now(),
  later: (ms, then) => {
    const timer = setTimeout(then, ms);
    return () => clearTimeout(timer);
  },
  random: () => Math.random(),
};

export interface Reader {
  readonly frames: (frames: readonly Frame[]) => void;
  readonly condition: (condition: Condition) => void;
  readonly end: (end: End) => void;
  readonly moved?: (cursor: number) => void; // a page was read: the cursor may lie behind events that are withheld
  readonly ready?: () => Promise<void> | null; // waits while the reader has too much to read
}

// What is being followed, however that is done.
export interface Following {
  readonly cursor: number;
  leave(): void;
  wake(): void;
  online(): void;
  offline(): void;
  tryLive(): void;
}

export interface Wanted {
  readonly url: string;
  readonly runId: string;
  readonly after: number;
  readonly types?: readonly string[] | undefined; // a stream that is not shared may be asked for these only
}

export interface Means {
  readonly credential: Credential;
  readonly room?: Room | null;
  readonly pace?: Partial<Pace> | undefined;
  readonly down?: Reason | null;
  readonly surroundings?: Surroundings;
}

export class Follower implements Following {
  readonly #wanted: Wanted;
  readonly #credential: Credential;
  readonly #room: Room | null;
  readonly #around: Surroundings;
  readonly #reader: Reader;
  readonly #machine: Machine;
  #stream: AbortController | null = null;
  #request: AbortController | null = null;
  #cancelTimer: (() => void) | null = null;
  #key: string | null = null;
  #version = { after: -1, etag: "" };
  #turn = 0;

  constructor(wanted: Wanted, means: Means, reader: Reader) {
    this.#wanted = wanted;
    this.#credential = means.credential;
    this.#room = means.room ?? null;
    this.#around = means.surroundings ?? SURROUNDINGS;
    this.#reader = reader;
    const { pace, down = null } = means;
    this.#machine = new Machine({ after: wanted.after, random: this.#around.random, pace, down });
  }

  get cursor(): number {
    return this.#machine.cursor;
  }

  get heardAt(): number | null {
    return this.#machine.heardAt;
  }

  get reconnects(): number {
    return this.#machine.reconnects;
  }

  get reason(): Reason | null {
    return this.#machine.reason;
  }

  async start(): Promise<void> {
    const key = await this.#credential.key().catch(() => null);
    if (this.#machine.end !== null) return;
    this.#key = key;
    this.#do(key === null ? this.#machine.signedOut(null) : this.#machine.start(this.#around.now()));
  }

  leave(): void {
    this.#do(this.#machine.leave());
  }

  wake(): void {
    this.#do(this.#machine.wake(this.#around.now()));
  }

  online(): void {
    this.#do(this.#machine.online(this.#around.now()));
  }

  offline(): void {
    this.#do(this.#machine.offline());
  }

  tryLive(): void {
    this.#do(this.#machine.tryLive(this.#around.now()));
  }

  #do(commands: readonly Command[]): void {
    for (const command of commands) {
      if (command.do === "open") void this.#listen(command.after);
      else if (command.do === "ask") void this.#ask(command.after, command.waitS);
      else if (command.do === "drop") this.#dropStream();
      else if (command.do === "drop-ask") this.#dropAsk();
      else if (command.do === "credential") void this.#signIn();
      else if (command.do === "frames") this.#reader.frames(command.frames);
      else if (command.do === "tell") this.#reader.condition(command.condition);
      else this.#reader.end(command.end);
    }
    this.#wait();
  }

  #wait(): void {
    this.#cancelTimer?.();
    this.#cancelTimer = null;
    if (this.#machine.end !== null) return;
    const began = this.#around.now();
    const wait = Math.max(0, Math.min(this.#machine.dueAt - began, LOOK_MS));
    this.#cancelTimer = this.#around.later(wait, () => {
      const now = this.#around.now();
      if (now - began > wait + LOOK_MS) this.#do(this.#machine.wake(now));
      this.#do(this.#machine.tick(now));
    });
  }

  async #listen(after: number): Promise<void> {
    const mine = new AbortController();
    this.#stream = mine;
    const still = () => this.#stream === mine;
    try {
      if (this.#room !== null && !(await this.#room.take(mine.signal, () => this.tryLive()))) {
        if (still()) this.#do(this.#machine.noRoom(this.#around.now()));
        return;
      }
      if (!still()) return;
      const response = await this.#get(`events?after=${after}${this.#types()}`, "text/event-stream", mine.signal);
      if (!still()) return;
      const kind = response.headers.get("Content-Type") ?? "";
      if (response.status !== 200 || !kind.startsWith("text/event-stream") || response.body === null) {
        const answer = await this.#told(response);
        if (still()) this.#do(this.#machine.streamRefused(answer, this.#around.now()));
        return;
      }
      this.#do(this.#machine.opened(this.#around.now()));
      await this.#read(response.body, still);
    } catch {
      // The connection broke, or what came is no stream of events: either way it is over.
    }
    if (still()) this.#do(this.#machine.streamOver(this.#around.now()));
  }

  async #read(body: ReadableStream<Uint8Array>, still: () => boolean): Promise<void> {
    const parser = new SseParser();
    const decoder = new TextDecoder();
    const reader = body.getReader();
    for (let part = await reader.read(); still() && !part.done; part = await reader.read()) {
      this.#do(this.#machine.heard(this.#around.now()));
      const events = parser.push(decoder.decode(part.value, { stream: true }));
      const frames = events.map((event) => frameOf(JSON.parse(event.data)));
      if (events.length > 0) this.#do(this.#machine.frames(frames.filter((frame) => frame !== null)));
      const ready = this.#reader.ready?.() ?? null;
      if (ready !== null) await ready;
    }
  }

  async #ask(after: number, waitS: number): Promise<void> {
    const mine = new AbortController();
    this.#request = mine;
    const still = () => this.#request === mine;
    try {
      const etag = this.#version.after === after ? this.#version.etag : "";
      const wait = waitS > 0 ? `&wait=${waitS}` : "";
      this.#turn += 1; // an address that was never asked before: no cache can repeat an old answer
      const turn = `${this.#around.now().toString(36)}${this.#turn}`;
      const path = `poll?after=${after}${wait}${this.#types()}&partial=none&turn=${turn}`;
      const response = await this.#get(path, "application/json", mine.signal, etag);
      const retryMs = retryAfterMs(response.headers.get("Retry-After"), this.#around.now());
      if (response.status === 304) {
        if (still()) this.#do(this.#machine.noNews(retryMs, this.#around.now()));
        return;
      }
      const page = response.status === 200 && isJson(response) ? pageOf(await response.json()) : null;
      const answer = page === null ? await this.#told(response) : null;
      if (!still()) return;
      if (answer !== null) this.#do(this.#machine.askRefused(answer, this.#around.now()));
      if (page === null) return;
      this.#version = { after: page.nextAfter, etag: page.more ? "" : (response.headers.get("ETag") ?? "") };
      this.#do(this.#machine.page(page, retryMs, this.#around.now()));
      this.#reader.moved?.(this.cursor);
    } catch {
      if (still()) this.#do(this.#machine.askLost(this.#around.now()));
    }
  }

  #types(): string {
    return this.#wanted.types === undefined ? "" : `&types=${this.#wanted.types.join(",")}`;
  }

  #get(path: string, accept: string, signal: AbortSignal, etag = ""): Promise<Response> {
    const { url, runId } = this.#wanted;
    const headers: Record<string, string> = { Accept: accept };
    if (this.#key) headers.Authorization = `Bearer ${this.#key}`;
    if (etag !== "") headers["If-None-Match"] = etag;
    const address = `${url}/v1/runs/${encodeURIComponent(runId)}/${path}`;
    return this.#around.fetch(address, { headers, signal, cache: "no-store" });
  }

  #told(response: Response): Promise<Told> {
    return told(response, this.#around.now());
  }

  async #signIn(): Promise<void> {
    const refused = this.#key;
    const key = await this.#credential.instead(refused).catch(() => null);
    if (key === null) this.#do(this.#machine.signedOut(null));
    else {
      this.#key = key;
      this.#do(this.#machine.signedIn(key !== refused, this.#around.now()));
    }
  }

  #dropStream(): void {
    this.#stream?.abort();
    this.#stream = null;
    this.#room?.leave();
  }

  #dropAsk(): void {
    this.#request?.abort();
    this.#request = null;
  }
}

function pageOf(body: unknown): Page | null {
  const told = body as { events?: unknown; next_after?: unknown; more?: unknown; done?: unknown } | null;
  if (!Array.isArray(told?.events) || !Number.isSafeInteger(told.next_after)) return null;
  const frames = told.events.map(frameOf).filter((frame) => frame !== null);
  return { frames, nextAfter: Number(told.next_after), more: told.more === true, done: told.done === true };
}
