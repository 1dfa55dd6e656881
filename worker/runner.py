"""One run from claim to terminal event, by one owner.

    claim -> read the log -> say `started` -> supersede what an earlier owner left half said -> run the workflow's code
          -> result | cancelled | error, exactly one, last

An owner that was fenced says nothing more: the run is somebody else's, who will end it. How a run ends is in `finish`.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from uuid import UUID

import structlog
from pydantic import BaseModel, ValidationError
from sqlalchemy.ext.asyncio import AsyncEngine

from eventstore import catalogue, log
from eventstore.domain import events
from eventstore.domain.errors import AppendRefused, EventStoreError, Fenced, NotStorable
from eventstore.recorder import Recorder
from eventstore.run_writer import RunWriter
from worker.anew import begin_anew
from worker.asking import lapse
from worker.at_end import clean_up, left_undone, verdict_of
from worker.children import Children, HandOver
from worker.continuing import take_over
from worker.declare import Workflow
from worker.finish import Finish
from worker.giving_up import Given, given_up
from worker.groups import live
from worker.history import History, joined, read_history
from worker.leftovers import superseding
from worker.limits import LimitReached, limits_of
from worker.llm.continuing import ContinueBy
from worker.llm.model import Model
from worker.llm.prices import Prices, own_prices
from worker.llm.rated import RatedModel
from worker.llm.rates import Rates
from worker.llm.retrying import RetryPolicy
from worker.metrics import WorkerMetrics
from worker.run import Run
from worker.settings import WorkerSettings
from worker.stops import Diverged, Exhausted, Misused, StopReason, WorkflowFailed
from worker.threads import within
from worker.told import Told, read_facts
from worker.waits import Asked, asked_us, has_news, read_asked
from worker.work import Graces, Provider, Work, look_at

__all__ = ["Bench", "Ownership", "advance", "carry_out", "read_facts"]

POLICIES: Final = Path(__file__).parents[1] / "policies"

logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Bench:
    """What every run of this process works with."""

    engine: AsyncEngine
    recorder: Recorder
    model: Model
    model_name: str
    retries: RetryPolicy
    workflows: dict[str, Workflow]
    settings: WorkerSettings
    lease_s: float
    owner: str
    clock_us: Callable[[], int]
    metrics: WorkerMetrics = field(default_factory=WorkerMetrics)
    continue_by: ContinueBy = "ask"
    prices: Prices = field(default_factory=own_prices)
    rates: Rates | None = None
    policies: Path = POLICIES
    hand_over: HandOver | None = None


async def advance(bench: Bench, run_id: UUID, handover: asyncio.Event) -> None:
    """Claim this very run, whoever else waits, and carry it to its end or to where all of it waits."""
    while True:
        async with bench.engine.begin() as connection:
            claim = await log.claim(connection, run_id, bench.owner, bench.lease_s)
        if claim.verdict != "claimed" or claim.epoch is None:
            logger.debug("not ours to run", run_id=str(run_id), verdict=claim.verdict)
            return
        if not await carry(bench, run_id, claim.epoch, handover, Given(claim.parked or 0)):
            return


async def carry(bench: Bench, run_id: UUID, epoch: int, handover: asyncio.Event, given: Given) -> bool:
    """One owner's time with a claimed run; whether there is something to do again at once."""
    writer = bench.recorder.open(run_id, epoch)
    try:
        return await Ownership(bench, writer, handover, given).carry()
    except Fenced:
        logger.info("the run was taken over", run_id=str(run_id), epoch=epoch)
    except EventStoreError as fault:
        logger.error("the log refused to go on", run_id=str(run_id), fault=str(fault))
    finally:
        bench.recorder.close(writer)
    return False


