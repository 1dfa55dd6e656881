"""The state of a run is the fold of its events: `fold(b, fold(a)) == fold(a + b)`, for every cut.

`fold` never changes the state that it is given: it copies it once and then works on its own copy, so folding the new
events of a long run costs a shallow copy and those events. Facts may come through a disclosure policy, so a case here
takes what it finds and never insists on a field that a role may not see.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from eventstore.domain.events import Usage
from eventstore.domain.lifecycle import Status, next_status
from eventstore.domain.record import Fact

# What an attempt says beside its text, and a later `retry` may take back.
TAKEN_BACK: Final = frozenset({"progress", "tool_call", "tool_result", "finding", "validation"})


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of draft text and where it came from, so that a later `retry` can name it."""

    seq: int
    text: str


@dataclass(slots=True)
class RunState:
    """Everything a person may be told about a run at one place in its log."""

    seq: int = 0
    status: Status | None = None
    workflow: str | None = None
    title: str | None = None
    created_us: int | None = None
    updated_us: int | None = None
    attempt: int = 0
    plan: list[Mapping[str, Any]] = field(default_factory=list)
    milestone: Mapping[str, Any] | None = None
    sections: dict[str, list[Piece]] = field(default_factory=dict)
    reasoning: list[Piece] = field(default_factory=list)
    said: list[Fact] = field(default_factory=list)  # the living facts of these types, in order
    findings: dict[str, tuple[int, Mapping[str, Any]]] = field(default_factory=dict)
    tools: dict[str, tuple[int, Mapping[str, Any]]] = field(default_factory=dict)
    retries: list[Mapping[str, Any]] = field(default_factory=list)
    validation: Mapping[str, Any] | None = None
    cancel: Mapping[str, Any] | None = None
    result: Mapping[str, Any] | None = None
    partial: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None
    usage: Usage = field(default_factory=Usage)

    def copy(self) -> "RunState":
        """A state of its own: containers are new, the frozen things inside are shared."""
        return RunState(
            seq=self.seq,
            status=self.status,
            workflow=self.workflow,
            title=self.title,
            created_us=self.created_us,
            updated_us=self.updated_us,
            attempt=self.attempt,
            plan=self.plan,
            milestone=self.milestone,
            sections={name: list(pieces) for name, pieces in self.sections.items()},
            reasoning=list(self.reasoning),
            said=list(self.said),
            findings=dict(self.findings),
            tools=dict(self.tools),
            retries=list(self.retries),
            validation=self.validation,
            cancel=self.cancel,
            result=self.result,
            partial=self.partial,
            error=self.error,
            usage=self.usage,
        )


def fold(facts: Iterable[Fact], since: RunState | None = None) -> RunState:
    """The state after these facts, from the beginning or from a state reached before."""
    state = since.copy() if since else RunState()
    for fact in facts:
        state.seq = fact.seq
        state.updated_us = fact.at_us
        state.status = next_status(state.status, fact.type) or state.status
        if fact.type in TAKEN_BACK:
            state.said.append(fact)
        _tell(state, fact)
    return state


def _tell(state: RunState, fact: Fact) -> None:
    if (case := CASES.get(fact.type)) is not None:
        case(state, fact)


def _accepted(state: RunState, fact: Fact) -> None:
    state.workflow = fact.data.get("workflow")
    state.title = fact.data.get("title")
    state.plan = list(fact.data.get("milestones", ()))
    state.created_us = fact.at_us


def _started(state: RunState, fact: Fact) -> None:
    state.attempt = fact.attempt


def _progress(state: RunState, fact: Fact) -> None:
    state.milestone = fact.data


def _token(state: RunState, fact: Fact) -> None:
    if fact.data.get("shape", "text") == "text":
        state.sections.setdefault(fact.data.get("section", ""), []).append(Piece(fact.seq, fact.data.get("text", "")))


def _reasoning(state: RunState, fact: Fact) -> None:
    state.reasoning.append(Piece(fact.seq, fact.data.get("text", "")))


def _tool(state: RunState, fact: Fact) -> None:
    call_id = fact.data.get("call_id", str(fact.seq))
    first_seq, before = state.tools.get(call_id, (fact.seq, {}))
    state.tools[call_id] = (first_seq, {**before, **fact.data})


def _finding(state: RunState, fact: Fact) -> None:
    state.findings[fact.data.get("item", str(fact.seq))] = (fact.seq, fact.data.get("value", {}))


def _model_call(state: RunState, fact: Fact) -> None:
    state.usage = state.usage + Usage.model_validate(fact.data.get("usage", {}))


def _retry(state: RunState, fact: Fact) -> None:
    """Take back what is superseded: afterwards the state is as if it had never been said."""
    state.retries.append(fact.data)
    dead = [(first, last) for first, last in fact.data.get("superseded", ())]

    def alive(seq: int) -> bool:
        return not any(first <= seq <= last for first, last in dead)

    state.sections = {
        name: kept for name, pieces in state.sections.items() if (kept := [p for p in pieces if alive(p.seq)])
    }
    state.reasoning = [piece for piece in state.reasoning if alive(piece.seq)]
    # A later fact may have replaced or completed an earlier one that lives on, so what lives is told once more.
    state.said = [said for said in state.said if alive(said.seq)]
    state.milestone, state.validation, state.findings, state.tools = None, None, {}, {}
    for said in state.said:
        _tell(state, said)


def _validation(state: RunState, fact: Fact) -> None:
    state.validation = fact.data


def _cancel_requested(state: RunState, fact: Fact) -> None:
    state.cancel = fact.data


def _cancel_observed(state: RunState, fact: Fact) -> None:
    state.usage = state.usage + Usage.model_validate(fact.data.get("usage", {}))


def _result(state: RunState, fact: Fact) -> None:
    state.result = fact.data


def _cancelled(state: RunState, fact: Fact) -> None:
    state.cancel = {**(state.cancel or {}), **{k: v for k, v in fact.data.items() if k != "partial"}}
    state.partial = fact.data.get("partial")


def _error(state: RunState, fact: Fact) -> None:
    state.error = {key: value for key, value in fact.data.items() if key != "partial"}
    state.partial = fact.data.get("partial")


CASES: Final[Mapping[str, Callable[[RunState, Fact], None] | None]] = {
    "accepted": _accepted,
    "started": _started,
    "progress": _progress,
    "reasoning": _reasoning,
    "token": _token,
    "tool_call": _tool,
    "tool_result": _tool,
    "finding": _finding,
    "step": None,  # a resumed worker reads it; a person is told by the milestone around it
    "model_call": _model_call,
    "retry": _retry,
    "validation": _validation,
    "cancel_requested": _cancel_requested,
    "cancel_observed": _cancel_observed,
    "result": _result,
    "cancelled": _cancelled,
    "error": _error,
}
