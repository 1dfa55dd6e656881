// How a run is followed over a network that may cut, buffer, refuse or sleep. Pure: told what happened and when, it
// says what to do next. Two ways lead to the same events: the event stream, and short requests with the same cursor.

import { TERMINAL } from "./events.ts";
import type { Checkpoint, Frame } from "./frames.ts";
import { Ladder, NEVER } from "./ladder.ts";
import { Listening } from "./listening.ts";
import type { Reason, Refusal } from "./terms.ts";
import { type Command, type Condition, type End, PACE, type Pace, type Page } from "./terms.ts";
import { backoffMs } from "./waits.ts";

const REFUSALS_MAX = 4; // of one and the same credential
const AWAY: ReadonlySet<number> = new Set([407, 408, 421, 425, 429]); // 4xx that may pass

interface Asked {
  readonly since: number;
  readonly waitS: number;
}

export interface Start {
  readonly after: number;
  readonly random: () => number;
  readonly pace?: Partial<Pace> | undefined;
  readonly down?: Reason | null; // this network was found out before
}

export class Machine {
  cursor: number;
  heardAt: number | null = null; // anything from the server
  reconnects = 0;
  end: End | null = null;
  readonly #pace: Pace;
  readonly #random: () => number;
  readonly #ladder: Ladder;
  #out: Command[] = [];
  #told = "";
  #stream: Listening | null = null;
  #asked: Asked | null = null;
  #nextAt: number | null = null;
  #limited = false;
  #refusals = 0;
  #signingIn = false;
  #offline = false; // as the browser has it, which may be wrong
  #reached = true; // since it said so, or since something failed

  constructor(start: Start) {
    this.cursor = start.after;
    this.#random = start.random;
    this.#pace = { ...PACE, ...start.pace };
    this.#ladder = new Ladder(this.#pace, start.random, start.down ?? null);
  }

  get reason(): Reason | null {
    return this.#ladder.down;
  }

  // When it wants to be told the time again.
  get dueAt(): number {
    if (this.end !== null || this.#signingIn) return NEVER;
    const due = [this.#nextAt ?? NEVER];
    if (this.#asked !== null) due.push(this.#answerBy(this.#asked));
    if (this.#stream === null) due.push(this.#ladder.down === null ? NEVER : this.#ladder.liveAt);
    else due.push(this.#stream.dueAt);
    return Math.min(...due);
  }

  start(now: number): Command[] {
    return this.#change(() => {
      if (this.#ladder.down !== null) this.#ladder.liveLater(now);
      this.#act(now);
    });
  }

  // The stream's answer has begun.
  opened(now: number): Command[] {
    return this.#change(() => {
      if (this.#stream === null) return;
      this.#stream.opened = true;
      this.heardAt = now;
      this.#refusals = 0;
    });
  }

  // Bytes came on the stream, a keep-alive among them.
  heard(now: number): Command[] {
    return this.#change(() => {
      if (this.#stream === null) return;
      this.#stream.heard(now);
      this.heardAt = now;
      this.#limited = false;
      this.#reached = true;
      if (!this.#ladder.heard()) return;
      this.#nextAt = null;
      this.#dropAsk();
    });
  }

  frames(frames: readonly (Frame | Checkpoint)[]): Command[] {
    return this.#change(() => {
      if (this.#stream !== null && this.#take(frames)) this.#stream.news = true;
    });
  }

  // The stream ended: cleanly, or cut, or with something that is no stream of events.
  streamOver(now: number): Command[] {
    return this.#change(() => {
      const stream = this.#stream;
      if (stream === null) return;
      this.#dropStream();
      this.#reached = false;
      this.reconnects += 1;
      if (stream.mute) this.#streamFailed(now, null);
      else this.#nextAt = this.#ladder.nextAfterStream(now - stream.since, stream.news, now);
    });
  }

