// One connection per run for all tabs that follow it with the same key. Lives in the worker that they share.
//
// Each tab has its own cursor. Whoever comes late is given what is kept here; who needs what came before reads it by
// short requests of its own and joins the others where that ends.

import { Channel, type Watcher } from "./channel.ts";
import { type Follower, SURROUNDINGS, type Surroundings } from "./follower.ts";
import type { Port, ToHub } from "./messages.ts";
import type { Pace } from "./terms.ts";

const GONE_MS = 180_000; // hidden tabs may speak once a minute only

interface Tab {
  readonly port: Port;
  readonly watchers: Map<number, Watcher>;
  heardAt: number;
}

export class Hub {
  readonly #around: Surroundings;
  readonly #pace: Partial<Pace> | undefined;
  readonly #tabs = new Set<Tab>();
  readonly #channels = new Set<Channel>();

  constructor(around: Surroundings = SURROUNDINGS, pace?: Partial<Pace>) {
    this.#around = around;
    this.#pace = pace;
  }

  // A tab is there; gives what hears its messages.
  join(port: Port): (message: ToHub) => void {
    const tab: Tab = { port, watchers: new Map(), heardAt: this.#around.now() };
    this.#tabs.add(tab);
    port.say({ say: "here" });
    return (message) => this.#hear(tab, message);
  }

  // A tab is gone, as far as its browser tells of that.
  part(port: Port): void {
    for (const tab of this.#tabs) if (tab.port === port) this.#letGo(tab);
  }

  // Lets go of tabs that say nothing any more. One that was only asleep follows again.
  sweep(): void {
    for (const tab of this.#tabs) if (this.#around.now() - tab.heardAt >= GONE_MS) this.#letGo(tab);
  }

  each(what: (follower: Follower) => void): void {
    for (const channel of [...this.#channels]) channel.each(what);
  }

  #hear(tab: Tab, message: ToHub): void {
    tab.heardAt = this.#around.now();
    this.#tabs.add(tab);
    if (message.do === "wake") this.each((follower) => follower.wake());
    else if (message.do === "here") this.#answer(tab, message.ids);
    else if (message.do === "follow") this.#follow(tab, message);
    else if (message.do === "leave") this.#leave(tab, message.id);
    else {
      const watcher = tab.watchers.get(message.id);
      if (message.do === "key") watcher?.channel.keyFrom(watcher, message.key);
      else watcher?.channel.each((follower) => follower.tryLive());
    }
  }

  #answer(tab: Tab, ids: readonly number[]): void {
    tab.port.say({ say: "here" });
    for (const id of ids) if (!tab.watchers.has(id)) tab.port.say({ say: "again", id });
  }

  #follow(tab: Tab, asked: ToHub & { do: "follow" }): void {
    this.#leave(tab, asked.id);
    let channel = [...this.#channels].find((one) => one.carries(asked));
    if (channel === undefined) {
      const made = new Channel(asked, this.#around, this.#pace, () => this.#channels.delete(made));
      this.#channels.add(made);
      channel = made;
    }
    const ended = () => void tab.watchers.delete(asked.id);
    const watcher: Watcher = { id: asked.id, port: tab.port, channel, cursor: asked.after, ended };
    tab.watchers.set(asked.id, watcher);
    channel.add(watcher);
  }

  #letGo(tab: Tab): void {
    for (const id of [...tab.watchers.keys()]) this.#leave(tab, id);
    this.#tabs.delete(tab);
  }

  #leave(tab: Tab, id: number): void {
    const watcher = tab.watchers.get(id);
    tab.watchers.delete(id);
    watcher?.channel.remove(watcher);
  }
}
