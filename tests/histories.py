"""Legal histories of runs, drawn at random: what a log can hold, with everything that a fold must get right.

Every free text of event n holds the mark `«n»`, so that a test can see where a text has come to.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from hypothesis import strategies as st

from eventstore.domain import chain
from eventstore.domain.events import (
    Accepted,
    Body,
    Cancelled,
    CancelObserved,
    CancelRequested,
    CheckOutcome,
    Decision,
    Error,
    Escalation,
    Finding,
    Milestone,
    ModelCall,
    Person,
    PolicyRef,
    Progress,
    Reasoning,
    Result,
    Retry,
    RunLimits,
    Started,
    Step,
    Token,
    ToolCall,
    ToolResult,
    Usage,
    Validation,
    new_event,
)
from eventstore.domain.lifecycle import CONTROL_TYPES, TABLE, TERMINAL_TYPES, Status, next_status
from eventstore.domain.record import PLAIN_JSON, Fact, Recorded

RUN = UUID("01928f3a-0000-7000-8000-0000000000aa")
TENANT = UUID("01928f3a-0000-7000-8000-0000000000bb")
START_US = 1_790_000_000_000_000
ADA = Person(subject="ada", role="user")
PLAN = [Milestone(state=f"s{n}", label=f"Step {n}") for n in range(1, 5)]
SECTIONS = st.sampled_from(["comments", "summary"])
NAMES = st.sampled_from(["a", "b", "c"])
SMALL = st.integers(0, 9)


def mark(seq: int) -> str:
    """What every text of this event holds."""
    return f"«{seq}»"


def facts(history: Sequence[Recorded]) -> list[Fact]:
    """The history as readers meet it."""
    return [event.fact() for event in history]


def superseded(history: Sequence[Fact]) -> set[int]:
    """The seqs that a later retry has taken back."""
    return {
        seq
        for fact in history
        if fact.type == "retry"
        for first, last in fact.data["superseded"]
        for seq in range(first, last + 1)
    }


@st.composite
def histories(draw: st.DrawFn, events_max: int = 24) -> list[Recorded]:
    """A run from `accepted` on, by the life-cycle table, ended or not."""
    bodies: list[Body] = [_accepted()]
    status: Status = "queued"
    for _ in range(draw(st.integers(0, events_max))):
        unanswered = _unanswered(bodies)
        open_types = sorted(
            type_ for type_ in TABLE[status] if type_ not in TERMINAL_TYPES and (type_ != "decision" or unanswered)
        )
        # What is hard to get right comes often.
        often = ["retry", "retry"] if "retry" in open_types else ["started", "started"]
        type_ = draw(st.sampled_from(open_types + often))
        asked = draw(st.sampled_from(unanswered)) if type_ == "decision" else 0
        body = _decision(len(bodies) + 1, asked) if asked else draw(_body(type_, len(bodies) + 1))
        bodies.append(body)
        status = next_status(status, body.type_) or status
    if draw(st.booleans()):
        ends = sorted(type_ for type_ in TABLE[status] if type_ in TERMINAL_TYPES)
        bodies.append(draw(_body(draw(st.sampled_from(ends)), len(bodies) + 1)))
    joined = draw(st.sets(st.integers(2, len(bodies)))) if len(bodies) > 1 else ()
    return recorded(bodies, joined=joined)


def recorded(
    bodies: Sequence[Body], run_id: UUID = RUN, tenant_id: UUID = TENANT, joined: Collection[int] = ()
) -> list[Recorded]:
    """These bodies as the log would hold them, chained. Those in `joined` were stored by the same append as the one
    before them, where one writer made both."""
    batches: list[list[Recorded]] = []
    epoch = 0
    for seq, body in enumerate(bodies, start=1):
        epoch += body.type_ == "started"
        new = new_event(body, START_US + seq * 1000)
        by = 0 if body.type_ in CONTROL_TYPES else max(epoch, 1)
        at = START_US + seq * 1000 + 7
        bare = Recorded(run_id, seq, by, new.type, new.version, new.occurred_us, at, PLAIN_JSON, None, new.body, b"")
        if seq in joined and batches and batches[-1][0].epoch == by > 0:
            batches[-1].append(replace(bare, recorded_us=batches[-1][0].recorded_us))
        else:
            batches.append([bare])
    return chained(batches, run_id, tenant_id)


def chained(batches: Iterable[Sequence[Recorded]], run_id: UUID = RUN, tenant_id: UUID = TENANT) -> list[Recorded]:
    """These appends with the chain that they would have."""
    before, history = chain.genesis(run_id, tenant_id), list[Recorded]()
    for batch in batches:
        before = chain.link(before, batch)
        history += [replace(event, chain=before) for event in batch]
    return history


def _accepted() -> Accepted:
    return Accepted(
        workflow="contract_review",
        workflow_version=1,
        title="A contract",
        input_digest="00",
        input_bytes=2,
        caller=ADA,
        tenant="acme",
        policy=PolicyRef(version=1, digest="00"),
        milestones=PLAN,
        limits=RunLimits(run_s=180, attempts_max=3),
        trace_id="0" * 32,
    )


def _unanswered(bodies: Sequence[Body]) -> list[int]:
    """The seqs of the questions that have no decision yet."""
    answered = {body.escalation for body in bodies if isinstance(body, Decision)}
    asked = [seq for seq, body in enumerate(bodies, start=1) if isinstance(body, Escalation)]
    return [seq for seq in asked if seq not in answered]


def _decision(seq: int, asked: int) -> Decision:
    return Decision(
        escalation=asked, because="answered", by=ADA, choice="keep", note=f"because {mark(seq)}",
        seen_seq=seq - 1, seen_chain="00" * 32, **_closing(asked),
    )  # fmt: skip


def _closing(seq: int) -> dict[str, Any]:
    return {"key": f"k{seq}", "place": seq, "args": "00"}


@st.composite
def _body(draw: st.DrawFn, type_: str, seq: int) -> Body:
    said = f"text {mark(seq)}"
    match type_:
        case "started":
            return Started(attempt=draw(st.integers(1, 3)), worker="w", code="c", workflow_version=1)
        case "progress":
            index = draw(st.integers(1, 4))
            state = PLAN[index - 1]
            return Progress(state=state.state, label=state.label, index=index, total=4, key=f"k{seq}", detail=said)
        case "token":
            shape = draw(st.sampled_from(["text", "text", "json"]))
            return Token(text=said, section=draw(SECTIONS), step="draft#1", attempt=1, shape=shape)
        case "reasoning":
            return Reasoning(text=said, step="draft#1", attempt=1)
        case "tool_call":
            return ToolCall(tool="lookup", call_id=draw(NAMES), arguments={"q": said}, key=f"k{seq}")
        case "tool_result":
            return ToolResult(
                tool="lookup", call_id=draw(NAMES), status="ok", summary=said, duration_ms=3, **_closing(seq)
            )
        case "finding":
            return Finding(item=draw(NAMES), value={"clause": said}, **_closing(seq))
        case "step":
            return Step(name="parse", status="ok", output={"text": said}, **_closing(seq))
        case "model_call":
            return ModelCall(
                name="draft", section="comments", model="m", parameters={}, prompt_digest="00", finish="stop", pieces=1,
                usage=_usage(draw(SMALL)), **_closing(seq),
            )  # fmt: skip
        case "retry":
            return Retry(
                what="model", key=f"k{seq}", reason="timeout", message="again", attempt=1, next_attempt=2,
                superseded=draw(st.lists(_ranges(seq - 1), min_size=1, max_size=2)),
            )  # fmt: skip
        case "validation":
            checks = [CheckOutcome(name="cites", passed=draw(st.booleans()), detail=said)]
            return Validation(passed=checks[0].passed, checks=checks, value_digest="00", seqs=[], **_closing(seq))
        case "escalation":
            return Escalation(
                name="keep", question=f"Keep {mark(seq)}?", choices=["keep", "drop"], to="reviewer", wait_s=60,
                **_closing(seq),
            )  # fmt: skip
    return _control_or_end(type_, seq, draw(SMALL))


def _control_or_end(type_: str, seq: int, spent: int) -> Body:
    match type_:
        case "cancel_requested":
            return CancelRequested(by=ADA, reason=f"enough {mark(seq)}")
        case "cancel_observed":
            return CancelObserved(seen_us=START_US, usage=_usage(spent))
        case "result":
            return Result(output={"ok": mark(seq)}, counts={"findings": spent}, usage=_usage(spent))
        case "cancelled":
            return Cancelled(
                reason="enough", by=ADA, partial={"text": mark(seq)}, missing=["summary"], assembled_by="workflow"
            )
        case "error":
            return Error(code="model_failed", message="No.", partial={"text": mark(seq)}, retryable=True)
    raise AssertionError(f"histories cannot write {type_} yet")


def _ranges(last: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.integers(2, last).flatmap(lambda first: st.tuples(st.just(first), st.integers(first, last)))


def _usage(tokens: int) -> Usage:
    return Usage(input_tokens=tokens, output_tokens=tokens, source="provider")
