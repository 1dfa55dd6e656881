"""Every fact that the log can hold: one closed model per type, the newest version of each.

A type is added together with its producer, its life-cycle row, its fold case, its disclosure default, its line in
docs/events.md and its test. The stored name never changes.
"""

from typing import Any, ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import PydanticSerializationError, from_json

from eventstore.domain import intake
from eventstore.domain.errors import NotStorable
from eventstore.domain.parts import (
    UNREAD_S_MIN,
    ChildRun,
    Continues,
    Decided,
    Milestone,
    OnDisconnect,
    Origin,
    ParentRun,
    Person,
    PolicyRef,
    RunLimits,
    Taken,
    Usage,
)
from eventstore.domain.record import NewEvent

__all__ = [
    "BODIES",
    "TAKEN_BYTES",
    "TYPES",
    "UNREAD_S_MIN",
    "Accepted",
    "Body",
    "CancelObserved",
    "CancelRequested",
    "Cancelled",
    "CheckOutcome",
    "ChildRun",
    "Closing",
    "Continues",
    "Decided",
    "Decision",
    "Error",
    "Escalation",
    "Finding",
    "Milestone",
    "ModelCall",
    "OnDisconnect",
    "Origin",
    "ParentRun",
    "Person",
    "PolicyRef",
    "Progress",
    "Reasoning",
    "Result",
    "Retry",
    "RunLimits",
    "Started",
    "Step",
    "Taken",
    "Token",
    "ToolCall",
    "ToolResult",
    "Usage",
    "Validation",
    "new_event",
]  # fmt: skip

# What an event may be larger for being taken over from another run: where it comes from is said in it.
TAKEN_BYTES: Final = 2_048


class Body(BaseModel):
    """What all event bodies share: frozen, closed, and a name and version of their own.

    An `open_` body, parts of which others fill freely, is judged whole before it is stored; pieces of text need not be.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")
    type_: ClassVar[str]
    version_: ClassVar[int] = 1
    open_: ClassVar[bool] = True


class Closing(Body):
    """What a closing event carries so that a run can resume from its log alone.

    key: branch path + name + occurrence. place: ordinal of the call in its branch, taken when it starts. args: digest
    of the arguments. under: key of the open stream it was made in.
    """

    key: str
    place: int
    args: str
    under: str | None = None
    attempt: int = 1


class Accepted(Body):
    type_ = "accepted"
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
    on_disconnect: OnDisconnect | None = None  # none: the run goes on
    parent: ParentRun | None = None
    continues: Continues | None = None


class Started(Body):
    type_ = "started"
    attempt: int
    worker: str
    code: str
    workflow_version: int
    resumed_from: int | None = None


class Progress(Body):
    type_ = "progress"
    state: str
    label: str
    index: int
    total: int
    key: str
    detail: str | None = None
    done: int | None = None
    of: int | None = None
    taken: Taken | None = None


class Reasoning(Body):
    type_ = "reasoning"
    open_ = False
    text: str
    step: str
    attempt: int
    taken: Taken | None = None


class Token(Body):
    type_ = "token"
    open_ = False
    text: str
    section: str
    step: str
    attempt: int
    shape: Literal["text", "json"] = "text"
    resume: Literal["continue"] | None = None
    taken: Taken | None = None


class ToolCall(Body):
    type_ = "tool_call"
    tool: str
    call_id: str
    arguments: dict[str, Any]
    shown: dict[str, Any] = Field(default_factory=dict)
    key: str
    attempt: int = 1
    turn: str | None = None
    provider_id: str | None = None
    written: str | None = None
    taken: Taken | None = None


class ToolResult(Closing):
    type_ = "tool_result"
    tool: str
    call_id: str
    status: Literal["ok", "failed"]
    summary: str
    result_count: int | None = None
    duration_ms: int
    output: Any = None
    taken: Taken | None = None


class Finding(Closing):
    type_ = "finding"
    item: str
    value: dict[str, Any]
    replaces: int | None = None
    taken: Taken | None = None


class Step(Closing):
    type_ = "step"
    name: str
    status: Literal["intent", "ok", "failed"]
    output: Any = None
    error: str | None = None
    wait_s: float | None = None
    child: ChildRun | None = None
    decided: Decided | None = None
    taken: Taken | None = None


class ModelCall(Closing):
    type_ = "model_call"
    name: str
    section: str
    model: str
    model_served: str | None = None
    parameters: dict[str, Any]
    prompt_digest: str
    finish: str
    usage: Usage
    first_piece_ms: int | None = None
    per_piece_ms: float | None = None
    pieces: int
    request_id: str | None = None
    host: str | None = None
    system_fingerprint: str | None = None
    finish_raw: str | None = None
    message_digests: list[str] | None = None
    tools_digest: str | None = None
    output_digest: str | None = None
    turn: int | None = None
    on_length: Literal["offer", "continue", "keep"] | None = None
    taken: Taken | None = None


class Retry(Body):
    type_ = "retry"
    what: Literal["model", "step", "run"]
    key: str
    reason: str
    message: str
    superseded: list[tuple[int, int]]
    attempt: int
    next_attempt: int | None = None
    wait_s: float = 0.0
    usage: Usage | None = None
    version: int | None = None
    cut_tokens: int | None = None
    taken: Taken | None = None


class CheckOutcome(BaseModel):
    """One check of a validation, in words that a person can read."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    passed: bool
    detail: str | None = None


