"""How a run of a test ended, in the words that a test asks for; and what must not depend on who died on the way."""

from dataclasses import dataclass, field
from typing import Any

from eventstore.domain.lifecycle import TERMINAL_TYPES
from eventstore.domain.record import Fact
from eventstore.domain.run import RunState, fold
from worker.declare import RunView, Workflow
from worker.digests import plain

CLOSING = frozenset({"step", "model_call", "tool_result", "finding", "validation", "escalation"})
ANY_ORDER = frozenset({"milestones", "findings", "tools"})


@dataclass(frozen=True, slots=True)
class Ended:
    """A run at its end."""

    status: str
    result: Any  # the validated output, or None
    partial: Any  # what the workflow's own assembler made of a run without result, or None
    error: str | None  # the code of the error that it ended with
    milestones: list[str]
    sections: dict[str, str]
    findings: list[Any]
    tools: list[str]
    checks: dict[str, bool]
    asked: dict[str, Any]  # what was decided on each question, by its name
    facts: list[Fact] = field(repr=False, compare=False)


def ended(facts: list[Fact]) -> Ended:
    """Fold a whole log."""
    state = fold(facts)
    partial = state.partial or {}
    return Ended(
        status=str(state.status),
        result=state.result["output"] if state.result else None,
        partial=partial.get("output"),
        error=state.error["code"] if state.error else None,
        milestones=list(dict.fromkeys(fact.data["label"] for fact in facts if fact.type == "progress")),
        sections=_sections(state),
        findings=[dict(value) for _, value in state.findings.values()],
        tools=[value["tool"] for _, value in state.tools.values()],
        checks={check["name"]: check["passed"] for check in (state.validation or {}).get("checks", ())},
        asked={one["name"]: _decided(one.get("decision")) for one in state.questions.values()},
        facts=facts,
    )


def difference(expected: Ended, found: Ended) -> str | None:
    """The first thing in which two ends differ. What branches did beside each other has no order of its own."""
    for name in (
        "error",
        "status",
        "result",
        "partial",
        "milestones",
        "sections",
        "findings",
        "tools",
        "checks",
        "asked",
    ):
        before, now = getattr(expected, name), getattr(found, name)
        if name in ANY_ORDER:
            before, now = sorted(before, key=repr), sorted(now, key=repr)
        if before != now:
            return f"{name} was {before!r} and is {now!r}"
    return None


def _decided(decision: Any) -> Any:
    """The choice or the answer; None while there is none."""
    return None if decision is None else decision.get("choice", decision.get("answer"))


def repeated(facts: list[Fact]) -> list[str]:
    """Calls that were closed more than once."""
    keys = [fact.data["key"] for fact in facts if fact.type in CLOSING and fact.data.get("status") != "intent"]
    return sorted({key for key in keys if keys.count(key) > 1})


def stopped_in_order(workflow: Workflow, expected: Ended, told: Ended) -> str | None:
    """What is wrong with how a run ended that was asked to stop at some place; its other self ended as expected."""
    types = [fact.type for fact in told.facts]
    if (ends := sum(type_ in TERMINAL_TYPES for type_ in types)) != 1 or types[-1] not in TERMINAL_TYPES:
        return f"it has {ends} terminal events, and the last event is {types[-1]}"
    if types[-1] != "cancelled":  # it had ended, by itself, before anybody could stop it
        return difference(expected, told) if "cancel_requested" not in types else f"it ended with {types[-1]}"
    seen = types.index("cancel_observed") if "cancel_observed" in types else len(types)
    if spoken := {"token", "reasoning", "tool_call", "finding"} & {*types[seen:]}:
        return f"{' and '.join(sorted(spoken))} came after the stop was seen"
    for name, text in told.sections.items():
        if not expected.sections.get(name, "").startswith(text):
            return f"section {name} was {expected.sections.get(name)!r} and begins with {text!r}"
    made = workflow.partial(RunView(fold(told.facts[:-1])))
    output = plain(made) if made is not None else None
    if told.partial != output and not told.facts[-1].data["validated"]:
        return f"the partial result is {told.partial!r}, and the assembler makes {output!r}"
    return None


def _sections(state: RunState) -> dict[str, str]:
    return {name: "".join(piece.text for piece in pieces) for name, pieces in state.sections.items()}
