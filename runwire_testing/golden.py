"""Replays exported runs against today's code: no server, no model, no tool, only the log.

What was stored in an earlier version of a workflow must still be understood by today's: that is what makes it safe to
deploy while runs are under way, and what makes a finished run's partial results readable for ever.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Final

from pydantic import BaseModel, ValidationError

from eventstore.domain import intake
from eventstore.domain.record import Fact
from eventstore.domain.run import RunState, fold
from eventstore.run_writer import RunWriter
from ops.golden import Golden
from worker.branches import Branch
from worker.declare import RunView, Workflow
from worker.digests import digest, plain
from worker.history import read_history
from worker.llm.model import ModelEnd, ModelFault, ModelRequest, Piece
from worker.llm.retrying import RetryPolicy
from worker.runner import carry_out
from worker.stops import Diverged, Misused, WorkflowFailed
from worker.waits import read_asked
from worker.work import Graces, Provider, Work, look_at

REPLAY_S: Final = 30.0
EVENTS_MAX: Final = 100
STOPPED_BY_US: Final = frozenset({"attempts_exhausted", "workflow_unknown", "input_refused", "version_gone"})


class NobodyAnswers:
    """A model that must not be asked."""

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Piece | ModelEnd, None]:
        """Refuse."""
        raise ModelFault("provider_refused", "A replay asked the model.", retryable=False)
        yield  # what makes this a generator

    async def aclose(self) -> None:
        """Nothing is open."""


class PastTheLog(Misused):
    """The code has come to a call that the log does not answer."""


class Replay(Work):
    """A run's work with nothing but its log: where something new would begin outside, it ends."""

    async def outside(self, branch: Branch) -> None:
        """When the log has answered all that it can, in every branch, the code wants more than there is."""
        await super().outside(branch)
        raise PastTheLog(f"a call in {branch.path or 'the main branch'} is not in the log")


async def replayed(workflow: Workflow, golden: Golden) -> str | None:
    """What is different when today's code goes through this log, or None."""
    end = golden.facts[-1]
    try:
        value = workflow.input.model_validate(golden.input)
    except ValidationError as fault:
        return f"its input does not fit any more: {fault.errors(include_url=False)[0]['msg']}"
    writer = RunWriter(golden.run_id, epoch=2, clock_us=lambda: 0, wake=lambda _: None)
    work = _work(workflow, golden, writer)
    ended = await _to_its_end(work, value)
    new = [event.type for event in writer.take(EVENTS_MAX).events]
    if isinstance(ended, Diverged):
        return str(ended)
    if stopped_from_outside(end):  # where a stop caught it is no part of the code
        return None
    if isinstance(ended, PastTheLog):
        return str(ended)
    if new:
        return f"it did something new: {', '.join(new)}"
    return _difference(end, ended, work)


def stopped_from_outside(end: Fact) -> bool:
    """Whether something else than the code ended this run."""
    code = end.data.get("code", "")
    return end.type == "cancelled" or code.startswith("limit_") or code in STOPPED_BY_US


def partial_on_every_prefix(workflow: Workflow, facts: Sequence[Fact]) -> str | None:
    """The first beginning of a log that the workflow's assembler cannot make a partial result of, or None."""
    state = RunState()
    for fact in facts:
        state = fold([fact], state)
        try:
            if (made := workflow.partial(RunView(state))) is not None:
                intake.check(plain(made))
        except Exception as fault:  # noqa: BLE001 - whatever an author's assembler raises is what is told
            return f"partial raised {type(fault).__name__} on the log up to event {fact.seq} ({fact.type}): {fault}"
    return None


def _work(workflow: Workflow, golden: Golden, writer: RunWriter) -> Replay:
    facts = golden.facts[:-1]
    asked = next((fact.data["model"] for fact in facts if fact.type == "model_call"), "none")
    provider = Provider(NobodyAnswers(), asked, RetryPolicy())
    return Replay(
        workflow, writer, read_history(facts), provider, lambda: 0, attempt=2, asked=read_asked(facts), graces=Graces()
    )


async def _to_its_end(work: Replay, value: BaseModel) -> BaseModel | BaseException:
    """What the code returns or raises; where it waits for what the log does not have, it is past the log."""
    task = asyncio.create_task(carry_out(work, value))
    others = [asyncio.create_task(work.halted.wait()), asyncio.create_task(work.waits.all_wait())]
    try:
        await asyncio.wait([task, *others], timeout=REPLAY_S, return_when=asyncio.FIRST_COMPLETED)
        if task.done() and work.halt is None:
            return task.exception() or task.result()
        return work.halt or PastTheLog("it waits for what is not in the log")
    finally:
        work.stop("lost")
        for one in (task, *others):
            one.cancel()
        await asyncio.wait([task, *others], timeout=1.0)
        look_at(task)


def _difference(end: Fact, ended: BaseModel | BaseException, work: Replay) -> str | None:
    if isinstance(ended, BaseModel):
        if end.type != "result":
            return f"it ended with {end.data.get('code', end.type)} and returns a value now"
        if digest(ended) not in work.validated:
            return "it returns a value that it did not validate"
        before, now = end.data["output"], plain(ended)
        return None if before == now else f"its result was {before!r} and is {now!r}"
    code = ended.code if isinstance(ended, WorkflowFailed) else type(ended).__name__
    before = end.data.get("code", end.type)
    own = "workflow_failed" if not isinstance(ended, WorkflowFailed) else code
    return None if own == before else f"it ended with {before} and ends with {code} now: {ended}"