class Validation(Closing):
    type_ = "validation"
    passed: bool
    checks: list[CheckOutcome]
    value_digest: str
    seqs: list[tuple[int, int]]
    taken: Taken | None = None


class Escalation(Closing):
    type_ = "escalation"
    name: str
    question: str
    choices: list[str] = Field(default_factory=list)
    answer_schema: dict[str, Any] | None = None
    to: str
    wait_s: float
    default: Any = None
    call_id: str | None = None
    arguments_digest: str | None = None


class Decision(Closing):
    type_ = "decision"
    escalation: int
    because: Literal["answered", "wait_over"]
    by: Person
    choice: str | None = None
    answer: Any = None
    note: str | None = None
    seen_seq: int | None = None
    seen_chain: str | None = None


class CancelRequested(Body):
    type_ = "cancel_requested"
    by: Person
    reason: str


class CancelObserved(Body):
    type_ = "cancel_observed"
    seen_us: int
    model_closed_us: int | None = None
    usage: Usage


class Result(Body):
    type_ = "result"
    status: Literal["complete"] = "complete"
    output: dict[str, Any]
    counts: dict[str, int]
    usage: Usage


class Cancelled(Body):
    type_ = "cancelled"
    reason: str
    by: Person
    partial: dict[str, Any]
    missing: list[str]
    assembled_by: Literal["workflow", "default"]
    validated: bool = False


class Error(Body):
    type_ = "error"
    code: str
    message: str
    partial: dict[str, Any]
    retryable: bool
    call: str | None = None


BODIES: Final[dict[str, type[Body]]] = {
    body.type_: body
    for body in (
        Accepted, Started, Progress, Reasoning, Token, ToolCall, ToolResult, Finding, Step, ModelCall, Retry,
        Validation, Escalation, Decision, CancelRequested, CancelObserved, Result, Cancelled, Error,
    )
}  # fmt: skip

TYPES: Final[tuple[str, ...]] = tuple(BODIES)


def new_event(body: Body, occurred_us: int) -> NewEvent:
    """The one place where a body becomes bytes. Raises NotStorable when they would not read back as what was meant."""
    try:
        raw = body.model_dump_json(exclude_none=True).encode()
    except PydanticSerializationError as fault:
        raise NotStorable(f"This {body.type_} cannot be written as JSON.") from fault
    taken = getattr(body, "taken", None) is not None  # what one log could hold, the next one can: it was judged there
    if len(raw) > intake.EVENT_BYTES_MAX + (TAKEN_BYTES if taken else 0):
        raise NotStorable(f"This {body.type_} is larger than {intake.EVENT_BYTES_MAX} bytes.")
    if body.open_ and not taken:
        intake.check(from_json(raw))
    return NewEvent(body.type_, body.version_, occurred_us, raw)
