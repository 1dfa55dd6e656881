"""One run from claim to terminal event, by one owner.

    claim -> read the log -> say `started` -> supersede what an earlier owner left half said -> run the workflow's code
          -> result | cancelled | error, exactly one, last

The log decides every race. A result that comes after a cancel request is refused by the append, and the run ends
`cancelled` with the validated value as its partial result. An owner that was fenced says nothing more: the run is
somebody else's, who will end it.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import structlog
from pydantic import BaseModel, ValidationError
from sqlalchemy.ext.asyncio import AsyncEngine

from eventstore import catalogue, log
from eventstore.domain import events
from eventstore.domain.errors import AppendRefused, EventStoreError, Fenced, NotStorable
from eventstore.domain.record import Fact
from eventstore.domain.run import RunState, fold
from eventstore.domain.transcript import partial as default_partial
from eventstore.recorder import Recorder, RunWriter
from worker import endings
from worker.asking import lapse
from worker.declare import Workflow
from worker.digests import digest
from worker.groups import live
from worker.history import History, joined, read_history
from worker.llm.model import Model
from worker.llm.retrying import RetryPolicy
from worker.metrics import WorkerMetrics
from worker.run import Run
from worker.settings import WorkerSettings
from worker.stops import Diverged, Misused, StopReason, WorkflowFailed
from worker.waits import Asked, asked_us, has_news, read_asked
from worker.work import Graces, Provider, Work, look_at

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


async def read_facts(engine: AsyncEngine, run_id: UUID, after: int = 0) -> list[Fact]:
    """The whole log of a run from a cursor on."""
    facts: list[Fact] = []
    while True:
        async with engine.connect() as connection:
            page = await log.read_after(connection, run_id, after)
        facts += [event.fact() for event in page.events]
        if not page.more:
            return facts
        after = page.events[-1].seq


async def advance(bench: Bench, run_id: UUID, handover: asyncio.Event) -> None:
    """Carry the run to its end, or to where all of it waits, if it is free to be claimed."""
    while await _own(bench, run_id, handover):
        logger.debug("answered before it was given back", run_id=str(run_id))


async def _own(bench: Bench, run_id: UUID, handover: asyncio.Event) -> bool:
    """One claim of the run; whether there is something to do again at once."""
    async with bench.engine.begin() as connection:
        claim = await log.claim(connection, run_id, bench.owner, bench.lease_s)
    if claim.verdict != "claimed" or claim.epoch is None:
        logger.debug("not ours to run", run_id=str(run_id), verdict=claim.verdict)
        return False
    writer = bench.recorder.open(run_id, claim.epoch)
    try:
        return await Ownership(bench, writer, handover, claim.parked or 0).carry()
    except Fenced:
        logger.info("the run was taken over", run_id=str(run_id), epoch=claim.epoch)
    except EventStoreError as fault:
        logger.error("the log refused to go on", run_id=str(run_id), fault=str(fault))
    finally:
        bench.recorder.close(writer)
    return False


class Ownership:
    """One owner's time with a run."""

    def __init__(self, bench: Bench, writer: RunWriter, handover: asyncio.Event, parked: int = 0) -> None:
        self._parked = parked
        self._bench = bench
        self._writer = writer
        self._handover = handover
        self._facts: list[Fact] = []
        self._folded = RunState()
        self._folded_to = 0

    async def carry(self) -> bool:
        """Everything between the claim and the terminal event, or the next wait; whether to claim it again at once."""
        await self._read_on()
        asked = read_asked(self._facts)
        if await lapse(self._bench.engine, self._writer.run_id, asked, self._bench.clock_us):
            await self._read_on()
        history = read_history(self._facts)
        workflow = self._bench.workflows.get(history.accepted.data["workflow"])
        if history.cancel is not None:
            await self._supersede(history)
            await self._end_cancelled(workflow, None, None)
            return False
        attempt = self._writer.epoch - history.handovers - self._parked
        if attempt > history.accepted.data["limits"]["attempts_max"]:
            await self._end_error(workflow, "attempts_exhausted", "The run failed too often and was given up.")
            return False
        await self._start(history, workflow, attempt)
        if not history.started:
            self._bench.metrics.first_event(history.accepted.at_us, self._writer.last_us)
        if workflow is None:
            await self._end_error(workflow, "workflow_unknown", "No worker knows this workflow.")
            return False
        try:
            value = workflow.input.model_validate_json(await self._input())
        except ValidationError:
            await self._end_error(workflow, "input_refused", "The input does not fit this version of the workflow.")
            return False
        return await self._work(workflow, history, value, attempt)

    async def _input(self) -> bytes:
        async with self._bench.engine.connect() as connection:
            return await catalogue.read_input(connection, self._writer.run_id) or b"null"

    async def _start(self, history: History, workflow: Workflow | None, attempt: int) -> None:
        self._writer.push(
            events.Started(
                attempt=attempt,
                worker=self._bench.owner,
                code=workflow.code if workflow else "",
                workflow_version=workflow.version if workflow else 0,
                resumed_from=history.last_seq if history.started else None,
            )
        )
        await self._supersede(history)

    async def _supersede(self, history: History) -> None:
        """Name what an earlier owner left half said, so that no reader and no fold keeps it."""
        for body in superseding(history):
            self._writer.push(body)
        await self._writer.flush()

    async def _work(self, workflow: Workflow, history: History, value: BaseModel, attempt: int) -> bool:
        bench, asked = self._bench, read_asked(self._facts)
        ends_us = self._ends_us(history, asked)
        if ends_us <= self._writer.last_us:  # before the code could go to sleep again
            await self._end_error(workflow, "limit_run_s", "The run took longer than it may.", retryable=True)
            return False
        work = Work(
            workflow,
            self._writer,
            history,
            Provider(bench.model, bench.model_name, bench.retries),
            bench.clock_us,
            attempt=attempt,
            asked=asked,
            graces=Graces(bench.settings.grace_s, bench.settings.effect_grace_s),
        )
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
        elif work.stopped == "cancel":
            await self._end_cancelled(workflow, work, seen_us)
        elif work.stopped == "deadline":
            await self._end_error(workflow, "limit_run_s", "The run took longer than it may.", retryable=True)
        else:
            await self._end(workflow, work, task)
        return False

    def _ends_us(self, history: History, asked: Asked) -> int:
        """When the run's time is over, by the database's clock; it stands still while a person is asked."""
        limit_us = round(float(history.accepted.data["limits"]["run_s"]) * 1e6)
        return history.accepted.at_us + limit_us + asked_us(asked, self._writer.last_us)

    async def _park(self, work: Work, ends_us: int) -> bool:
        """Give the run back until it is due. True when what it waits for came while we were leaving."""
        await self._writer.flush()
        await self._read_on()
        # A place where the log never is: what we just read is news to the code that is waiting.
        upto = 0 if has_news(work.waits, read_asked(self._facts)) else self._facts[-1].seq
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
        waits = [halted, *(wait for _, wait in reasons)]
        try:
            await asyncio.wait([task, *waits], return_when=asyncio.FIRST_COMPLETED)
            seen_us = self._bench.clock_us()
            if task.done():
                return None
            if (reason := next((reason for reason, wait in reasons if wait.done()), None)) is not None:
                work.stop(reason)
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

    async def _end(self, workflow: Workflow, run: Work, task: "asyncio.Task[BaseModel]") -> None:
        # What the code made of a halt does not count, nor whether it ended at all.
        ended = asyncio.CancelledError() if not task.done() or task.cancelled() else task.exception()
        fault = run.halt or ended
        if fault is None:
            await self._end_result(workflow, run, task.result())
        elif isinstance(fault, NotStorable):
            await self._end_error(workflow, "not_storable", str(fault))
        elif isinstance(fault, AppendRefused) and self._writer.cancel.is_set():
            await self._end_cancelled(workflow, run, self._bench.clock_us())
        elif isinstance(fault, EventStoreError):
            raise fault
        elif isinstance(fault, WorkflowFailed):
            await self._end_error(workflow, fault.code, fault.message, retryable=fault.retryable)
        elif isinstance(fault, Diverged):
            logger.error("code and history disagree", run_id=str(run.run_id), what=str(fault))
            await self._end_error(workflow, "diverged", "The workflow's code changed while the run was under way.")
        elif isinstance(fault, Misused):
            logger.error("a workflow calls what cannot be brought back", run_id=str(run.run_id), what=str(fault))
            await self._end_error(workflow, "workflow_misuse", "The workflow's code has a fault and was stopped.")
        else:
            logger.error("a workflow raised", run_id=str(run.run_id), workflow=workflow.name, exc_info=fault)
            await self._end_error(workflow, "workflow_failed", "The workflow failed.", retryable=True)

    async def _end_result(self, workflow: Workflow, run: Work, output: BaseModel) -> None:
        if digest(output) not in run.validated:
            await self._end_error(workflow, "not_validated", "The workflow returned a value that was not validated.")
            return
        state = await self._state()
        try:
            await self._writer.record(endings.result(output, state, state.usage))
        except NotStorable as fault:
            await self._end_error(workflow, "not_storable", str(fault))
        except AppendRefused:
            if self._writer.drop_refused() is None or not self._writer.cancel.is_set():
                raise
            await self._end_cancelled(workflow, run, self._bench.clock_us(), validated=True)

    async def _end_cancelled(
        self, workflow: Workflow | None, run: Work | None, seen_us: int | None, *, validated: bool = False
    ) -> None:
        await self._let_go()
        if run is not None and seen_us is not None:
            self._writer.push(
                events.CancelObserved(seen_us=seen_us, model_closed_us=run.model_closed_us, usage=run.aborted())
            )
        state = await self._state()
        made = await self._assemble(workflow, state)
        if run is not None:
            made.missing.extend(f"whether {effect.name} took place" for effect in run.effects.values())
        await self._writer.record(endings.cancelled(state.cancel, made, validated))
        for asked in (fact for fact in self._facts if fact.type == "cancel_requested"):
            self._bench.metrics.cancelled(asked.at_us, self._writer.last_us)

    async def _let_go(self) -> None:
        """What was on its way when the run was asked to stop may have no place in its log any more: a question."""
        try:
            await self._writer.flush()
        except AppendRefused:
            if self._writer.drop_refused() is None or not self._writer.cancel.is_set():
                raise

    async def _end_error(self, workflow: Workflow | None, code: str, message: str, *, retryable: bool = False) -> None:
        state = await self._state()
        made = await self._assemble(workflow, state)
        try:
            await self._writer.record(endings.error(code, message, made, retryable=retryable))
        except AppendRefused:
            if self._writer.drop_refused() is None:
                raise
            await self._end_cancelled(workflow, None, None)

    async def _hand_over(self) -> None:
        """Give the run back on purpose: what is half said is dead, and the next owner need not wait for the lease."""
        await self._writer.flush()
        await self._read_on()
        history = read_history(self._facts)
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

    async def _read_on(self) -> None:
        """What was stored since we last looked. The log behind us is ours alone while nobody fences us."""
        after = self._facts[-1].seq if self._facts else 0
        self._facts += await read_facts(self._bench.engine, self._writer.run_id, after)

    async def _state(self) -> RunState:
        await self._writer.flush()
        await self._read_on()
        self._folded = fold(self._facts[self._folded_to :], self._folded)
        self._folded_to = len(self._facts)
        return self._folded

    async def _assemble(self, workflow: Workflow | None, state: RunState) -> endings.Assembled:
        if workflow is None:
            return endings.Assembled(default_partial(state), "default", [m["label"] for m in state.plan])
        return await endings.assemble(workflow, state, self._bench.settings.assemble_s)


def superseding(history: History) -> list[events.Retry]:
    """What an earlier owner left open, said to be dead; the memory forgets it."""
    told = []
    for key, dead in history.left_open():
        attempt = history.attempts[key]
        told.append(
            events.Retry(
                what="run",
                key=key,
                reason="worker_lost",
                message="Another worker took the run over; this part starts again.",
                superseded=dead,
                attempt=attempt,
                next_attempt=None if history.cancel else attempt + 1,
            )
        )
        history.bury(dead)
    return told


async def carry_out(work: Work, value: BaseModel) -> BaseModel:
    """Run a workflow's code to its end. Raises Diverged when it ends before it has asked for all that the log has."""
    try:
        output: BaseModel = await live(work, work.root, lambda root: work.workflow.fn(Run(work, root), value))
    except WorkflowFailed as fault:
        work.look_back(f"failed   {fault.code}")
        raise
    work.look_back("ended")
    return output
