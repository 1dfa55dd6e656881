"""One per worker process: gathers the events of all its runs and stores them in groups.

The rhythm is that of the database. While one commit is in flight everything that arrives waits; when it returns, all
that waited goes into the next one. Idle, an event is stored at once; under load one commit carries many runs and the
cost of an event falls. Pieces of draft text that wait are joined, so a fast model costs fewer rows, not more.

A batch is named (epoch, batch number). When the answer is lost - a cut connection, a time-out, an error from COMMIT -
nobody knows whether it was stored, so the very same batch is sent again and the log says `ok` or `duplicate`. Nothing
is published before it is stored. A writer whose buffer is full waits, and so its model's stream is read more slowly.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Final
from uuid import UUID

import structlog
from redis.asyncio import Redis
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from eventstore import log
from eventstore.arrays import NotPackable
from eventstore.database import is_shut_gate
from eventstore.domain.errors import AppendRefused, EventStoreError, Fenced, NotStorable, RunClosed, UnknownRun
from eventstore.domain.events import Body, new_event
from eventstore.domain.record import NewEvent
from eventstore.metrics import RecorderMetrics
from eventstore.wakeups import MOVED, moved_payload, publish

PIECE_CHARS_MAX: Final = 8_192  # a joined piece of draft text; a longer one starts a new event
BUFFER_CHARS_MAX: Final = 262_144  # per run; beyond this its producer waits
GROUP_EVENTS_MAX: Final = 5_000
GROUP_BYTES_MAX: Final = 8_388_608  # of bodies; more than any one event may have
RETRY_FIRST_S: Final = 0.05
RETRY_LAST_S: Final = 1.0

logger = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class Entry:
    """One event on its way. `seq` and `recorded_us` are known once it is stored."""

    make: Callable[[], NewEvent]
    size: int
    seq: int | None = None
    recorded_us: int | None = None
    joins: tuple[str, ...] | None = None
    parts: list[str] = field(default_factory=list)
    event: NewEvent | None = None
    fault: EventStoreError | None = None

    def frozen(self) -> NewEvent:
        """The event's bytes: made once, so that a batch sent twice is the same batch."""
        if self.event is None:
            self.event = self.make()
        return self.event


