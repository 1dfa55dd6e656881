"""Follows runs for the readers of one API process: one tail per run, however many readers it has.

A reader holds nothing but its cursor and asks `Tail.page(after)`. Near the end of the run the answer comes from the
tail's ring, shared by all; further back it is a page of the log. So a slow reader costs no memory: it falls out of the
ring and reads pages until it has caught up.

The seam between history and live cannot lose an event. The ring holds a contiguous stretch that ends at the tail's own
cursor, and only `Tails` moves that cursor, by asking the log for `seq > cursor`. A wake-up only says when to ask. Lost,
doubled, reordered or forged, it changes nothing, and without Redis the tails ask on a timer.

A reader at the end of the log need not be woken for each event, which would cost more than the event: it may leave a
`Follower` with the tail, and is then given what is new in the same turn in which the tail got it.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Final, Protocol
from uuid import UUID

import structlog
from redis.asyncio import Redis
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from eventstore import log
from eventstore.domain.lifecycle import TERMINAL_STATUSES, TERMINAL_TYPES
from eventstore.domain.record import Fact, Recorded
from eventstore.log import PAGE_BYTES_MAX, PAGE_EVENTS_MAX
from eventstore.metrics import TailMetrics
from eventstore.wakeups import MOVED, listen, parse_moved

# Enough for readers near the end, and no more: each event that is kept lengthens the garbage collector's pauses.
RING_EVENTS_MAX: Final = 256
RING_BYTES_MAX: Final = 1_048_576
ASK_RUNS_MAX: Final = 500
TIMER_S: Final = 1.0
AWAY_S: Final = 0.5
# What is new at one moment is given to followers up to this; for more they are woken, and take it by pages.
GIVEN_BYTES_MAX: Final = 65_536

logger = structlog.get_logger(__name__)


class Entry:
    """A stored event on its way to readers; each view's frame is made once and kept here."""

    __slots__ = ("_fact", "frames", "recorded")

    def __init__(self, recorded: Recorded) -> None:
        self.recorded = recorded
        # By the name of the view: a mapping of names and bytes is nothing that the garbage collector must look into.
        self.frames: dict[str, bytes | None] = {}
        self._fact: Fact | None = None

    @property
    def seq(self) -> int:
        return self.recorded.seq

    @property
    def fact(self) -> Fact:
        if self._fact is None:
            self._fact = self.recorded.fact()
        return self._fact


class Follower(Protocol):
    """Whoever waits at a tail for what comes after a cursor. Neither call may wait, or raise."""

    def came(self, entries: list[Entry]) -> None:
        """These are new, all that came at this moment."""
        ...

    def wake(self) -> None:
        """There is something new: ask for it."""
        ...


class Sleeper:
    """A follower that wants to be woken and nothing more."""

    def __init__(self) -> None:
        self.woken = asyncio.Event()

    def came(self, entries: list[Entry]) -> None:
        self.woken.set()

    def wake(self) -> None:
        self.woken.set()


class Tail:
    """The newest events of one run, and whoever waits for the next."""

    def __init__(self, run_id: UUID, engine: AsyncEngine, ask: Callable[[UUID], None]) -> None:
        self.run_id = run_id
        self._ask = ask
        self.readers = 0
        self.cursor: int | None = None
        self.ended = False
        self._engine = engine
        self._ring: deque[Entry] = deque()
        self._bytes = 0
        self._followers: dict[Follower, None] = {}  # in the order in which they came

    async def page(self, after: int, limit: int = PAGE_EVENTS_MAX, bytes_max: int = PAGE_BYTES_MAX) -> list[Entry]:
        """The next events after this cursor: at most `limit`, and of the log `bytes_max`; none only when there is none
        yet."""
        if self.cursor is not None and after >= self._floor:
            return self._from_ring(after, limit)
        async with self._engine.connect() as connection:
            page = await log.read_after(connection, self.run_id, after, limit, bytes_max)
            # A reader may come with a cursor past the end: only the log says where the end is.
            head = None if page.events or self.cursor is not None else await log.head(connection, self.run_id)
        if self.cursor is None and not page.more:
            # The first reader to reach the end places the tail there. `Tails` goes on from it and asks once more at
            # once, for what was stored since this page was read.
            self._place(after, page.events, head)
            self._ask(self.run_id)
        return [Entry(event) for event in page.events]

    def _place(self, after: int, events: list[Recorded], head: log.Head | None) -> None:
        if events:
            self.cursor, self.ended = events[-1].seq, events[-1].type in TERMINAL_TYPES
        else:
            end = head.seq if head is not None else 0
            self.cursor = min(after, end)
            self.ended = head is not None and self.cursor == end and head.status in TERMINAL_STATUSES

    def has(self, after: int) -> bool:
        """Whether something after this cursor has come."""
        return self.cursor is not None and self.cursor > after

    @contextmanager
    def followed(self, follower: Follower) -> Iterator[None]:
        """Tell this follower of whatever comes, for as long as the block lasts. Nothing is told of what came before."""
        self._followers[follower] = None
        try:
            yield
        finally:
            del self._followers[follower]

    async def moved(self, after: int, timeout_s: float) -> bool:
        """Wait until there is something after this cursor; False when the time is over."""
        if self.has(after):
            return True
        sleeper = Sleeper()
        try:
            with self.followed(sleeper):
                async with asyncio.timeout(timeout_s):
                    while not self.has(after):
                        sleeper.woken.clear()
                        await sleeper.woken.wait()
        except TimeoutError:
            return False
        return True

    def take(self, events: list[Recorded]) -> None:
        """New events from the log, in order. Anything at or before the cursor was taken before."""
        fresh = [Entry(event) for event in events if self.cursor is not None and event.seq > self.cursor]
        if not fresh:
            return
        self._ring.extend(fresh)
        size = sum([len(entry.recorded.body) for entry in fresh])
        self._bytes += size
        while len(self._ring) > RING_EVENTS_MAX or (self._bytes > RING_BYTES_MAX and len(self._ring) > 1):
            self._bytes -= len(self._ring.popleft().recorded.body)
        self.cursor = fresh[-1].seq
        self.ended = fresh[-1].recorded.type in TERMINAL_TYPES
        for follower in tuple(self._followers):
            if size <= GIVEN_BYTES_MAX:
                follower.came(fresh)
            if size > GIVEN_BYTES_MAX or self.ended:
                follower.wake()

    @property
    def _floor(self) -> int:
        """The smallest cursor that the ring can answer."""
        if self._ring:
            return self._ring[0].seq - 1
        return self.cursor if self.cursor is not None else 0

    def _from_ring(self, after: int, limit: int) -> list[Entry]:
        if not self._ring:
            return []
        start = max(0, after + 1 - self._ring[0].seq)
        stop = min(len(self._ring), start + limit)
        if start > len(self._ring) // 2:  # a deque is cheap at its ends only
            newest = [self._ring[index] for index in range(-1, start - len(self._ring) - 1, -1)]
            return newest[::-1][: stop - start]
        return [self._ring[index] for index in range(start, stop)]


