"""What each type of event says, field by field; written by `python -m ops.client_events`."""

from typing import Any, Literal, TypedDict


class Person(TypedDict, total=False):
    subject: str
    role: str


class PolicyRef(TypedDict, total=False):
    version: int
    digest: str


class Milestone(TypedDict, total=False):
    state: str
    label: str


class RunLimits(TypedDict, total=False):
    run_s: float
    attempts_max: int
    step_s: float
    first_byte_s: float
    between_pieces_s: float
    turns_max: int
    tool_calls_max: int
    tool_failures_max: int
    output_bytes_max: int
    events_max: int
    hold_chars_max: int
    parallel: int
    on_end_s: float
    tokens_max: int
    cost_micro_usd: int


class OnDisconnect(TypedDict, total=False):
    cancel_after_s: float
    while_waiting: bool


class ParentRun(TypedDict, total=False):
    run_id: str
    key: str
    depth: int


class Origin(TypedDict, total=False):
    run_id: str
    at_us: int


class Continues(TypedDict, total=False):
    run_id: str
    seq: int
    chain: str
    origin: Origin


class Taken(TypedDict, total=False):
    run_id: str
    seq: int
    at_us: int
    last: bool


class ChildRun(TypedDict, total=False):
    run_id: str
    workflow: str
    on_cancel: Literal["cancel", "keep"]
    status: Literal["completed", "failed", "cancelled"]
    seq: int
    chain: str


class Decided(TypedDict, total=False):
    because: Literal["answered", "wait_over"]
    by: Person
    choice: str
    answer: Any
    note: str
    call_id: str
    arguments_digest: str


class Usage(TypedDict, total=False):
    input_tokens: int
    output_tokens: int
    reasoning_tokens: int
    source: Literal["provider", "estimated", "none"]
    cached_tokens: int
    cost_micro_usd: int
    unpriced_tokens: int
    prices: str


class CheckOutcome(TypedDict, total=False):
    name: str
    passed: bool
    detail: str


class Accepted(TypedDict, total=False):
    workflow: str
    workflow_version: int
    title: str
    input_digest: str
    input_bytes: int
    caller: Person
    tenant: str
    policy: PolicyRef
    milestones: list[Milestone]
    limits: RunLimits
    trace_id: str
    on_disconnect: OnDisconnect
    parent: ParentRun
    continues: Continues


class Started(TypedDict, total=False):
    attempt: int
    worker: str
    code: str
    workflow_version: int
    resumed_from: int


class Progress(TypedDict, total=False):
    state: str
    label: str
    index: int
    total: int
    key: str
    detail: str
    done: int
    of: int
    taken: Taken


class Reasoning(TypedDict, total=False):
    text: str
    step: str
    attempt: int
    taken: Taken


class Token(TypedDict, total=False):
    text: str
    section: str
    step: str
    attempt: int
    shape: Literal["text", "json"]
    resume: Literal["continue"]
    taken: Taken


class ToolCall(TypedDict, total=False):
    tool: str
    call_id: str
    arguments: dict[str, Any]
    shown: dict[str, Any]
    key: str
    attempt: int
    turn: str
    provider_id: str
    written: str
    taken: Taken


class ToolResult(TypedDict, total=False):
    key: str
    place: int
    args: str
    under: str
    attempt: int
    tool: str
    call_id: str
    status: Literal["ok", "failed"]
    summary: str
    result_count: int
    duration_ms: int
    output: Any
    taken: Taken


class Finding(TypedDict, total=False):
    key: str
    place: int
    args: str
    under: str
    attempt: int
    item: str
    value: dict[str, Any]
    replaces: int
    taken: Taken


class Step(TypedDict, total=False):
    key: str
    place: int
    args: str
    under: str
    attempt: int
    name: str
    status: Literal["intent", "ok", "failed"]
    output: Any
    error: str
    wait_s: float
    child: ChildRun
    decided: Decided
    taken: Taken


class ModelCall(TypedDict, total=False):
    key: str
    place: int
    args: str
    under: str
    attempt: int
    name: str
    section: str
    model: str
    model_served: str
    parameters: dict[str, Any]
    prompt_digest: str
    finish: str
    usage: Usage
    first_piece_ms: int
    per_piece_ms: float
    pieces: int
    request_id: str
    host: str
    system_fingerprint: str
    finish_raw: str
    message_digests: list[str]
    tools_digest: str
    output_digest: str
    turn: int
    on_length: Literal["offer", "continue", "keep"]
    taken: Taken


class Retry(TypedDict, total=False):
    what: Literal["model", "step", "run"]
    key: str
    reason: str
    message: str
    superseded: list[list[int]]
    attempt: int
    next_attempt: int
    wait_s: float
    usage: Usage
    version: int
    cut_tokens: int
    taken: Taken


class Validation(TypedDict, total=False):
    key: str
    place: int
    args: str
    under: str
    attempt: int
    passed: bool
    checks: list[CheckOutcome]
    value_digest: str
    seqs: list[list[int]]
    taken: Taken


class Escalation(TypedDict, total=False):
    key: str
    place: int
    args: str
    under: str
    attempt: int
    name: str
    question: str
    choices: list[str]
    answer_schema: dict[str, Any]
    to: str
    wait_s: float
    default: Any
    call_id: str
    arguments_digest: str


class Decision(TypedDict, total=False):
    key: str
    place: int
    args: str
    under: str
    attempt: int
    escalation: int
    because: Literal["answered", "wait_over"]
    by: Person
    choice: str
    answer: Any
    note: str
    seen_seq: int
    seen_chain: str


class CancelRequested(TypedDict, total=False):
    by: Person
    reason: str


class CancelObserved(TypedDict, total=False):
    seen_us: int
    model_closed_us: int
    usage: Usage


class Result(TypedDict, total=False):
    status: Literal["complete"]
    output: dict[str, Any]
    counts: dict[str, int]
    usage: Usage


class Cancelled(TypedDict, total=False):
    reason: str
    by: Person
    partial: dict[str, Any]
    missing: list[str]
    assembled_by: Literal["workflow", "default"]
    validated: bool


class Error(TypedDict, total=False):
    code: str
    message: str
    partial: dict[str, Any]
    retryable: bool
    call: str