class RunWriter:
    """One owner's way into one run's log."""

    def __init__(
        self,
        run_id: UUID,
        epoch: int,
        clock_us: Callable[[], int],
        wake: Callable[[], None],
        metrics: RecorderMetrics | None = None,
    ) -> None:
        self.run_id = run_id
        self.epoch = epoch
        self.fault: EventStoreError | None = None
        self.cancel = asyncio.Event()
        self.last_us = 0
        self.events_max: int | None = None  # `full` is set once the log holds as many
        self.full = asyncio.Event()
        self._clock_us = clock_us
        self._wake = wake
        self._metrics = metrics or RecorderMetrics()
        self._batch_no = 0
        self._waiting: list[Entry] = []
        self._chars = 0
        self._moved: asyncio.Event | None = None  # made by whoever waits: most batches are settled with nobody waiting
        self._failed = asyncio.Event()

    def push(self, body: Body) -> Entry:
        """Put an event on its way without waiting for it."""
        event = new_event(body, self._clock_us())
        return self._add(Entry(lambda: event, len(event.body), event=event))

    async def push_piece(self, joins: tuple[str, ...], text: str, body: Callable[[str], Body]) -> Entry:
        """Put a piece of text on its way; pieces of the same kind that still wait become one event."""
        await self._room()
        if not (text.isascii() or _is_unicode(text)):
            raise NotStorable("A piece of text holds half of a surrogate pair.")
        last = self._waiting[-1] if self._waiting else None
        if last is not None and last.joins == joins and last.event is None and last.size + len(text) <= PIECE_CHARS_MAX:
            last.parts.append(text)
            last.size += len(text)
            self._chars += len(text)
            return last
        parts, at = [text], self._clock_us()
        entry = Entry(lambda: new_event(body("".join(parts)), at), len(text), joins=joins, parts=parts)
        return self._add(entry)

    async def record(self, body: Body) -> Entry:
        """Store one event, and everything before it; returns when it is in the log."""
        return await self.stored(self.push(body))

    async def stored(self, entry: Entry) -> Entry:
        """Wait until this event is in the log; raises what the log said if it never will be."""
        while entry.seq is None:
            if (fault := entry.fault or self.fault) is not None:
                raise fault
            await self._news()
        return entry

    async def flush(self) -> None:
        """Wait until everything that was pushed is in the log."""
        if self._waiting:
            await self.stored(self._waiting[-1])
        elif self.fault is not None:
            raise self.fault

    def _add(self, entry: Entry) -> Entry:
        self._waiting.append(entry)
        self._chars += entry.size
        self._wake()
        return entry

    async def _room(self) -> None:
        if self._chars > BUFFER_CHARS_MAX and self.fault is None:
            with self._metrics.full():
                while self._chars > BUFFER_CHARS_MAX and self.fault is None:
                    await self._news()
        if self.fault is not None:
            raise self.fault

    def take(self, events_max: int, bytes_max: int = GROUP_BYTES_MAX) -> log.Batch:
        """The next batch: what waits now, as far as there is room; none makes it a heartbeat."""
        events, size = list[NewEvent](), 0
        for entry in self._waiting[:events_max]:
            event = entry.frozen()
            if size + len(event.body) > bytes_max:
                break
            events.append(event)
            size += len(event.body)
        return log.Batch(self.run_id, self.epoch, self._batch_no + 1, events)

    def settle(self, batch: log.Batch, answer: log.Answer) -> None:
        """Learn what the log said to a batch."""
        if answer.cancel:
            self.cancel.set()
        if answer.verdict in ("ok", "duplicate"):
            assert answer.first_seq is not None
            assert answer.recorded_us is not None
            self.last_us = answer.recorded_us
            if batch.events:
                if self.events_max is not None and (answer.last_seq or 0) >= self.events_max:
                    self.full.set()
                self._batch_no = batch.batch_no
                done, self._waiting = self._waiting[: len(batch.events)], self._waiting[len(batch.events) :]
                for seq, entry in enumerate(done, start=answer.first_seq):
                    entry.seq, entry.recorded_us = seq, answer.recorded_us
                    self._chars -= entry.size
        else:
            self.fail(_fault(answer.verdict))
        self._tell()

    async def broken(self) -> None:
        """Wait until this owner can write no more."""
        while self.fault is None or self._may_go_on():
            await self._failed.wait()

    def _may_go_on(self) -> bool:
        return isinstance(self.fault, AppendRefused) and self.fault.verdict == "refused"

    def fail(self, fault: EventStoreError) -> None:
        """Nothing more will be stored for this owner."""
        self.fault = self.fault or fault
        self._failed.set()
        self._failed = asyncio.Event()
        self._tell()

    def drop_refused(self) -> EventStoreError | None:
        """After `refused`: forget what waited and go on with a clean slate. The run is still ours; only these events
        had no place in its life cycle (a result after a cancel request)."""
        fault = self.fault
        if self._may_go_on():
            for entry in self._waiting:  # somebody else may wait for one of them
                entry.fault = fault
            self._waiting, self._chars, self.fault = [], 0, None
        return fault

    async def _news(self) -> None:
        if self._moved is None:
            self._moved = asyncio.Event()
        await self._moved.wait()

    def _tell(self) -> None:
        if self._moved is not None:
            self._moved.set()
            self._moved = None

    @property
    def has_events(self) -> bool:
        return bool(self._waiting) and self.fault is None

    @property
    def waiting(self) -> tuple[int, int]:
        """How many events wait to be stored, and their size."""
        return len(self._waiting), self._chars