class Tails:
    """All tails of a process, fed by one listener and one reader."""

    def __init__(self, engine: AsyncEngine, wakeups: Redis, metrics: TailMetrics | None = None) -> None:
        self._engine = engine
        self._wakeups = wakeups
        self._tails: dict[UUID, Tail] = {}
        self._dirty: dict[UUID, None] = {}  # in the order in which they will be read
        self._wake = asyncio.Event()
        self._connection: AsyncConnection | None = None
        self._metrics = metrics or TailMetrics()
        self._metrics.look_at(lambda: len(self._tails), lambda: len(self._dirty))

    @contextmanager
    def follow(self, run_id: UUID) -> Iterator[Tail]:
        """The run's tail: made for its first reader, gone after its last."""
        tail = self._tails.get(run_id)
        if tail is None:
            tail = self._tails[run_id] = Tail(run_id, self._engine, self.ask)
        tail.readers += 1
        try:
            yield tail
        finally:
            tail.readers -= 1
            if tail.readers == 0 and self._tails.get(run_id) is tail:
                del self._tails[run_id]
                self._dirty.pop(run_id, None)

    def ask(self, run_id: UUID) -> None:
        """Look for new events of this run now."""
        if run_id in self._tails:
            self._dirty[run_id] = None
            self._wake.set()

    async def run(self) -> None:
        """Listen and read until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._listen())
                tasks.create_task(self._read())
        finally:
            await self._close()

    async def _listen(self) -> None:
        async for _, payload in listen(self._wakeups, MOVED):
            if not payload:  # (re)connected: whatever was said before is lost
                self._dirty.update(dict.fromkeys(self._tails))
            for run_id, seq in parse_moved(payload):
                tail = self._tails.get(run_id)
                if tail is not None and (tail.cursor is None or tail.cursor < seq):
                    self._dirty[run_id] = None
            if self._dirty:
                self._wake.set()

    async def _read(self) -> None:
        while True:
            try:
                async with asyncio.timeout(TIMER_S):
                    await self._wake.wait()
            except TimeoutError:
                self._dirty.update(dict.fromkeys(self._tails))
            self._wake.clear()
            while self._dirty:
                try:
                    await self._read_dirty()
                except (SQLAlchemyError, OSError, TimeoutError) as fault:
                    self._metrics.database.met(fault)
                    logger.warning("tails wait for the log", tails=len(self._tails), fault=type(fault).__name__)
                    await asyncio.sleep(AWAY_S)

    async def _read_dirty(self) -> None:
        asked: dict[UUID, int] = {}
        for run_id in list(self._dirty)[:ASK_RUNS_MAX]:
            tail = self._tails.get(run_id)
            if tail is None or tail.ended:
                del self._dirty[run_id]
            elif tail.cursor is None:
                del self._dirty[run_id]  # its first reader asks once it has placed the tail
            else:
                asked[run_id] = tail.cursor
        if not asked:
            return
        for run_id in asked:
            del self._dirty[run_id]
        try:
            if self._connection is None:
                self._connection = await self._open()
            began = perf_counter()
            pages = await log.read_many(self._connection, asked)
        except BaseException:
            self._dirty = dict.fromkeys([*asked, *self._dirty])
            await self._close()
            raise
        self._metrics.asked(perf_counter() - began, [page.events for page in pages.values() if page.events])
        for run_id, page in pages.items():
            if (tail := self._tails.get(run_id)) is not None:
                tail.take(page.events)
        # Whoever got something goes to the back: one long run must not keep the page from the others.
        unread = [run_id for run_id, page in pages.items() if page.more and not page.events]
        cut = [run_id for run_id, page in pages.items() if page.more and page.events]
        self._dirty = dict.fromkeys([*unread, *self._dirty, *cut])

    async def _open(self) -> AsyncConnection:
        """A connection of the tails' own: they ask many times a second, always the same, so it is planned once."""
        connection = await self._engine.connect()
        connection = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.exec_driver_sql("SET plan_cache_mode = force_generic_plan")
        return connection

    async def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                await connection.invalidate()
                await connection.close()
            except (SQLAlchemyError, OSError):
                logger.debug("a broken connection could not be closed")
