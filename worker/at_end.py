"""What code asks to be done outside when its run ends, whatever the end: locks given back, things taken down.

It is registered in the log before it is needed, and done after the code has ended, before the terminal event. An owner
that dies in between leaves it to the next one, which does it again with the same idempotency key. A run that has begun
to clean up goes no further: how it was about to end stands beside the first thing that was done.
"""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import structlog

from eventstore.domain import events
from eventstore.domain.record import Fact
from eventstore.run_writer import RunWriter
from worker.branches import Branch
from worker.history import History
from worker.memo import Call
from worker.steps import StepContext, wants_context
from worker.stops import Misused, Site, WorkflowFailed
from worker.threads import in_thread, kept_in, within
from worker.work import Work

logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Registered:
    """Something to be done at the end."""

    call: Call
    name: str
    fn: Callable[..., Any]
    args: tuple[Any, ...]

    def doing(self, work: Work, left_s: float) -> Awaitable[Any]:
        """Do it."""
        context = StepContext(f"{work.run_id}/{self.call.key}", self.call.attempt, left_s)
        args = (context, *self.args) if wants_context(self.fn) else self.args
        return kept_in(self.fn(*args)) if inspect.iscoroutinefunction(self.fn) else in_thread(self.fn, *args)


async def register(
    work: Work, branch: Branch, site: Site, name: str, fn: Callable[..., Any], args: tuple[Any, ...]
) -> None:
    """Remember it, in the log first: whoever ends this run must know that there is something to do."""
    async with work.calling(branch, "step", name, site, *args) as call:
        if (above := branch.under()) is not None:
            raise Misused(f"{site}: what is to be done at the end was registered while the stream {above} is read")
        if call.key not in work.history.intents:
            await work.outside(branch)
            output = {"idempotency_key": f"{work.run_id}/{call.key}", "at_end": True}
            await work.intend(branch, events.Step(name=name, status="intent", output=output, **call.closing()))
        intent = work.history.intents[call.key].fact
        branch.passed(intent.seq, intent.at_us)
        if call.key not in work.history.cleaned:
            work.at_end[call.key] = Registered(call, name, fn, args)


async def clean_up(work: Work, fault: WorkflowFailed | None) -> None:
    """Do what was registered, the last first; all together within `on_end_s`. It does not change how the run ends."""
    deadline = time.monotonic() + work.limits.on_end_s
    for registered in reversed([*work.at_end.values()]):
        told = await _done(work, registered, deadline)
        if fault is not None:
            told["output"] = {"code": fault.code, "message": fault.message, "retryable": fault.retryable}
            told["output"] |= {"call": fault.call} if fault.call is not None else {}
        closing = {**registered.call.closing(), **told}
        body = events.Step(name=registered.name, **closing)
        await work.writer.record(body)
        del work.at_end[registered.call.key]
        work.history.at_end.pop(registered.call.key)


async def _done(work: Work, registered: Registered, deadline: float) -> dict[str, Any]:
    left_s = deadline - time.monotonic()
    late = {"status": "failed", "error": f"limit_on_end_s: {registered.name} took longer than it may."}
    if left_s <= 0:
        return late
    doing = asyncio.ensure_future(registered.doing(work, left_s))
    if not await within(doing, left_s, 0.0):
        logger.error("what was to be done at the end took too long", run_id=str(work.run_id), name=registered.name)
        return late
    fault = asyncio.CancelledError() if doing.cancelled() else doing.exception()
    if fault is not None:
        logger.error("what was to be done at the end failed", run_id=str(work.run_id), exc_info=fault)
        return {"status": "failed", "error": f"{registered.name} failed."}
    return {"status": "ok"}


async def left_undone(writer: RunWriter, history: History) -> None:
    """Nobody could do these: the code that knows how is gone, or may not run again. The log says so."""
    for key, intent in [*history.at_end.items()]:
        told = {name: intent.data[name] for name in ("key", "place", "args", "attempt")}
        name = intent.data["name"]
        await writer.record(events.Step(name=name, status="failed", error=f"{name} was left undone.", **told))
        del history.at_end[key]


def verdict_of(fact: Fact) -> WorkflowFailed | None:
    """How the run was about to end, as told beside what was done at its end."""
    told = fact.data.get("output")
    if told is None:
        return None
    return WorkflowFailed(told["code"], told["message"], retryable=told["retryable"]).of(told.get("call"))
