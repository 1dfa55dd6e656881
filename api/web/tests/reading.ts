// A reader of one run in a world, and what it was told.

import { Credential, type GiveCredential } from "../client/credential.ts";
import { Follower } from "../client/follower.ts";
import type { Condition, End, Pace, Reason } from "../client/terms.ts";
import { KEY, RUN, type World } from "./world.ts";

export interface Reading {
  readonly follower: Follower;
  readonly seqs: number[];
  readonly conditions: Condition[];
  readonly ends: End[];
  readonly states: () => string[]; // with the transport and the reason, where there is one
  readonly now: () => string;
}

export interface How {
  readonly after?: number;
  readonly give?: GiveCredential;
  readonly pace?: Partial<Pace>;
  readonly down?: Reason;
}

export function reading(world: World, how: How = {}): Reading {
  const seqs: number[] = [];
  const conditions: Condition[] = [];
  const ends: End[] = [];
  const follower = new Follower(
    { url: "http://runwire.test", runId: RUN, after: how.after ?? 0 },
    {
      credential: new Credential(how.give ?? KEY),
      surroundings: world.around,
      pace: how.pace,
      down: how.down ?? null,
    },
    {
      frames: (frames) => seqs.push(...frames.map((frame) => frame.seq ?? 0)),
      condition: (condition) => conditions.push(condition),
      end: (end) => ends.push(end),
    },
  );
  void follower.start();
  const told = ({ state, transport, reason }: Condition) =>
    reason === null ? state : `${state} ${transport} ${reason}`;
  const states = () => conditions.map(told);
  return { follower, seqs, conditions, ends, states, now: () => states().at(-1) ?? "" };
}

export function upTo(last: number, first = 1): number[] {
  return Array.from({ length: last - first + 1 }, (_, place) => first + place);
}
