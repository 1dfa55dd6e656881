// What tabs and the worker that they share say to each other.

import type { Frame } from "./frames.ts";
import type { Condition, End } from "./terms.ts";

export type ToHub =
  | {
      readonly do: "follow";
      readonly id: number; // the tab's own number for it
      readonly url: string;
      readonly runId: string;
      readonly after: number;
      readonly key: string;
    }
  | { readonly do: "leave" | "live"; readonly id: number }
  | { readonly do: "key"; readonly id: number; readonly key: string | null }
  | { readonly do: "here"; readonly ids: readonly number[] } // the tab lives and follows these
  | { readonly do: "wake" };

export type ToTab =
  | { readonly say: "here" }
  | { readonly say: "frames"; readonly id: number; readonly frames: readonly Frame[] }
  | { readonly say: "condition"; readonly id: number; readonly condition: Condition }
  | { readonly say: "end"; readonly id: number; readonly end: End }
  | { readonly say: "key"; readonly id: number; readonly refused: string } // bring another
  | { readonly say: "again"; readonly id: number }; // this was given up: follow it again, from your cursor

export interface Port {
  say(message: ToTab): void;
}
