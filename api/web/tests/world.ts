// A clock that tests turn, and a server behind a network that does what they say.

import type { Surroundings } from "../client/follower.ts";

export const RUN = "0199c0de-0000-7000-8000-000000000001";
export const KEY = "rw_key";

interface Timer {
  readonly at: number;
  readonly go: () => void;
}

interface Open {
  after: number;
  readonly controller: ReadableStreamDefaultController<Uint8Array>;
  readonly buffered: boolean;
  held: Uint8Array[];
}

export class World {
  time = 1_000_000;
  keys = new Set([KEY]);
  frames: { seq: number; type: string }[] = [];
  asked: { at: number; path: string; headers: Headers; turn: string | null }[] = [];
  refusals: Response[] = []; // each for one request, in order
  down = false; // nothing answers
  buffers = false; // answers are held back until they are whole
  retryAfter = "1";
  lagMs = 0; // how much later streams bring what short requests bring at once
  noStreams: (() => Response) | null = null;
  #news: (() => void)[] = []; // whoever waits for an event
  readonly #timers = new Set<Timer>();
  readonly #open = new Set<Open>();
  readonly #random: () => number;

  constructor(random: () => number = () => 0.5) {
    this.#random = random;
  }

  get around(): Surroundings {
    return {
      fetch: (address, init) => this.#fetch(new URL(address), init),
      now: () => this.time,
      later: (ms, go) => {
        const timer = { at: this.time + ms, go };
        this.#timers.add(timer);
        return () => this.#timers.delete(timer);
      },
      random: this.#random,
    };
  }

  get streams(): number {
    return this.#open.size;
  }

  paths(kind: string): string[] {
    return this.asked.map(({ path }) => path).filter((path) => path.startsWith(kind));
  }

  add(type = "token"): void {
    const seq = this.frames.length + 1;
    const frame = {
      seq,
      run_id: RUN,
      type,
      at: "2026-11-20T07:12:53Z",
      attempt: 1,
      final: type === "result",
      data: {},
    };
    this.frames.push(frame);
    for (const open of [...this.#open]) {
      if (this.lagMs === 0) this.#serve(open);
      else this.around.later(this.lagMs, () => this.#serve(open));
    }
    for (const waiting of this.#news.splice(0)) waiting();
  }

  say(text: string): void {
    for (const open of this.#open) this.#send(open, new TextEncoder().encode(text));
  }

  // Streams go on after this place.
  skip(seq: number): void {
    for (const open of this.#open) open.after = seq;
  }

  // Open streams are dead, and nobody is told.
  die(): void {
    this.#open.clear();
  }

  // Every open stream is lost.
  cut(clean = false): void {
    for (const { controller } of this.#open) {
      if (clean) controller.close();
      else controller.error(new TypeError("network error"));
    }
    this.#open.clear();
  }

  // Lets time pass, and everything happen that is due in it.
  async pass(ms: number): Promise<void> {
    const end = this.time + ms;
    await this.settle();
    for (let next = this.#due(end); next !== null; next = this.#due(end)) {
      this.time = Math.max(this.time, next.at);
      this.#timers.delete(next);
      next.go();
      await this.settle();
    }
    this.time = end;
  }

  // The machine sleeps: the clock goes on and nothing happens.
  sleep(ms: number): void {
    this.time += ms;
  }

  async settle(): Promise<void> {
    for (let turn = 0; turn < 4; turn += 1) await new Promise((resolve) => setImmediate(resolve));
  }

  #due(end: number): Timer | null {
    const due = [...this.#timers].filter(({ at }) => at <= end).sort((one, other) => one.at - other.at);
    return due[0] ?? null;
  }

  async #fetch(address: URL, init: RequestInit): Promise<Response> {
    const headers = new Headers(init.headers);
    const turn = address.searchParams.get("turn");
    for (const name of ["turn", "partial"]) address.searchParams.delete(name);
    const path = address.pathname.replace(`/v1/runs/${RUN}/`, "") + address.search;
    this.asked.push({ at: this.time, path, headers, turn });
    if (this.down) throw new TypeError("fetch failed");
    const refusal = this.refusals.shift();
    if (refusal !== undefined) return refusal;
    if (!this.keys.has(headers.get("Authorization")?.replace("Bearer ", "") ?? "")) return problem(401);
    const after = Number(address.searchParams.get("after"));
    if (path.startsWith("events")) return this.noStreams?.() ?? this.#stream(after, init.signal);
    if (path.startsWith("poll")) {
      const answer = await this.#poll(after, Number(address.searchParams.get("wait") ?? 0), init.signal);
      const same = answer.headers.get("ETag") === headers.get("If-None-Match") && after === this.frames.length;
      return same ? new Response(null, { status: 304, headers: answer.headers }) : answer;
    }
    return Response.json({ path: address.pathname, body: init.body ?? null });
  }

  #stream(after: number, signal: AbortSignal | null | undefined): Response {
    if (after > 0 && after === this.frames.length && this.#ended()) return new Response(null, { status: 204 });
    const body = new ReadableStream<Uint8Array>({
      start: (controller) => {
        const open: Open = { after, controller, buffered: this.buffers, held: [] };
        this.#open.add(open);
        signal?.addEventListener("abort", () => {
          if (this.#open.delete(open)) controller.error(signal.reason);
        });
        this.#serve(open);
      },
    });
    return new Response(body, { headers: { "Content-Type": "text/event-stream; charset=utf-8" } });
  }

  #serve(open: Open): void {
    for (const frame of this.frames.slice(open.after)) {
      open.after = frame.seq;
      const text = `id: ${frame.seq}\nevent: ${frame.type}\ndata: ${JSON.stringify(frame)}\n\n`;
      this.#send(open, new TextEncoder().encode(text));
    }
    if (!this.#ended()) return;
    for (const held of open.held) open.controller.enqueue(held);
    open.controller.close();
    this.#open.delete(open);
  }

  #send(open: Open, bytes: Uint8Array): void {
    if (open.buffered) open.held.push(bytes);
    else open.controller.enqueue(bytes);
  }

  async #poll(after: number, waitS: number, signal: AbortSignal | null | undefined): Promise<Response> {
    if (waitS > 0 && this.frames.length <= after && !this.#ended()) {
      await new Promise<void>((resolve, reject) => {
        this.#timers.add({ at: this.time + waitS * 1_000, go: resolve });
        this.#news.push(resolve);
        signal?.addEventListener("abort", () => reject(signal.reason));
      });
    }
    const events = this.frames.slice(after, after + 3);
    const next = after + events.length;
    const more = next < this.frames.length;
    const headers = { "Retry-After": this.retryAfter, ETag: `"${this.frames.length}"` };
    return Response.json({ events, next_after: next, more, done: this.#ended() }, { headers });
  }

  #ended(): boolean {
    return ["result", "cancelled", "error"].includes(this.frames.at(-1)?.type ?? "");
  }
}

export function problem(status: number, headers: Record<string, string> = {}): Response {
  const body = JSON.stringify({ title: "No", detail: `No: ${status}`, status });
  return new Response(body, { status, headers: { "Content-Type": "application/problem+json", ...headers } });
}

// The same numbers for the same seed.
export function dice(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}
