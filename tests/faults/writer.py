"""A process that carries many runs through the real recorder and journals what it submits and what the log confirms.

`submitted` is noted after the events were pushed and before the event loop is given back, so before any of them can be
sent. `acked` is noted when the log has answered and before the run goes on. Pieces are pushed whole, never joined: one
event that was pushed is one event of the log. A writer that is fenced leaves the run to whoever has it, and opens
another one. Each writer takes over what lapsed anywhere.
"""

import asyncio
import random
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import psycopg
import structlog
import uuid_utils.compat
from sqlalchemy.event import listens_for
from sqlalchemy.ext.asyncio import AsyncEngine

from eventstore import catalogue, log, wakeups
from eventstore.arrays import Texts
from eventstore.database import async_engine
from eventstore.domain.errors import Fenced, RunClosed
from eventstore.domain.events import Body, Result, Started, Step, Token, Usage, new_event
from eventstore.recorder import Recorder
from eventstore.run_writer import Entry, RunWriter
from eventstore.sql import STATEMENTS
from tests.faults.journal import Journal, Kind, digest, stretches
from tests.faults.orders import AWAY_S, ENOUGH, HEARTBEAT_S, LEASE_S, LOG_AWAY, WriterOrder
from tests.writing import accepted

SWEEP_S = 0.3
FORGOTTEN_S = 1.0
SWEEP_RUNS_MAX = 200
STEP_EVERY = 97
NOTHING = Texts.of([]).packed
FILLING = "the words of a draft that a model says piece by piece, some more and some fewer of them at a time "

logger = structlog.get_logger(__name__)


def clock_us() -> int:
    return time.time_ns() // 1_000


class Pace:
    """How fast the models of this process speak, all together; without a rate, as fast as they are heard."""

    def __init__(self, rate_per_s: float | None) -> None:
        self._rate = rate_per_s
        self._next = 0.0

    async def wait(self, events: int) -> None:
        if self._rate is None:
            return
        now = asyncio.get_running_loop().time()
        self._next = max(now, self._next) + events / self._rate
        await asyncio.sleep(self._next - now)


