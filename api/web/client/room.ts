// How many streams the tabs of one browser may hold together without a shared worker: HTTP/1.1 allows six connections
// to a server in all, and one that waits for ever holds up every other request. Places are Web Locks, so that a tab
// that closes or crashes gives its place back.

export interface Room {
  // Whether there is a place; if not, `free` is called when there is one again.
  take(signal: AbortSignal, free: () => void): Promise<boolean>;
  leave(): void;
}

const PLACES = 3;

export class LockRoom implements Room {
  readonly #locks: LockManager;
  readonly #name: string;
  #release: (() => void) | null = null;
  #queued = false;

  constructor(locks: LockManager, name: string) {
    this.#locks = locks;
    this.#name = name;
  }

  async take(signal: AbortSignal, free: () => void): Promise<boolean> {
    for (let place = 0; place < PLACES; place += 1) {
      if (this.#release !== null || (await this.#try(`${this.#name}-${place}`))) {
        if (signal.aborted) this.leave();
        return true;
      }
    }
    this.#waitFor(free);
    return false;
  }

  leave(): void {
    this.#release?.();
    this.#release = null;
  }

  #try(name: string): Promise<boolean> {
    return new Promise((resolve) => {
      const asked = this.#locks.request(name, { ifAvailable: true }, (lock) => {
        resolve(lock !== null);
        if (lock === null) return undefined;
        return new Promise<void>((release) => {
          this.#release = release;
        });
      });
      asked.catch(() => resolve(true)); // no locks here: better too many streams than none
    });
  }

  // Whoever waits is told when any place is free for a moment, and then looks for itself.
  #waitFor(free: () => void): void {
    if (this.#queued) return;
    this.#queued = true;
    const others = new AbortController();
    const freed = () => {
      if (!this.#queued) return;
      this.#queued = false;
      others.abort();
      free();
    };
    for (let place = 0; place < PLACES; place += 1) {
      const passed = this.#locks.request(`${this.#name}-${place}`, { signal: others.signal }, () => undefined);
      passed.then(freed, () => undefined); // not before it is let go again; else another place was free first
    }
  }
}