class Ownership:
    """One owner's time with a run."""

    def __init__(self, bench: Bench, writer: RunWriter, handover: asyncio.Event, given: Given) -> None:
        self._given = given
        self._bench = bench
        self._writer = writer
        self._handover = handover
        self._told = Told(bench.engine, writer)
        self._children = Children(bench.engine, bench.workflows, bench.policies, bench.clock_us, bench.hand_over)
        self._finish = Finish(
            writer, self._told, bench.clock_us, bench.metrics, bench.settings.assemble_s, self._children
        )

    async def carry(self) -> bool:
        """Everything between the claim and the terminal event, or the next wait; whether to claim it again at once."""
        again = await self._carry()
        if self._finish.over and (parent := self._told.facts[0].data.get("parent")) is not None:
            await self._children.hand_over(UUID(parent["run_id"]))  # it was woken: tell somebody
        return again

    async def _carry(self) -> bool:
        asked = read_asked(await self._told.read_on())
        if await lapse(self._bench.engine, self._writer.run_id, asked, self._bench.clock_us):
            await self._told.read_on()
        history = read_history(self._told.facts)
        workflow = self._bench.workflows.get(history.accepted.data["workflow"])
        attempt = self._writer.epoch - history.handovers - self._given.parked
        if history.cancel is not None:
            await self._supersede(history)
            await self._clean_up_after(workflow, history, attempt, None)
            await self._finish.cancelled(workflow, None)
            return False
        why = given_up(self._given, history, attempt)
        if why is not None and not await begin_anew(self._bench.engine, self._writer, history, workflow, why):
            await left_undone(self._writer, history)
            await self._finish.error(workflow, why.code, why.message, retryable=why.retryable)
            return False
        try:
            history = await self._start(history, workflow, attempt)
        except WorkflowFailed as fault:
            await left_undone(self._writer, history)
            await self._finish.failed(workflow, fault)
            return False
        if workflow is None:
            await left_undone(self._writer, history)
            await self._finish.error(workflow, "workflow_unknown", "No worker knows this workflow.")
            return False
        value = await self._input(workflow)
        if value is None:
            await left_undone(self._writer, history)
            await self._finish.error(workflow, "input_refused", "The input does not fit this version of the workflow.")
            return False
        return await self._work(workflow, history, value, attempt)

    async def _input(self, workflow: Workflow) -> BaseModel | None:
        async with self._bench.engine.connect() as connection:
            told = await catalogue.read_input(connection, self._writer.run_id) or b"null"
        try:
            return workflow.input.model_validate_json(told)
        except ValidationError:
            return None

    async def _start(self, history: History, workflow: Workflow | None, attempt: int) -> History:
        self._writer.push(
            events.Started(
                attempt=attempt,
                worker=self._bench.owner,
                code=workflow.code if workflow else "",
                workflow_version=workflow.version if workflow else 0,
                resumed_from=history.last_seq if history.started else None,
            )
        )
        taken = await take_over(self._bench.engine, self._writer, self._told, history)
        if taken is None:
            await self._supersede(history)
        if not history.started:
            self._bench.metrics.first_event(history.accepted.at_us, self._writer.last_us)
        history.begin(self._writer.last_us)
        self._given.begun()
        return taken or history

    async def _supersede(self, history: History) -> None:
        """Name what an earlier owner left half said, so that no reader and no fold keeps it."""
        for body in superseding(history):
            self._writer.push(body)
        await self._writer.flush()

    async def _work(self, workflow: Workflow, history: History, value: BaseModel, attempt: int) -> bool:
        asked = read_asked(self._told.facts)
        ends_us = self._ends_us(history, asked)
        # Before the code could go to sleep again, or go on with what was taken down when it was about to end.
        if (over := self._over(history, ends_us)) is not None:
            await self._clean_up_after(workflow, history, attempt, over)
            await self._finish.failed(workflow, over)
            return False
        work = self._new_work(workflow, history, attempt, asked)
        self._writer.events_max = work.limits.events_max
        task = asyncio.create_task(carry_out(work, value), name=f"run {self._writer.run_id}")
        task.add_done_callback(look_at)
        seen_us = await self._watch(task, work, (ends_us - self._writer.last_us) / 1e6)
        if work.stopped == "lost":
            assert self._writer.fault is not None
            raise self._writer.fault
        if work.stopped == "suspend":
            return await self._park(work, ends_us)
        if work.stopped == "handover":
            await self._hand_over()
        elif work.stopped == "cancel" or self._was_refused(task):
            await self._finish.observed(work, seen_us or self._bench.clock_us())
            await clean_up(work, None)
            await self._finish.cancelled(workflow, work)
        else:
            fault = self._fault(work, task)
            await clean_up(work, fault)
            if fault is None:
                await self._finish.result(workflow, work, task.result())
            else:
                await self._finish.failed(workflow, fault)
        return False

    def _new_work(self, workflow: Workflow, history: History, attempt: int, asked: Asked) -> Work:
        bench = self._bench
        model = RatedModel(bench.model, bench.rates, history.accepted.data["tenant"]) if bench.rates else bench.model
        work = Work(
            workflow,
            self._writer,
            history,
            Provider(model, bench.model_name, bench.retries, bench.prices, bench.continue_by),
            bench.clock_us,
            attempt=attempt,
            asked=asked,
            graces=Graces(bench.settings.grace_s, bench.settings.effect_grace_s),
            secrets=bench.settings.tool_secrets,
            children=self._children,
        )
        if isinstance(model, RatedModel):
            model.notice = work.notice
        return work

    def _over(self, history: History, ends_us: int) -> WorkflowFailed | None:
        """Why the run ends before its code goes on, if it does."""
        if history.ended is not None and (verdict := verdict_of(history.ended)) is not None:
            return verdict
        return LimitReached("run_s") if ends_us <= self._writer.last_us else None

    async def _clean_up_after(
        self, workflow: Workflow | None, history: History, attempt: int, fault: WorkflowFailed | None
    ) -> None:
        """The run ends and its code goes on no more: it goes through what the log has, to say what it registered."""
        value = await self._input(workflow) if workflow is not None and history.at_end else None
        if workflow is not None and value is not None:
            work = self._new_work(workflow, history, attempt, read_asked(self._told.facts))
            work.only_replay = True
            task = asyncio.create_task(carry_out(work, value), name=f"end of run {self._writer.run_id}")
            await within(task, work.limits.on_end_s, work.graces.clean_up_s)
            work.stop("over")
            task.add_done_callback(look_at)
            await clean_up(work, fault)
        await left_undone(self._writer, history)

    def _ends_us(self, history: History, asked: Asked) -> int:
        """When the run's time is over, by the database's clock; it stands still while a person is asked."""
        limit_us = round(limits_of(history.accepted.data["limits"]).run_s * 1e6)
        return (history.began_us or history.accepted.at_us) + limit_us + asked_us(asked, self._writer.last_us)

    async def _park(self, work: Work, ends_us: int) -> bool:
        """Give the run back until it is due. True when what it waits for came while we were leaving."""
        await self._writer.flush()
        await self._told.read_on()
        # A place where the log never is: what we just read is news to the code that is waiting.
        upto = 0 if has_news(work.waits, read_asked(self._told.facts)) else self._told.facts[-1].seq
        due_us = work.waits.due_us(ends_us)
        async with self._bench.engine.begin() as connection:
            told = await log.suspend(connection, self._writer.run_id, self._writer.epoch, upto, due_us)
        if told == "fenced":
            raise Fenced
        return told == "moved"

    async def _watch(self, task: "asyncio.Task[BaseModel]", work: Work, time_left_s: float) -> int | None:
        """Wait for the code to end, or make it end: the answer is when a reason to stop was seen."""
        reasons: Sequence[tuple[StopReason, asyncio.Task[object]]] = (
            ("lost", asyncio.create_task(self._writer.broken())),
            ("cancel", asyncio.create_task(self._writer.cancel.wait())),
            ("handover", asyncio.create_task(self._handover.wait())),
            ("deadline", asyncio.create_task(asyncio.sleep(time_left_s))),
            ("suspend", asyncio.create_task(work.waits.all_wait())),
        )
        halted = asyncio.create_task(work.halted.wait())  # by itself: code and history disagree, or it cannot be kept
        full = asyncio.create_task(self._writer.full.wait())
        waits = [halted, full, *(wait for _, wait in reasons)]
        try:
            await asyncio.wait([task, *waits], return_when=asyncio.FIRST_COMPLETED)
            seen_us = self._bench.clock_us()
            if task.done():
                return None
            if (reason := next((reason for reason, wait in reasons if wait.done()), None)) is not None:
                work.stop(reason)
            elif full.done():
                work.exhausted("events_max")
            if work.stopped is not None or isinstance(work.halt, Exhausted):
                task.cancel()
            await self._see_off(task, work)
            return seen_us
        finally:
            if not task.done():  # we are going away, or leave it behind: it writes nothing more
                work.stop("lost")
                task.cancel()
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    async def _see_off(self, task: "asyncio.Task[BaseModel]", work: Work) -> None:
        """Give code that was stopped the time to clean up. What does not end is left behind, where it does no harm."""
        settings = self._bench.settings
        await asyncio.wait([task], timeout=settings.grace_s)
        if not task.done() and work.effects:
            await asyncio.wait([task], timeout=settings.effect_grace_s)
        if not task.done():
            work.abandon()
            logger.error("a workflow does not stop and was left behind", workflow=work.workflow.name)

    def _was_refused(self, task: "asyncio.Task[BaseModel]") -> bool:
        """Whether the log took something no more, a question for one, because the run was asked to stop before."""
        fault = task.exception() if task.done() and not task.cancelled() else None
        return isinstance(fault, AppendRefused) and self._writer.cancel.is_set()

    def _fault(self, run: Work, task: "asyncio.Task[BaseModel]") -> WorkflowFailed | None:
        """Why the run fails, in words that may be shown; None when its code returned."""
        # What the code made of a halt does not count, nor whether it ended at all.
        ended = asyncio.CancelledError() if not task.done() or task.cancelled() else task.exception()
        fault = run.halt or ended
        if fault is None or isinstance(fault, WorkflowFailed):
            return fault
        if run.stopped == "deadline":
            return LimitReached("run_s")
        if isinstance(fault, Exhausted):
            return LimitReached(fault.limit)
        if isinstance(fault, NotStorable):
            return WorkflowFailed("not_storable", str(fault))
        if isinstance(fault, EventStoreError):
            raise fault
        if isinstance(fault, Diverged):
            logger.error("code and history disagree", run_id=str(run.run_id), what=str(fault))
            return WorkflowFailed("diverged", "The workflow's code changed while the run was under way.")
        if isinstance(fault, Misused):
            logger.error("a workflow calls what cannot be brought back", run_id=str(run.run_id), what=str(fault))
            return WorkflowFailed("workflow_misuse", "The workflow's code has a fault and was stopped.")
        logger.error("a workflow raised", run_id=str(run.run_id), workflow=run.workflow.name, exc_info=fault)
        return WorkflowFailed("workflow_failed", "The workflow failed.", retryable=True)

    async def _hand_over(self) -> None:
        """Give the run back on purpose: what is half said is dead, and the next owner need not wait for the lease."""
        await self._writer.flush()
        await self._told.read_on()
        history = read_history(self._told.facts)
        left_open = history.left_open()
        key = left_open[0][0] if left_open else "run"
        dead = joined(one for _, told in left_open for one in told)
        attempt = history.attempts[key] if left_open else history.attempts.get(key, 0) + 1
        await self._writer.record(
            events.Retry(
                what="run",
                key=key,
                reason="handover",
                message="The worker was stopped; another one goes on.",
                superseded=dead,
                attempt=attempt,
                next_attempt=attempt + 1,
            )
        )
        async with self._bench.engine.begin() as connection:
            await log.release(connection, self._writer.run_id, self._writer.epoch)


async def carry_out(work: Work, value: BaseModel) -> BaseModel:
    """Run a workflow's code to its end. Raises Diverged when it ends before it has asked for all that the log has."""
    try:
        output: BaseModel = await live(work, work.root, lambda root: work.workflow.fn(Run(work, root), value))
    except WorkflowFailed as fault:
        work.look_back(f"failed   {fault.code}")
        raise
    work.look_back("ended")
    return output