class LostAnswers:
    """On demand, loses the answer to the next append that stores something: as a connection does that is cut between
    the commit and its answer. A killed server rarely dies in just that moment."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._armed = False
        listens_for(engine.sync_engine, "after_cursor_execute")(self._lose)

    def arm(self) -> None:
        self._armed = True

    def _lose(self, *told: Any) -> None:
        statement, parameters = told[2], told[3]
        if self._armed and statement == STATEMENTS["append"] and parameters["types"].packed != NOTHING:
            self._armed = False
            raise psycopg.OperationalError("the answer was lost")


class Writer:
    """The runs of one process."""

    def __init__(self, order: WriterOrder, api: AsyncEngine, worker: AsyncEngine, recorder: Recorder) -> None:
        self._order = order
        self._api = api
        self._worker = worker
        self._recorder = recorder
        self._journal = Journal(order.journals, order.name)
        self._pace = Pace(order.rate_per_s)
        self._random = random.Random(f"{order.seed} {order.name}")
        self._carried = 0
        self._freed = asyncio.Event()
        self._pieces = 0

    async def run(self) -> None:
        """Carry runs until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._recorder.run())
            tasks.create_task(self._sweep(tasks))
            tasks.create_task(self._new_runs(tasks))

    async def _sweep(self, tasks: asyncio.TaskGroup) -> None:
        """Take over what lapsed anywhere, at once and beside our own runs: its owner may only be stopped."""
        while True:
            try:
                async with self._worker.begin() as connection:
                    found = await log.forgotten(connection, FORGOTTEN_S, SWEEP_RUNS_MAX)
            except LOG_AWAY:
                found = []
            for run in found:
                tasks.create_task(self._try(run.run_id))
            await asyncio.sleep(SWEEP_S)

    async def _new_runs(self, tasks: asyncio.TaskGroup) -> None:
        """Open runs while there is room: those that were taken over count too, or ever more would be open."""
        while not self._enough:
            self._freed.clear()
            for _ in range(self._order.runs_at_once - self._carried):
                tasks.create_task(self._try(None))
            await self._freed.wait()

    async def _try(self, run_id: UUID | None) -> None:
        """Carry this run, or a new one, as far as it goes."""
        self._carried += 1
        try:
            await self._carry(run_id or await self._open())
        except (Fenced, RunClosed):
            pass  # somebody took it over while we were silent: it is theirs
        except LOG_AWAY:
            await asyncio.sleep(AWAY_S)  # whatever became of the claim, a sweep finds the run
        finally:
            self._carried -= 1
            self._freed.set()

    @property
    def _enough(self) -> bool:
        """Whether this fault run has the events that it wants: no new runs then, and a quick end for each."""
        return (self._order.journals / ENOUGH).exists()

    async def _open(self) -> UUID:
        """A new run, accepted as the API does it: with a key, so that asking twice is no second run."""
        run_id = uuid_utils.compat.uuid7()
        event = new_event(accepted().model_copy(update={"title": f"Run {run_id}"}), clock_us())
        submission = catalogue.Submission(
            run_id=run_id,
            tenant_id=self._order.tenant,
            subject="ada",
            workflow="contract_review",
            title="A contract",
            idempotency_key=str(run_id),
            body_digest=run_id.bytes,
            input=b"{}",
            accepted=event,
        )
        self._journal.note(Kind.SUBMITTED, run_id, 0, 0, [digest(event.body)])
        while True:
            try:
                async with self._api.begin() as connection:
                    opened = await catalogue.open_run(connection, submission)
            except LOG_AWAY:
                await asyncio.sleep(AWAY_S)
                continue
            assert opened.verdict in ("ok", "replayed"), opened
            assert opened.run_id == run_id, opened
            self._journal.note(Kind.ACKED, run_id, 0, 1, [digest(event.body)])
            return run_id

    async def _carry(self, run_id: UUID) -> None:
        """Claim a run and bring it to its end."""
        async with self._worker.begin() as connection:
            claim = await log.claim(connection, run_id, self._order.name, LEASE_S)
        if claim.verdict != "claimed":
            return
        assert claim.epoch is not None
        assert claim.seq is not None
        writer = self._recorder.open(run_id, claim.epoch)
        try:
            left = self._order.length_of(run_id) - claim.seq
            await self._store(writer, [self._started(writer)])
            while left > 0 and not self._enough:
                events = min(left, self._random.randint(1, 2 * self._order.window))
                await self._pace.wait(events)
                await self._store(writer, [self._body(writer) for _ in range(events)])
                left -= events
            await self._store(writer, [self._result(writer)])
        finally:
            self._recorder.close(writer)

    async def _store(self, writer: RunWriter, bodies: Sequence[Body]) -> None:
        """Have these events stored; note them before they can be sent, and what is confirmed before anything else."""
        entries = [writer.push(body) for body in bodies]
        digests = [digest(entry.frozen().body) for entry in entries]
        self._journal.note(Kind.SUBMITTED, writer.run_id, writer.epoch, 0, digests)
        try:
            await writer.stored(entries[-1])
        finally:
            self._acknowledged(writer, entries, digests)

    def _acknowledged(self, writer: RunWriter, entries: Sequence[Entry], digests: Sequence[bytes]) -> None:
        told = [(entry.seq, one) for entry, one in zip(entries, digests, strict=True) if entry.seq is not None]
        for first, stored in stretches(told):
            self._journal.note(Kind.ACKED, writer.run_id, writer.epoch, first, stored)

    def _mark(self, writer: RunWriter) -> str:
        """What no other event of the fault run holds."""
        self._pieces += 1
        return f"{writer.run_id.hex}.{writer.epoch}.{self._order.name}.{self._pieces}"

    def _started(self, writer: RunWriter) -> Started:
        return Started(attempt=writer.epoch, worker=self._mark(writer), code="faults", workflow_version=1)

    def _body(self, writer: RunWriter) -> Body:
        mark = self._mark(writer)
        if self._pieces % STEP_EVERY == 0:
            return Step(key=mark, place=self._pieces, args="00", name="draft", status="ok", output={"mark": mark})
        text = f"{mark} {FILLING[: 8 + self._pieces % 80]}"
        return Token(text=text, section="comments", step="draft#1", attempt=writer.epoch)

    def _result(self, writer: RunWriter) -> Result:
        return Result(output={"mark": self._mark(writer)}, counts={}, usage=Usage())


async def main(order: WriterOrder) -> None:
    api = async_engine(order.database_url, application="faults-writer-api", role="runwire_api", pool_size=2)
    worker = async_engine(order.database_url, application="faults-writer", role="runwire_worker", pool_size=6)
    redis = wakeups.connect(order.redis_url)
    recorder = Recorder(worker, redis, lease_s=LEASE_S, heartbeat_s=HEARTBEAT_S, clock_us=clock_us)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, LostAnswers(worker).arm)  # before there is a journal: see Crew.is_ready
    carrying = asyncio.create_task(Writer(order, api, worker, recorder).run())
    loop.add_signal_handler(signal.SIGTERM, carrying.cancel)
    try:
        await carrying
    except asyncio.CancelledError:
        logger.info("told to stop", name=order.name)


if __name__ == "__main__":
    asyncio.run(main(WriterOrder.model_validate_json(sys.argv[1])))
