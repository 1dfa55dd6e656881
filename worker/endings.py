"""How a run ends: the one terminal event, and the best partial result when it is not a result."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import structlog
from pydantic import BaseModel

from eventstore.domain import events, intake
from eventstore.domain.errors import NotStorable
from eventstore.domain.run import RunState
from eventstore.domain.transcript import partial as default_partial
from worker.declare import RunView, Workflow
from worker.digests import plain
from worker.threads import in_thread

E = TypeVar("E", bound=events.Body)

SWEEP = events.Person(subject="runwire", role="service")

logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Assembled:
    """A partial result, who made it, and what it lacks."""

    partial: dict[str, Any]
    by: Literal["workflow", "default"]
    missing: list[str]


async def assemble(workflow: Workflow, state: RunState, timeout_s: float) -> Assembled:
    """The best partial result that the log allows: the workflow's own if it comes in time, else sections and findings.

    It runs in a thread: an assembler that hangs must not hold the other runs of this process, nor this run's end.
    """
    index = (state.milestone or {}).get("index", 0)
    # The milestone a run stopped in was not finished, so it is missing as well.
    missing = [milestone["label"] for milestone in state.plan[max(0, index - 1) :]]
    fallback = default_partial(state)
    try:
        async with asyncio.timeout(timeout_s):
            made = await in_thread(workflow.partial, RunView(state))
        if made is not None:
            value = plain(made)
            intake.check(value)
            return Assembled({**fallback, "output": value, "final": False}, "workflow", missing)
    except Exception:  # whatever an author's assembler does, the run ends with a partial result
        logger.exception("a workflow could not assemble its partial result", workflow=workflow.name)
    return Assembled(fallback, "default", missing)


def result(output: BaseModel, state: RunState, usage: events.Usage, changed: int = 0) -> events.Result:
    """The one final event. `changed`: how many calls the log answered for code that asks otherwise now."""
    counts = {"findings": len(state.findings), "tool_calls": len(state.tools), "retries": len(state.retries)}
    if changed:
        counts["changed_calls"] = changed
    return events.Result(output=plain(output), counts=counts, usage=usage)


def cancelled(asked: Mapping[str, Any] | None, made: Assembled, validated: bool) -> events.Cancelled:
    """The end of a run that was asked to stop."""
    by = events.Person.model_validate(asked["by"]) if asked else SWEEP
    reason = str(asked["reason"]) if asked else "stopped"

    def body(partial: dict[str, Any]) -> events.Cancelled:
        return events.Cancelled(
            reason=reason,
            by=by,
            partial=partial,
            missing=made.missing,
            assembled_by=made.by,
            validated=validated,
        )

    return _fitting(body, made)


def error(code: str, message: str, made: Assembled, *, retryable: bool, call: str | None = None) -> events.Error:
    """The end of a run that could not go on."""

    def body(partial: dict[str, Any]) -> events.Error:
        return events.Error(code=code, message=message, partial=partial, retryable=retryable, call=call)

    return _fitting(body, made)


def _fitting(body: Callable[[dict[str, Any]], E], made: Assembled) -> E:
    """The terminal event with as much of the partial result as fits: a run must end, however much it has said.

    The draft text is left out first; it stands in the log, and every reader's state still shows it.
    """
    whole = made.partial
    for left_out in ((), ("sections",), tuple(name for name in whole if name != "final")):
        partial = {name: value for name, value in whole.items() if name not in left_out}
        if left_out:
            partial["left_out"] = list(left_out)
        ending = body(partial)
        with suppress(NotStorable):
            events.new_event(ending, 0)
            return ending
    return ending
