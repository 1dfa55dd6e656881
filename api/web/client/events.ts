// Written by `python -m tests.event_types` from eventstore/domain/events.py. What a policy may withhold may be absent.

export interface CheckOutcome {
  readonly name: string;
  readonly passed: boolean;
  readonly detail?: string;
}

export interface ChildRun {
  readonly run_id: string;
  readonly workflow: string;
  readonly on_cancel: "cancel" | "keep";
  readonly status?: "completed" | "failed" | "cancelled";
  readonly seq?: number;
  readonly chain?: string;
}

export interface Continues {
  readonly run_id: string;
  readonly seq: number;
  readonly chain: string;
  readonly origin: Origin;
}

export interface Decided {
  readonly because: "answered" | "wait_over";
  readonly by: Person;
  readonly choice?: string;
  readonly answer?: unknown;
  readonly note?: string;
  readonly call_id?: string;
  readonly arguments_digest?: string;
}

export interface Milestone {
  readonly state: string;
  readonly label: string;
}

export interface OnDisconnect {
  readonly cancel_after_s: number;
  readonly while_waiting: boolean;
}

export interface Origin {
  readonly run_id: string;
  readonly at_us: number;
}

export interface ParentRun {
  readonly run_id: string;
  readonly key: string;
  readonly depth: number;
}

export interface Person {
  readonly subject: string;
  readonly role: string;
}

export interface PolicyRef {
  readonly version: number;
  readonly digest: string;
}

export interface RunLimits {
  readonly run_s: number;
  readonly attempts_max: number;
  readonly step_s?: number;
  readonly first_byte_s?: number;
  readonly between_pieces_s?: number;
  readonly turns_max?: number;
  readonly tool_calls_max?: number;
  readonly tool_failures_max?: number;
  readonly output_bytes_max?: number;
  readonly events_max?: number;
  readonly hold_chars_max?: number;
  readonly parallel?: number;
  readonly on_end_s?: number;
  readonly tokens_max?: number;
  readonly cost_micro_usd?: number;
}

export interface Taken {
  readonly run_id: string;
  readonly seq: number;
  readonly at_us: number;
  readonly last?: boolean;
}

export interface Usage {
  readonly input_tokens: number;
  readonly output_tokens: number;
  readonly reasoning_tokens: number;
  readonly source: "provider" | "estimated" | "none";
  readonly cached_tokens?: number;
  readonly cost_micro_usd?: number;
  readonly unpriced_tokens?: number;
  readonly prices?: string;
}

export interface AcceptedData {
  readonly workflow?: string;
  readonly workflow_version?: number;
  readonly title?: string;
  readonly input_digest?: string;
  readonly input_bytes?: number;
  readonly caller?: Person;
  readonly tenant?: string;
  readonly policy?: PolicyRef;
  readonly milestones?: readonly Milestone[];
  readonly limits?: RunLimits;
  readonly trace_id?: string;
  readonly on_disconnect?: OnDisconnect;
  readonly parent?: ParentRun;
  readonly continues?: Continues;
}

export interface StartedData {
  readonly attempt?: number;
  readonly worker?: string;
  readonly code?: string;
  readonly workflow_version?: number;
  readonly resumed_from?: number;
}

export interface ProgressData {
  readonly state?: string;
  readonly label?: string;
  readonly index?: number;
  readonly total?: number;
  readonly key?: string;
  readonly detail?: string;
  readonly done?: number;
  readonly of?: number;
  readonly taken?: Taken;
}

export interface ReasoningData {
  readonly text?: string;
  readonly step?: string;
  readonly attempt?: number;
  readonly taken?: Taken;
}

export interface TokenData {
  readonly text?: string;
  readonly section?: string;
  readonly step?: string;
  readonly attempt?: number;
  readonly shape?: "text" | "json";
  readonly resume?: "continue";
  readonly taken?: Taken;
}

export interface ToolCallData {
  readonly tool?: string;
  readonly call_id?: string;
  readonly arguments?: Readonly<Record<string, unknown>>;
  readonly shown?: Readonly<Record<string, unknown>>;
  readonly key?: string;
  readonly attempt?: number;
  readonly turn?: string;
  readonly provider_id?: string;
  readonly written?: string;
  readonly taken?: Taken;
}

export interface ToolResultData {
  readonly key?: string;
  readonly place?: number;
  readonly args?: string;
  readonly under?: string;
  readonly attempt?: number;
  readonly tool?: string;
  readonly call_id?: string;
  readonly status?: "ok" | "failed";
  readonly summary?: string;
  readonly result_count?: number;
  readonly duration_ms?: number;
  readonly output?: unknown;
  readonly taken?: Taken;
}

export interface FindingData {
  readonly key?: string;
  readonly place?: number;
  readonly args?: string;
  readonly under?: string;
  readonly attempt?: number;
  readonly item?: string;
  readonly value?: Readonly<Record<string, unknown>>;
  readonly replaces?: number;
  readonly taken?: Taken;
}

