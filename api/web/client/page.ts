// What happens to the page that a client lives in. Outside of a page nothing does.

export interface PageEvents {
  readonly shown: () => void; // it is looked at again, or the machine woke up
  readonly hidden: () => void; // it was left, perhaps to be shown again from the browser's memory
  readonly back: () => void;
  readonly online: () => void;
  readonly offline: () => void;
}

export function watchPage(events: PageEvents): () => void {
  const { document, window } = globalThis as Partial<typeof globalThis>;
  if (document === undefined || window === undefined) return () => undefined;
  const left = new AbortController();
  const on = (target: EventTarget, name: string, then: (event: Event) => void) =>
    target.addEventListener(name, then, { signal: left.signal });
  on(document, "visibilitychange", () => document.visibilityState === "visible" && events.shown());
  on(document, "resume", events.shown);
  on(window, "online", events.online);
  on(window, "offline", events.offline);
  on(window, "pagehide", events.hidden);
  on(window, "pageshow", (event) => (event as PageTransitionEvent).persisted && events.back());
  return () => left.abort();
}
