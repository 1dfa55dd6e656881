// The client of Runwire. What is not named here is its own affair.

export type { Problem } from "./answers.ts";
export { Refused, Unreachable } from "./answers.ts";
export type { ClientOptions, FollowOptions, SubmitOptions } from "./client.ts";
export { Client } from "./client.ts";
export type { GiveCredential } from "./credential.ts";
export * from "./events.ts";
export type { Envelope, Frame, Lagging, Reset, RunEvent } from "./frames.ts";
export type { Accepted, Answer, InLine, Listing, RunInList, RunPage, RunState, Seen, Status } from "./runs.ts";
export type { Story } from "./story.ts";
export type { Condition, End, Pace, Reason, Transport } from "./terms.ts";
