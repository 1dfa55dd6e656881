"""One per worker process: gathers the events of all its runs and stores them in groups.

The rhythm is that of the database. While one commit is in flight everything that arrives waits; when it returns, all
that waited goes into the next one. Idle, an event is stored at once; under load one commit carries many runs and the
cost of an event falls. Pieces of draft text that wait are joined, so a fast model costs fewer rows, not more; when even
that is too much for the machine, pieces of one text gather a little longer (`pacing.py`).

A batch is named (epoch, batch number). When the answer is lost - a cut connection, a time-out, an error from COMMIT -
nobody knows whether it was stored, so the very same batch is sent again and the log says `ok` or `duplicate`. Nothing
is published before it is stored. A writer whose buffer is full waits, and so its model's stream is read more slowly.
"""

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Final
from uuid import UUID

import structlog
from redis.asyncio import Redis
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from eventstore import log
from eventstore.arrays import NotPackable
from eventstore.database import is_shut_gate
from eventstore.domain.errors import AppendRefused, EventStoreError, Fenced
from eventstore.metrics import RecorderMetrics
from eventstore.pacing import Pace
from eventstore.run_writer import GROUP_BYTES_MAX, RunWriter
from eventstore.wakeups import MOVED, moved_payload, publish

GROUP_EVENTS_MAX: Final = 5_000
RETRY_FIRST_S: Final = 0.05
RETRY_LAST_S: Final = 1.0
TICK_S: Final = 0.005  # how often a recorder looks whose pieces have gathered for long enough

logger = structlog.get_logger(__name__)


