"""How a run of a test ended, in the words that a test asks for; and what must not depend on who died on the way."""

from dataclasses import dataclass, field
from typing import Any

from eventstore.domain.record import Fact
from eventstore.domain.run import RunState, fold

CLOSING = frozenset({"step", "model_call", "tool_result", "finding", "validation"})
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
        facts=facts,
    )


def difference(expected: Ended, found: Ended) -> str | None:
    """The first thing in which two ends differ. What branches did beside each other has no order of its own."""
    for name in ("error", "status", "result", "partial", "milestones", "sections", "findings", "tools", "checks"):
        before, now = getattr(expected, name), getattr(found, name)
        if name in ANY_ORDER:
            before, now = sorted(before, key=repr), sorted(now, key=repr)
        if before != now:
            return f"{name} was {before!r} and is {now!r}"
    return None


def repeated(facts: list[Fact]) -> list[str]:
    """Calls that were closed more than once."""
    keys = [fact.data["key"] for fact in facts if fact.type in CLOSING and fact.data.get("status") != "intent"]
    return sorted({key for key in keys if keys.count(key) > 1})


def _sections(state: RunState) -> dict[str, str]:
    return {name: "".join(piece.text for piece in pieces) for name, pieces in state.sections.items()}
