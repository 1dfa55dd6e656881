// Runwire over HTTP, in browsers and in Node: submit, follow, cancel, decide, look.

import { Credential, type GiveCredential } from "./credential.ts";
import type { EventType } from "./events.ts";
import { Follower, type Following, type Reader, SURROUNDINGS, type Surroundings, type Wanted } from "./follower.ts";
import type { Frame } from "./frames.ts";
import { watchPage } from "./page.ts";
import { type Asking, onceKey, Requests } from "./requests.ts";
import { LockRoom } from "./room.ts";
import type { Accepted, Answer, Listing, RunInList, RunPage, RunState } from "./runs.ts";
import { Story } from "./story.ts";
import { Tabs } from "./tabs.ts";
import type { Condition, Pace, Reason } from "./terms.ts";

const REMEMBERED_MS = 1_800_000; // a network that lets no stream through is known for this long

export interface ClientOptions {
  readonly url?: string; // where the API is; a page's own server when it is left out
  readonly credential: string | GiveCredential;
  readonly share?: () => SharedWorker; // the worker of shared.js, to share one connection among tabs
  readonly pace?: Partial<Pace>;
  readonly surroundings?: Surroundings;
}

export interface FollowOptions {
  readonly after?: number;
  readonly types?: readonly EventType[]; // only these, and what ends the run or takes them back
  readonly signal?: AbortSignal;
  readonly onCondition?: (condition: Condition) => void;
  readonly onFrames?: (frames: readonly Frame[]) => void; // instead of iterating
}

export interface SubmitOptions {
  readonly title?: string;
  readonly once?: string; // names the submission over restarts of a program; one is made when it is left out
  readonly signal?: AbortSignal;
}

export class Client {
  readonly #url: string;
  readonly #credential: Credential;
  readonly #around: Surroundings;
  readonly #pace: Partial<Pace> | undefined;
  readonly #requests: Requests;
  readonly #alone = new Set<Follower>();
  readonly #tabs: Tabs | null;
  readonly #unwatch: () => void;
  #found: { readonly reason: Reason; readonly until: number } | null = null;

  constructor(options: ClientOptions) {
    this.#url = (options.url ?? globalThis.location?.origin ?? "").replace(/\/+$/, "");
    this.#credential = new Credential(options.credential);
    this.#around = options.surroundings ?? SURROUNDINGS;
    this.#pace = options.pace;
    this.#requests = new Requests(this.#url, this.#credential, this.#around);
    this.#tabs = this.#joinTabs(options.share);
    this.#unwatch = watchPage({
      shown: () => {
        this.#tabs?.wake();
        for (const one of this.#alone) one.wake();
      },
      hidden: () => this.#tabs?.hide(),
      back: () => this.#tabs?.show(),
      online: () => [...this.#alone].forEach((one) => void one.online()),
      offline: () => [...this.#alone].forEach((one) => void one.offline()),
    });
  }

  // Lets go of everything that is followed.
  close(): void {
    this.#unwatch();
    this.#tabs?.leave();
    for (const one of [...this.#alone]) one.leave();
  }

  // Starts a run. The same submission sent again, because the answer was lost, starts one run.
  async submit(workflow: string, input: unknown, options: SubmitOptions = {}): Promise<Accepted> {
    return this.#submit({ workflow, input }, options);
  }

  // Starts a run that takes up one which ended without a result: what was finished there is not done again.
  async continueRun(runId: string, options: SubmitOptions = {}): Promise<Accepted> {
    return this.#submit({ continues: runId }, options);
  }

  // A page of the caller's runs, newest first.
  async list(listing: Listing = {}): Promise<RunPage> {
    const asked = Object.entries(listing).map(([name, value]) => [name, String(value)]);
    return (await this.#ask(`runs?${new URLSearchParams(asked)}`)) as RunPage;
  }

  // All of them, page by page.
  async *runs(listing: Listing = {}): AsyncGenerator<RunInList, void, void> {
    let page = await this.list(listing);
    yield* page.runs;
    while (page.next !== null && page.runs.length > 0) {
      page = await this.list({ ...listing, before: page.next });
      yield* page.runs;
    }
  }

  // How a run stands, or stood at a seq or a time.
  async state(runId: string, at?: number | string): Promise<RunState> {
    const query = at === undefined ? "" : `?at=${encodeURIComponent(at)}`;
    return (await this.#ask(`${path(runId)}${query}`)) as RunState;
  }

  // Asks a run to stop. Asking again changes nothing; after the end the answer is the final state.
  async cancel(runId: string, reason = ""): Promise<Accepted | RunState> {
    const body = reason === "" ? {} : { reason };
    return (await this.#ask(`${path(runId)}/cancel`, { method: "POST", body })) as Accepted | RunState;
  }

  // Answers what a run asks. The same answer sent again changes nothing; Refused with 409 when the run has moved on.
  async decide(runId: string, answer: Answer): Promise<Accepted> {
    return (await this.#ask(`${path(runId)}/decisions`, { method: "POST", body: answer })) as Accepted;
  }

  // Follows a run from a cursor to its end: each event once, in order, over whatever the network lets through.
  follow(runId: string, options: FollowOptions = {}): Story {
    return new Story(options, (reader) => {
      const wanted = { url: this.#url, runId, after: options.after ?? 0, types: options.types };
      return this.#tabs?.follow(wanted, this.#credential, reader) ?? this.#follow(wanted, this.#credential, reader);
    });
  }

  async #submit(wish: object, { title, once, signal }: SubmitOptions): Promise<Accepted> {
    const body = title === undefined ? wish : { ...wish, title };
    const headers = { "Idempotency-Key": once ?? onceKey() };
    return (await this.#ask("runs", { method: "POST", body, headers, signal })) as Accepted;
  }

  #ask(path: string, asking: Asking = {}): Promise<unknown> {
    return this.#requests.ask(path, asking);
  }

  #joinTabs(share: (() => SharedWorker) | undefined): Tabs | null {
    if (share === undefined || globalThis.SharedWorker === undefined) return null;
    try {
      const worker = share();
      const tabs = new Tabs(worker.port, (...asked) => this.#follow(...asked));
      worker.onerror = () => tabs.break();
      return tabs;
    } catch {
      return null; // the page may not have one: then this tab is for itself
    }
  }

  #follow(wanted: Wanted, credential: Credential, reader: Reader): Following {
    const locks = globalThis.document === undefined ? undefined : globalThis.navigator?.locks;
    const known = this.#found !== null && this.#found.until > this.#around.now() ? this.#found.reason : null;
    const means = {
      credential,
      room: locks === undefined ? null : new LockRoom(locks, `runwire-stream-${wanted.url}`),
      pace: this.#pace,
      down: known,
      surroundings: this.#around,
    };
    const follower = new Follower(wanted, means, {
      ...reader,
      condition: (condition) => {
        this.#remember(condition);
        reader.condition(condition);
      },
      end: (end) => {
        this.#alone.delete(follower);
        reader.end(end);
      },
    });
    this.#alone.add(follower);
    void follower.start();
    return follower;
  }

  // What one run's reader found out about the network, the next one need not find out again.
  #remember({ state, reason }: Condition): void {
    if (state === "live") this.#found = null;
    else if (state === "polling" && reason !== null && reason !== "tabs" && reason !== "limit") {
      this.#found = { reason, until: this.#around.now() + REMEMBERED_MS };
    }
  }
}

function path(runId: string): string {
  return `runs/${encodeURIComponent(runId)}`;
}
