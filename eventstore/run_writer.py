"""One owner's way into one run's log: what waits to be stored, in order, and what became of it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Final
from uuid import UUID

from eventstore import log
from eventstore.domain.errors import AppendRefused, EventStoreError, Fenced, NotStorable, RunClosed, UnknownRun
from eventstore.domain.events import Body, new_event
from eventstore.domain.record import NewEvent
from eventstore.metrics import RecorderMetrics
from eventstore.pacing import Pace

PIECE_CHARS_MAX: Final = 8_192  # a joined piece of draft text; a longer one starts a new event
BUFFER_CHARS_MAX: Final = 262_144  # per run; beyond this its producer waits
GROUP_BYTES_MAX: Final = 8_388_608  # of bodies; more than any one event may have


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
        wake: Callable[["RunWriter"], None],
        metrics: RecorderMetrics | None = None,
        pace: Pace | None = None,
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
        self._sent = 0  # how many of them are on their way
        self._pace = pace or Pace()
        self._speaks: tuple[str, ...] | None = None  # what the newest piece joins
        self._taken_at = 0.0
        self._ripe_at = 0.0  # until then what waits may wait; anything but a further piece of the same text may not
        self._chars = 0
        self._moved: asyncio.Event | None = None  # made by whoever waits: most batches are settled with nobody waiting
        self._failed = asyncio.Event()

    def push(self, body: Body) -> Entry:
        """Put an event on its way without waiting for it."""
        event = new_event(body, self._clock_us())
        self._ripe_at = 0.0
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
        if joins != self._speaks:
            self._ripe_at = 0.0
        elif len(self._waiting) == self._sent:
            self._ripe_at = self._taken_at + self._pace.gap_s
        self._speaks = joins
        return self._add(entry)

    async def record(self, body: Body) -> Entry:
        """Store one event, and everything before it; returns when it is in the log."""
        return await self.stored(self.push(body))

    async def stored(self, entry: Entry, *, hurry: bool = True) -> Entry:
        """Wait until this event is in the log; raises what the log said if it never will be. Whoever has no hurry lets
        pieces gather meanwhile."""
        while entry.seq is None:
            if (fault := entry.fault or self.fault) is not None:
                raise fault
            if hurry:
                self._ripe_at = 0.0
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
        self._wake(self)
        return entry

    async def _room(self) -> None:
        if self._chars > BUFFER_CHARS_MAX and self.fault is None:
            self._ripe_at = 0.0
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
        if events:
            self._sent, self._taken_at = len(events), monotonic()
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
                self._sent = 0
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
            self._waiting, self._sent, self._chars, self.fault = [], 0, 0, None
        return fault

    async def _news(self) -> None:
        if self._moved is None:
            self._moved = asyncio.Event()
        await self._moved.wait()

    def _tell(self) -> None:
        if self._moved is not None:
            self._moved.set()
            self._moved = None

    def ripe(self, now: float) -> bool:
        """Whether what waits is to be stored now."""
        return self._ripe_at <= now

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
