"""The state of a run is the fold of its events: `fold(b, fold(a)) == fold(a + b)`, for every cut.

`fold` never changes the state that it is given. What grows with a run is kept in lists and maps that the old state and
the new one share, so folding the new events of a long run costs those events and an entry per section. Only a `retry`
costs more, for it goes through what was said since the first event that it takes back; and if that was more than draft
text, through all that lives. Facts may come through a disclosure policy, so a case here takes what it finds and never
insists on a field that a role may not see.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Any, Final, Protocol, TypeVar

from eventstore.domain.events import Usage
from eventstore.domain.growing import GrowingList, GrowingMap
from eventstore.domain.lifecycle import Status, next_status
from eventstore.domain.record import Fact

# Part of the name under which a folded state is kept. Raised whenever the same events fold to something else; a test
# holds the states of some runs against it.
FOLD_VERSION: Final = 5

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
    on_disconnect: Mapping[str, Any] | None = None
    milestone: Mapping[str, Any] | None = None
    sections: dict[str, GrowingList[Piece]] = field(default_factory=dict)
    reasoning: GrowingList[Piece] = field(default_factory=GrowingList)
    said: GrowingList[Fact] = field(default_factory=GrowingList)  # the living facts of these types, in order
    findings: GrowingMap[str, tuple[int, Mapping[str, Any]]] = field(default_factory=GrowingMap)
    tools: GrowingMap[str, tuple[int, Mapping[str, Any]]] = field(default_factory=GrowingMap)
    retries: GrowingList[Mapping[str, Any]] = field(default_factory=GrowingList)
    validation: Mapping[str, Any] | None = None
    questions: GrowingMap[int, Mapping[str, Any]] = field(default_factory=GrowingMap)  # by seq, with their decision
    parent: Mapping[str, Any] | None = None  # the run that asked for this one
    continues: Mapping[str, Any] | None = None  # the run that this one takes up
    children: GrowingMap[str, Mapping[str, Any]] = field(default_factory=GrowingMap)  # runs that it asked for, by id
    cancel: Mapping[str, Any] | None = None
    result: Mapping[str, Any] | None = None
    partial: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None
    usage: Usage = field(default_factory=Usage)

    def copy(self) -> "RunState":
        """A state of its own. All in it is frozen or grows by being replaced, but for the sections' names."""
        return replace(self, sections=dict(self.sections))


class Placed(Protocol):
    """What stands at a place in the log."""

    @property
    def seq(self) -> int:
        """The place."""
        ...


P = TypeVar("P", bound=Placed)


def fold(facts: Iterable[Fact], since: RunState | None = None) -> RunState:
    """The state after these facts, from the beginning or from a state reached before."""
    state = since.copy() if since else RunState()
    for fact in facts:
        state.seq = fact.seq
        state.updated_us = fact.at_us
        state.status = next_status(state.status, fact.type) or state.status
        if fact.type in TAKEN_BACK:
            state.said = state.said.plus(fact)
        _tell(state, fact)
    return state


def _tell(state: RunState, fact: Fact) -> None:
    if (case := CASES.get(fact.type)) is not None:
        case(state, fact)


def _accepted(state: RunState, fact: Fact) -> None:
    state.workflow = fact.data.get("workflow")
    state.title = fact.data.get("title")
    state.plan = list(fact.data.get("milestones", ()))
    state.on_disconnect = fact.data.get("on_disconnect")
    state.parent = fact.data.get("parent")
    state.continues = fact.data.get("continues")
    state.created_us = fact.at_us


def _started(state: RunState, fact: Fact) -> None:
    state.attempt = fact.attempt


def _progress(state: RunState, fact: Fact) -> None:
    state.milestone = fact.data


def _token(state: RunState, fact: Fact) -> None:
    if fact.data.get("shape", "text") == "text":
        name, piece = fact.data.get("section", ""), Piece(fact.seq, fact.data.get("text", ""))
        before = state.sections.get(name)
        state.sections[name] = GrowingList((piece,)) if before is None else before.plus(piece)


def _reasoning(state: RunState, fact: Fact) -> None:
    state.reasoning = state.reasoning.plus(Piece(fact.seq, fact.data.get("text", "")))