class Recorder:
    """Stores what its writers push, in groups, and tells readers afterwards."""

    def __init__(
        self,
        engine: AsyncEngine,
        wakeups: Redis,
        *,
        lease_s: float,
        heartbeat_s: float,
        clock_us: Callable[[], int],
        metrics: RecorderMetrics | None = None,
        pace: Pace | None = None,
    ) -> None:
        # Every call is a transaction of its own.
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._connection: AsyncConnection | None = None
        self._wakeups = wakeups
        self._lease_s = lease_s
        self._heartbeat_s = heartbeat_s
        self._clock_us = clock_us
        self._writers: dict[UUID, RunWriter] = {}
        self._pace = pace or Pace()
        self._ready: dict[RunWriter, None] = {}  # those with something to store, in the order of their turns
        self._gathers = False  # whether pieces of some writer are let gather
        self._dirty = asyncio.Event()
        self._moved: dict[UUID, int] = {}
        self._to_publish = asyncio.Event()
        self._nudged: set[UUID] = set()
        self._metrics = metrics or RecorderMetrics()
        self._metrics.look_at(
            lambda: len(self._writers), lambda: self._waiting(0), lambda: self._waiting(1), lambda: self._pace.gap_s
        )

    def _waiting(self, which: int) -> int:
        # A scrape asks from another thread: list() takes all writers in one step, under the interpreter's lock.
        return sum(writer.waiting[which] for writer in list(self._writers.values()))

    def open(self, run_id: UUID, epoch: int) -> RunWriter:
        """A writer for a run that this process has claimed."""
        writer = RunWriter(run_id, epoch, self._clock_us, self._take_up, self._metrics, self._pace)
        if (before := self._writers.get(run_id)) is not None:
            before.fail(Fenced())
        self._writers[run_id] = writer
        return writer

    def close(self, writer: RunWriter) -> None:
        """Forget a writer; its lease is no longer renewed, and what it has not stored never will be."""
        writer.fail(EventStoreError("This writer was closed."))
        self._ready.pop(writer, None)
        if self._writers.get(writer.run_id) is writer:
            del self._writers[writer.run_id]

    def _take_up(self, writer: RunWriter) -> None:
        self._ready[writer] = None
        self._dirty.set()

    def nudge(self, run_id: UUID | None) -> None:
        """Ask the log about this run (or all runs) now: somebody may want it to stop."""
        for writer in list(self._writers.values()) if run_id is None else [self._writers.get(run_id)]:
            if writer is not None:
                self._nudged.add(writer.run_id)
        self._dirty.set()

    async def run(self) -> None:
        """Store and publish until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._store())
            tasks.create_task(self._publish())

    async def _store(self) -> None:
        loop = asyncio.get_running_loop()
        beat_at = loop.time() + self._heartbeat_s
        try:
            while True:
                try:
                    async with asyncio.timeout_at(beat_at):
                        await self._dirty.wait()
                except TimeoutError:
                    pass
                if self._pace.gap_s or self._gathers:
                    await asyncio.sleep(TICK_S)
                self._dirty.clear()
                everyone = loop.time() >= beat_at
                if everyone:
                    beat_at = loop.time() + self._heartbeat_s
                if group := self._group(everyone):
                    await self._send(group)
        finally:
            await self._discard()

    def _group(self, everyone: bool) -> list[tuple[RunWriter, log.Batch]]:
        """What is stored next. Only writers with events are looked at: hundreds may be open, and few have spoken."""
        group, room, bytes_room = [], GROUP_EVENTS_MAX, GROUP_BYTES_MAX
        nudged, self._nudged = self._nudged, set()
        ready, self._ready = self._ready, {}
        served: list[RunWriter] = []
        wanted = list(self._writers) if everyone else nudged & self._writers.keys()
        asked = {run_id: self._writers[run_id] for run_id in wanted}
        ready.update(dict.fromkeys(asked.values()))
        now, self._gathers = monotonic(), False
        for writer in ready:
            if writer.fault is not None:
                continue
            if not writer.ripe(now) and writer.run_id not in asked:
                self._ready[writer], self._gathers = None, True
                continue
            try:
                batch = writer.take(room, bytes_room)
            except (EventStoreError, ValueError) as fault:  # one run's bad event is no other run's trouble
                logger.error("an event could not be made", run_id=str(writer.run_id), fault=type(fault).__name__)
                writer.fail(fault if isinstance(fault, EventStoreError) else AppendRefused("unstorable"))
                continue
            room -= len(batch.events)
            bytes_room -= sum(len(event.body) for event in batch.events)
            if len(batch.events) < writer.waiting[0]:
                if batch.events:
                    served.append(writer)
                else:
                    self._ready[writer] = None
            if batch.events or writer.run_id in asked:  # without room it is a heartbeat, which must not wait
                group.append((writer, batch))
        self._ready.update(dict.fromkeys(served))  # whoever was served is last in the next turn
        if self._ready:
            self._dirty.set()
        return group

    async def _send(self, group: list[tuple[RunWriter, log.Batch]]) -> None:
        wait_s, told = RETRY_FIRST_S, False
        while True:
            try:
                if self._connection is None:
                    self._connection = await self._engine.connect()
                began = monotonic()
                answers = await log.append(self._connection, [batch for _, batch in group], self._lease_s)
            except (NotPackable, DataError, ProgrammingError, IntegrityError) as fault:
                # The call itself is wrong, not the connection: find the one run that it is about.
                self._metrics.unstorable()
                logger.error("a group was refused", runs=len(group), fault=type(getattr(fault, "orig", fault)).__name__)
                if len(group) > 1:
                    for one in group:
                        await self._send([one])
                else:
                    group[0][0].fail(AppendRefused("unstorable"))
                return
            except (DBAPIError, SQLAlchemyError, OSError, TimeoutError) as fault:
                if not told:
                    why = "takes no events until an operator acknowledges" if is_shut_gate(fault) else "is away"
                    logger.warning(f"the log {why}: the same batch again", fault=type(fault).__name__, runs=len(group))
                told = True
                self._metrics.unanswered(fault, sent=self._connection is not None)
                await self._discard(broken=True)
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, RETRY_LAST_S)
                continue
            if told:
                logger.info("the log is back")
            events = sum(len(batch.events) for _, batch in group)
            now = monotonic()
            self._pace.took(now, now - began)
            self._metrics.flushed(now - began, events, (answer.verdict for answer in answers))
            for (writer, batch), answer in zip(group, answers, strict=True):
                writer.settle(batch, answer)
                if batch.events and answer.last_seq is not None and answer.verdict in ("ok", "duplicate"):
                    self._moved[writer.run_id] = answer.last_seq
                    self._to_publish.set()
            return

    async def _discard(self, *, broken: bool = False) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                if broken:
                    await connection.invalidate()
                await connection.close()
            except (SQLAlchemyError, OSError):
                logger.debug("a broken connection could not be closed")

    async def _publish(self) -> None:
        while True:
            await self._to_publish.wait()
            self._to_publish.clear()
            moved, self._moved = self._moved, {}
            await publish(self._wakeups, MOVED, moved_payload(moved.items()))