def _fault(verdict: str) -> EventStoreError:
    known = {"fenced": Fenced, "closed": RunClosed, "unknown": UnknownRun}
    return known[verdict]() if verdict in known else AppendRefused(verdict)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


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
    ) -> None:
        # Every call is a transaction of its own.
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._connection: AsyncConnection | None = None
        self._wakeups = wakeups
        self._lease_s = lease_s
        self._heartbeat_s = heartbeat_s
        self._clock_us = clock_us
        self._writers: dict[UUID, RunWriter] = {}
        self._dirty = asyncio.Event()
        self._moved: dict[UUID, int] = {}
        self._to_publish = asyncio.Event()
        self._nudged: set[UUID] = set()
        self._metrics = metrics or RecorderMetrics()
        self._metrics.look_at(lambda: len(self._writers), lambda: self._waiting(0), lambda: self._waiting(1))

    def _waiting(self, which: int) -> int:
        # A scrape asks from another thread: list() takes all writers in one step, under the interpreter's lock.
        return sum(writer.waiting[which] for writer in list(self._writers.values()))

    def open(self, run_id: UUID, epoch: int) -> RunWriter:
        """A writer for a run that this process has claimed."""
        writer = RunWriter(run_id, epoch, self._clock_us, self._dirty.set, self._metrics)
        if (before := self._writers.get(run_id)) is not None:
            before.fail(Fenced())
        self._writers[run_id] = writer
        return writer

    def close(self, writer: RunWriter) -> None:
        """Forget a writer; its lease is no longer renewed, and what it has not stored never will be."""
        writer.fail(EventStoreError("This writer was closed."))
        if self._writers.get(writer.run_id) is writer:
            del self._writers[writer.run_id]

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
                self._dirty.clear()
                everyone = loop.time() >= beat_at
                if everyone:
                    beat_at = loop.time() + self._heartbeat_s
                if group := self._group(everyone):
                    await self._send(group)
        finally:
            await self._discard()

    def _group(self, everyone: bool) -> list[tuple[RunWriter, log.Batch]]:
        group, room, bytes_room, full = [], GROUP_EVENTS_MAX, GROUP_BYTES_MAX, False
        nudged, self._nudged = self._nudged, set()
        for writer in list(self._writers.values()):
            asked = everyone or writer.run_id in nudged
            if writer.fault is not None or not (asked or writer.has_events):
                continue
            try:
                batch = writer.take(room, bytes_room)
            except (EventStoreError, ValueError) as fault:  # one run's bad event is no other run's trouble
                logger.error("an event could not be made", run_id=str(writer.run_id), fault=type(fault).__name__)
                writer.fail(fault if isinstance(fault, EventStoreError) else AppendRefused("unstorable"))
                continue
            room -= len(batch.events)
            bytes_room -= sum(len(event.body) for event in batch.events)
            full = full or len(batch.events) < writer.waiting[0]
            if batch.events or asked:  # without room it is a heartbeat, which must not wait
                group.append((writer, batch))
        if full:  # whoever was served is last in the next turn
            for writer, _ in group:
                self._writers[writer.run_id] = self._writers.pop(writer.run_id)
            self._dirty.set()
        return group

    async def _send(self, group: list[tuple[RunWriter, log.Batch]]) -> None:
        wait_s, told = RETRY_FIRST_S, False
        while True:
            try:
                if self._connection is None:
                    self._connection = await self._engine.connect()
                began = perf_counter()
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
            self._metrics.flushed(perf_counter() - began, events, (answer.verdict for answer in answers))
            for (writer, batch), answer in zip(group, answers, strict=True):
                writer.settle(batch, answer)
                if batch.events and answer.last_seq is not None and answer.verdict in ("ok", "duplicate"):
                    self._moved[writer.run_id] = answer.last_seq
                    self._to_publish.set()
                if writer.has_events:
                    self._dirty.set()
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