export interface StepData {
  readonly key?: string;
  readonly place?: number;
  readonly args?: string;
  readonly under?: string;
  readonly attempt?: number;
  readonly name?: string;
  readonly status?: "intent" | "ok" | "failed";
  readonly output?: unknown;
  readonly error?: string;
  readonly wait_s?: number;
  readonly child?: ChildRun;
  readonly decided?: Decided;
  readonly taken?: Taken;
}

export interface ModelCallData {
  readonly key?: string;
  readonly place?: number;
  readonly args?: string;
  readonly under?: string;
  readonly attempt?: number;
  readonly name?: string;
  readonly section?: string;
  readonly model?: string;
  readonly model_served?: string;
  readonly parameters?: Readonly<Record<string, unknown>>;
  readonly prompt_digest?: string;
  readonly finish?: string;
  readonly usage?: Usage;
  readonly first_piece_ms?: number;
  readonly per_piece_ms?: number;
  readonly pieces?: number;
  readonly request_id?: string;
  readonly host?: string;
  readonly system_fingerprint?: string;
  readonly finish_raw?: string;
  readonly message_digests?: readonly string[];
  readonly tools_digest?: string;
  readonly output_digest?: string;
  readonly turn?: number;
  readonly on_length?: "offer" | "continue" | "keep";
  readonly taken?: Taken;
}

export interface RetryData {
  readonly what?: "model" | "step" | "run";
  readonly key?: string;
  readonly reason?: string;
  readonly message?: string;
  readonly superseded?: readonly (readonly [number, number])[];
  readonly attempt?: number;
  readonly next_attempt?: number;
  readonly wait_s?: number;
  readonly usage?: Usage;
  readonly version?: number;
  readonly cut_tokens?: number;
  readonly taken?: Taken;
}

export interface ValidationData {
  readonly key?: string;
  readonly place?: number;
  readonly args?: string;
  readonly under?: string;
  readonly attempt?: number;
  readonly passed?: boolean;
  readonly checks?: readonly CheckOutcome[];
  readonly value_digest?: string;
  readonly seqs?: readonly (readonly [number, number])[];
  readonly taken?: Taken;
}

export interface EscalationData {
  readonly key?: string;
  readonly place?: number;
  readonly args?: string;
  readonly under?: string;
  readonly attempt?: number;
  readonly name?: string;
  readonly question?: string;
  readonly choices?: readonly string[];
  readonly answer_schema?: Readonly<Record<string, unknown>>;
  readonly to?: string;
  readonly wait_s?: number;
  readonly default?: unknown;
  readonly call_id?: string;
  readonly arguments_digest?: string;
}

export interface DecisionData {
  readonly key?: string;
  readonly place?: number;
  readonly args?: string;
  readonly under?: string;
  readonly attempt?: number;
  readonly escalation?: number;
  readonly because?: "answered" | "wait_over";
  readonly by?: Person;
  readonly choice?: string;
  readonly answer?: unknown;
  readonly note?: string;
  readonly seen_seq?: number;
  readonly seen_chain?: string;
}

export interface CancelRequestedData {
  readonly by?: Person;
  readonly reason?: string;
}

export interface CancelObservedData {
  readonly seen_us?: number;
  readonly model_closed_us?: number;
  readonly usage?: Usage;
}

export interface ResultData {
  readonly status?: "complete";
  readonly output?: Readonly<Record<string, unknown>>;
  readonly counts?: Readonly<Record<string, number>>;
  readonly usage?: Usage;
}

export interface CancelledData {
  readonly reason?: string;
  readonly by?: Person;
  readonly partial?: Readonly<Record<string, unknown>>;
  readonly missing?: readonly string[];
  readonly assembled_by?: "workflow" | "default";
  readonly validated?: boolean;
}

export interface ErrorData {
  readonly code?: string;
  readonly message?: string;
  readonly partial?: Readonly<Record<string, unknown>>;
  readonly retryable?: boolean;
  readonly call?: string;
}

export interface EventData {
  readonly accepted: AcceptedData;
  readonly started: StartedData;
  readonly progress: ProgressData;
  readonly reasoning: ReasoningData;
  readonly token: TokenData;
  readonly tool_call: ToolCallData;
  readonly tool_result: ToolResultData;
  readonly finding: FindingData;
  readonly step: StepData;
  readonly model_call: ModelCallData;
  readonly retry: RetryData;
  readonly validation: ValidationData;
  readonly escalation: EscalationData;
  readonly decision: DecisionData;
  readonly cancel_requested: CancelRequestedData;
  readonly cancel_observed: CancelObservedData;
  readonly result: ResultData;
  readonly cancelled: CancelledData;
  readonly error: ErrorData;
}

export type EventType = keyof EventData;

// The run ends with one of these.
export const TERMINAL: ReadonlySet<string> = new Set(["result", "cancelled", "error"]);

// What a later `retry` may take back.
export const DRAFTS: ReadonlySet<string> = new Set([
  "progress",
  "reasoning",
  "token",
  "tool_call",
  "tool_result",
  "finding",
  "validation",
]);