def _tool(state: RunState, fact: Fact) -> None:
    call_id = fact.data.get("call_id", str(fact.seq))
    first_seq, before = state.tools.get(call_id, (fact.seq, {}))
    state.tools = state.tools.plus(call_id, (first_seq, {**before, **fact.data}))


def _finding(state: RunState, fact: Fact) -> None:
    item = fact.data.get("item", str(fact.seq))
    state.findings = state.findings.plus(item, (fact.seq, fact.data.get("value", {})))


def _step(state: RunState, fact: Fact) -> None:
    """A resumed worker reads it; a person is told by the milestone around it, and where another run was asked for."""
    if (child := fact.data.get("child")) is not None:
        state.children = state.children.plus(child["run_id"], child)


def _model_call(state: RunState, fact: Fact) -> None:
    state.usage = state.usage + Usage.told(fact.data.get("usage", {}))


def _retry(state: RunState, fact: Fact) -> None:
    """Take back what is superseded: afterwards the state is as if it had never been said."""
    state.retries = state.retries.plus(fact.data)
    state.usage = state.usage + Usage.told(fact.data.get("usage", {}))  # what is dead was paid for as well
    dead = [(first, last) for first, last in fact.data.get("superseded", ())]
    if not dead:
        return
    state.sections = {name: kept for name, pieces in state.sections.items() if (kept := _living(pieces, dead))}
    state.reasoning = _living(state.reasoning, dead)
    said = _living(state.said, dead)
    if said is state.said:
        return
    # A later fact may have replaced or completed an earlier one that lives on, so what lives is told once more.
    state.said = said
    state.milestone, state.validation, state.findings, state.tools = None, None, GrowingMap(), GrowingMap()
    for one in said:
        _tell(state, one)


def _living(told: GrowingList[P], dead: list[tuple[int, int]]) -> GrowingList[P]:
    """Those that are not superseded; the same list if that is all of them."""
    start = bisect_left(told, min(first for first, _ in dead), key=attrgetter("seq"))
    since = told[start:]
    kept = [one for one in since if not any(first <= one.seq <= last for first, last in dead)]
    if len(kept) == len(since):
        return told
    living = told.upto(start)
    for one in kept:
        living = living.plus(one)
    return living


def _validation(state: RunState, fact: Fact) -> None:
    state.validation = fact.data


def _escalation(state: RunState, fact: Fact) -> None:
    state.questions = state.questions.plus(fact.seq, fact.data)


def _decision(state: RunState, fact: Fact) -> None:
    """What a person was asked and has answered is never taken back, whatever is tried again around it."""
    asked = fact.data.get("escalation")
    if asked is not None and asked in state.questions:
        told = {**state.questions[asked], "decision": {"seq": fact.seq, **fact.data}}
        state.questions = state.questions.plus(asked, told)


def _cancel_requested(state: RunState, fact: Fact) -> None:
    state.cancel = fact.data


def _cancel_observed(state: RunState, fact: Fact) -> None:
    state.usage = state.usage + Usage.told(fact.data.get("usage", {}))


def _result(state: RunState, fact: Fact) -> None:
    state.result = fact.data


def _cancelled(state: RunState, fact: Fact) -> None:
    state.cancel = {**(state.cancel or {}), **{k: v for k, v in fact.data.items() if k != "partial"}}
    state.partial = fact.data.get("partial")


def _error(state: RunState, fact: Fact) -> None:
    state.error = {key: value for key, value in fact.data.items() if key != "partial"}
    state.partial = fact.data.get("partial")


CASES: Final[Mapping[str, Callable[[RunState, Fact], None]]] = {
    "accepted": _accepted,
    "started": _started,
    "progress": _progress,
    "reasoning": _reasoning,
    "token": _token,
    "tool_call": _tool,
    "tool_result": _tool,
    "finding": _finding,
    "step": _step,
    "model_call": _model_call,
    "retry": _retry,
    "validation": _validation,
    "escalation": _escalation,
    "decision": _decision,
    "cancel_requested": _cancel_requested,
    "cancel_observed": _cancel_observed,
    "result": _result,
    "cancelled": _cancelled,
    "error": _error,
}