  streamRefused(refusal: Refusal, now: number): Command[] {
    return this.#change(() => {
      if (this.#stream === null) return;
      this.#dropStream();
      if (refusal.status === 204) this.#finish({ how: "ended" });
      else if (!this.#forGood(refusal)) {
        this.#limited = refusal.status === 429;
        this.#streamFailed(now, refusal.retryMs);
      }
    });
  }

  // There is no room for one more stream in this browser.
  noRoom(now: number): Command[] {
    return this.#change(() => {
      this.#dropStream();
      if (this.#ladder.down === null) this.#goDown("tabs", now);
      else this.#ladder.liveLater(now);
    });
  }

  page(page: Page, retryMs: number | null, now: number): Command[] {
    return this.#change(() => {
      if (!this.#answered(now)) return;
      const news = this.#take(page.frames);
      this.cursor = Math.max(this.cursor, page.nextAfter);
      if (this.end !== null) return;
      if (page.done && !page.more) this.#finish({ how: "ended" });
      else this.#compared(news, page.more, retryMs, now);
    });
  }

  // 304: nothing has changed.
  noNews(retryMs: number | null, now: number): Command[] {
    return this.#change(() => {
      if (this.#answered(now)) this.#compared(false, false, retryMs, now);
    });
  }

  askLost(now: number): Command[] {
    return this.#change(() => this.#askFailed(null, true, now));
  }

  askRefused(refusal: Refusal, now: number): Command[] {
    return this.#change(() => {
      if (!this.#forGood(refusal)) this.#askFailed(refusal.retryMs, false, now);
    });
  }

  // A credential was brought; the same one again is tried less and less often.
  signedIn(changed: boolean, now: number): Command[] {
    return this.#change(() => {
      if (!this.#signingIn) return;
      this.#signingIn = false;
      if (changed) this.#refusals = 0;
      if (this.#refusals >= REFUSALS_MAX) this.#finish({ how: "refused", status: 401, problem: null });
      else this.#nextAt = changed ? now : now + backoffMs(this.#refusals, this.#random);
    });
  }

  // There is none: whoever follows must begin again.
  signedOut(problem: unknown): Command[] {
    return this.#change(() => this.#finish({ how: "refused", status: 401, problem }));
  }

  tick(now: number): Command[] {
    return this.#change(() => {
      if (this.#signingIn) return;
      if (this.#asked !== null && now >= this.#answerBy(this.#asked)) {
        this.#dropAsk();
        this.#askFailed(null, true, now);
      }
      if (this.#stream !== null) this.#watch(this.#stream, now);
      if (this.#nextAt !== null && now >= this.#nextAt) this.#act(now);
      if (this.#ladder.down !== null && this.#stream === null && now >= this.#ladder.liveAt) this.#open(now);
    });
  }

  // The page is looked at again, or the machine woke up: what may be dead is not waited for.
  wake(now: number): Command[] {
    return this.#change(() => this.#stir(now, this.#pace.dueMs));
  }

  online(now: number): Command[] {
    return this.#change(() => {
      this.#stir(now, this.#offline ? -1 : this.#pace.dueMs);
      this.#offline = false;
      this.#goUp(now);
    });
  }

  offline(): Command[] {
    return this.#change(() => {
      this.#offline = true;
      this.#reached = false;
    });
  }

  // Tries the stream now, because a person wants it or there is room again.
  tryLive(now: number): Command[] {
    return this.#change(() => this.#goUp(now));
  }

  leave(): Command[] {
    return this.#change(() => this.#finish({ how: "left" }));
  }

  #change(change: () => void): Command[] {
    if (this.end === null) change();
    if (this.end === null) this.#say(this.#state());
    const out = this.#out;
    this.#out = [];
    return out;
  }

  #act(now: number): void {
    this.#nextAt = null;
    if (this.#ladder.down !== null) {
      if (this.#asked === null) this.#ask(this.#ladder.waitS, now);
    } else if (this.#stream === null) {
      if (!this.#ladder.checkNext) this.#open(now);
      else if (this.#asked === null) this.#ask(0, now);
    }
  }

  #open(now: number): void {
    this.#stream = new Listening(this.#pace, now, this.#ladder.down === null);
    this.#ladder.liveAt = NEVER;
    this.#out.push({ do: "open", after: this.cursor });
  }

  #goUp(now: number): void {
    if (this.#ladder.down !== null && this.#stream === null && !this.#signingIn) this.#open(now);
  }

  #stir(now: number, silenceMs: number): void {
    if (this.#stream !== null && this.#stream.silentFor(now) > silenceMs) this.#reopen(now);
    if (this.#asked !== null && now - this.#asked.since > (this.#asked.waitS + 2) * 1_000) {
      this.#dropAsk();
      if (this.#stream === null) this.#nextAt = now;
    }
    if (this.#nextAt !== null) this.#act(now);
  }

  #reopen(now: number): void {
    this.#dropStream();
    this.reconnects += 1;
    if (this.#ladder.down === null) this.#nextAt = now;
    else this.#ladder.liveLater(now);
  }

  #ask(waitS: number, now: number): void {
    this.#asked = { since: now, waitS };
    this.#out.push({ do: "ask", after: this.cursor, waitS });
  }

  #answerBy(asked: Asked): number {
    return asked.since + asked.waitS * 1_000 + this.#pace.answerMs;
  }

  // Passes on what was not seen before; whether there was any.
  #take(frames: readonly (Frame | Checkpoint)[]): boolean {
    const fresh: Frame[] = [];
    let terminal = false;
    for (const frame of frames) {
      if (terminal || (frame.seq !== undefined && frame.seq <= this.cursor)) continue;
      if (frame.type !== "checkpoint") fresh.push(frame);
      if (frame.seq === undefined) continue;
      this.cursor = frame.seq;
      terminal = TERMINAL.has(frame.type);
    }
    if (fresh.length > 0) this.#out.push({ do: "frames", frames: fresh });
    if (terminal) this.#finish({ how: "ended" });
    return fresh.length > 0;
  }

  // A silent stream is compared with a short request, and given up when it is dead.
  #watch(stream: Listening, now: number): void {
    const verdict = stream.verdict(now);
    if (verdict === "overtaken") {
      this.#reopen(now); // one that began well may have died with its network: a fresh one will show
      if (stream.mute || this.#ladder.stalled()) this.#goDown("buffered", now);
    } else if (verdict === "dead") {
      this.#reopen(now);
      if (this.#ladder.down !== null) return;
      if (stream.mute && stream.compared) this.#goDown("silent", now);
      else this.#streamFailed(now, 0);
    } else if (verdict === "probe" && this.#asked === null) this.#ask(0, now);
  }

  #streamFailed(now: number, retryMs: number | null): void {
    if (this.#ladder.down !== null) this.#ladder.liveLater(now);
    else this.#nextAt = this.#ladder.streamFailed(retryMs, this.#limited, now);
    if (this.#ladder.down !== null) this.#askBelow(now);
  }

  #goDown(reason: Reason, now: number): void {
    this.#ladder.goDown(reason, now);
    this.#nextAt = null;
    this.#askBelow(now);
  }

  #askBelow(now: number): void {
    if (this.#asked === null && this.#nextAt === null) this.#ask(this.#ladder.waitS, now);
  }

  #answered(now: number): boolean {
    if (this.#asked === null) return false;
    this.#asked = null;
    this.heardAt = now;
    this.#refusals = 0;
    this.#reached = true;
    return true;
  }

  // What an answer means: below, when to ask again; for the stream, whether it can be trusted.
  #compared(news: boolean, more: boolean, retryMs: number | null, now: number): void {
    if (this.#ladder.down === null && this.#stream !== null) {
      this.#stream.answeredBeside(news, now);
    } else this.#nextAt = this.#ladder.answered(more, retryMs, now);
  }

  #askFailed(retryMs: number | null, lost: boolean, now: number): void {
    this.#asked = null;
    if (this.#ladder.down === null && this.#stream !== null) return; // it only compared
    this.#reached = false;
    this.#nextAt = this.#ladder.askFailed(retryMs, lost, now);
  }

  // 401 asks for a credential; what the server would only say again ends it. False when it may pass.
  #forGood(refusal: Refusal): boolean {
    const { status, problem } = refusal;
    if (status < 400 || status >= 500 || AWAY.has(status)) return false;
    this.#dropStream();
    this.#dropAsk();
    this.#nextAt = null;
    if (status === 401) {
      this.#refusals += 1;
      this.#signingIn = true;
      this.#out.push({ do: "credential" });
    } else this.#finish({ how: "refused", status, problem });
    return true;
  }

  #finish(end: End): void {
    this.#dropStream();
    this.#dropAsk();
    this.end = end;
    this.#say("over");
    this.#out.push({ do: "end", end });
  }

  #dropStream(): void {
    if (this.#stream === null) return;
    this.#stream = null;
    this.#out.push({ do: "drop" });
  }

  #dropAsk(): void {
    if (this.#asked === null) return;
    this.#asked = null;
    this.#out.push({ do: "drop-ask" });
  }

  #state(): Condition["state"] {
    if (this.#signingIn) return "signed-out";
    if (this.#offline && !this.#reached) return "offline";
    if (this.#ladder.down !== null) return this.#ladder.failures === 0 ? "polling" : "reconnecting";
    if (this.#stream?.opened === true) return "live";
    return this.heardAt === null && this.#ladder.failures === 0 ? "connecting" : "reconnecting";
  }

  #say(state: Condition["state"]): void {
    const { down, transport } = this.#ladder;
    const everyMs = down === null ? null : this.#ladder.everyMs;
    const condition: Condition = { state, transport, reason: down, everyMs };
    const told = JSON.stringify(condition);
    if (told === this.#told) return;
    this.#told = told;
    this.#out.push({ do: "tell", condition });
  }
}
