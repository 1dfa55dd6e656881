"""What the log's processes count of themselves: recorder, tails, sealer, and how long the database did not answer.

Each object registers its metrics in the registry that it is given and in no other, so any number of them live in one
process. Counting happens per call of the database, never per event. A label says which of a few known words, never a
run, a tenant, a key or anything that somebody sent.
"""

import time
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.metrics_core import Metric

from eventstore.domain.record import Recorded

SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
GROUP_EVENTS: Final = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000)
# SQLSTATEs with which a server says that it goes away. With any other it has answered, if only with a refusal.
GOES_AWAY: Final = ("08", "57P")


class Registry(CollectorRegistry):
    """One process's metrics. The library adds the time of birth to each series, which doubles them for nobody's use."""

    def collect(self) -> Iterator[Metric]:
        for family in super().collect():
            kept = [sample for sample in family.samples if not sample.name.endswith("_created")]
            if kept or not family.samples:
                family.samples = kept
                yield family


def new_registry() -> Registry:
    """A registry that also says what the system knows of this process: memory, processor time, open files."""
    registry = Registry(auto_describe=True)
    ProcessCollector(registry=registry)
    return registry


class DatabaseWatch:
    """Whether the database answers, and for how long it did not, as this process met it."""

    def __init__(self, registry: CollectorRegistry, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: float | None = None
        self._up = Gauge("runwire_database_up", "1 while the database answers this process", registry=registry)
        self._seconds = Counter(
            "runwire_database_away_seconds", "Time in which the database did not answer this process", registry=registry
        )
        self._up.set(1)

    @property
    def is_up(self) -> bool:
        """Whether it answered when it was last asked."""
        return self._since is None

    def met(self, fault: BaseException) -> None:
        """A call of the database failed. A refusal is an answer too."""
        said = getattr(getattr(fault, "orig", None), "sqlstate", None)
        if said is None or str(said).startswith(GOES_AWAY):
            self.away()
        else:
            self.answered()

    def away(self) -> None:
        """It did not answer. Said as often as it is noticed; the time in between is counted once."""
        now = self._clock()
        if self._since is not None:
            self._seconds.inc(now - self._since)
        self._since = now
        self._up.set(0)

    def answered(self) -> None:
        """It did."""
        if self._since is not None:
            self._seconds.inc(self._clock() - self._since)
            self._since = None
            self._up.set(1)


class RecorderMetrics:
    """What one recorder does."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        registry = registry or Registry()
        self.database = DatabaseWatch(registry)
        self._flush_seconds = Histogram(
            "runwire_recorder_flush_seconds", "One call that stores a group", buckets=SECONDS, registry=registry
        )
        self._flush_events = Histogram(
            "runwire_recorder_flush_events",
            "Events in one stored group; heartbeats alone do not count",
            buckets=GROUP_EVENTS,
            registry=registry,
        )
        self._verdicts = Counter(
            "runwire_recorder_verdicts", "What the log said to batches and heartbeats", ["verdict"], registry=registry
        )
        self._resent = Counter(
            "runwire_recorder_resent", "Groups whose outcome stayed unknown and that were sent again", registry=registry
        )
        self._refused = Counter(
            "runwire_recorder_unstorable",
            "Groups or single batches that the database would not take",
            registry=registry,
        )
        self._stalled = Gauge(
            "runwire_recorder_stalled", "1 while the same group is sent again and again", registry=registry
        )
        self._full = Gauge("runwire_recorder_full_writers", "Writers that wait for room", registry=registry)
        self._full_seconds = Counter(
            "runwire_recorder_full_seconds", "Time that writers spent waiting for room, all together", registry=registry
        )
        self._writers = Gauge("runwire_recorder_writers", "Runs that this process writes", registry=registry)
        self._events = Gauge("runwire_recorder_buffered_events", "Events not stored yet", registry=registry)
        self._bytes = Gauge("runwire_recorder_buffered_bytes", "Their size, near enough", registry=registry)
        self._gap = Gauge(
            "runwire_recorder_gap_seconds",
            "How long pieces of one text are let gather; 0 unless commits are slow",
            registry=registry,
        )

    def look_at(
        self,
        writers: Callable[[], int],
        events: Callable[[], int],
        size: Callable[[], int],
        gap_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """Where a scrape reads what nobody counts. It may ask from another thread."""
        self._writers.set_function(writers)
        self._events.set_function(events)
        self._bytes.set_function(size)
        self._gap.set_function(gap_s)

    def flushed(self, seconds: float, events: int, verdicts: Iterable[str]) -> None:
        """A group was answered."""
        self._flush_seconds.observe(seconds)
        if events:
            self._flush_events.observe(events)
        for verdict, count in Tally(verdicts).items():
            self._verdicts.labels(verdict).inc(count)
        self._stalled.set(0)
        self.database.answered()

    def unanswered(self, fault: BaseException, *, sent: bool) -> None:
        """A group got no answer, or one that says: not now."""
        self._stalled.set(1)
        if sent:
            self._resent.inc()
        self.database.met(fault)

    def unstorable(self) -> None:
        """The database refused the call itself."""
        self._refused.inc()
        self._stalled.set(0)
        self.database.answered()

    @contextmanager
    def full(self) -> Iterator[None]:
        """A writer waits for room inside this block."""
        began = time.monotonic()
        self._full.inc()
        try:
            yield
        finally:
            self._full.dec()
            self._full_seconds.inc(time.monotonic() - began)


class TailMetrics:
    """What the tails of one process do."""

    def __init__(self, registry: CollectorRegistry | None = None, database: DatabaseWatch | None = None) -> None:
        registry = registry or Registry()
        self.database = database or DatabaseWatch(registry)
        self._ask_seconds = Histogram(
            "runwire_tail_ask_seconds", "One question for the news of many runs", buckets=SECONDS, registry=registry
        )
        self._events = Counter("runwire_tail_events", "Events that tails took from the log", registry=registry)
        self._lag = Histogram(
            "runwire_tail_lag_seconds",
            "From being recorded, by the database's clock, to being taken, by this machine's: the oldest of each ask",
            buckets=SECONDS,
            registry=registry,
        )
        self._tails = Gauge("runwire_tails", "Runs that are followed", registry=registry)
        self._due = Gauge("runwire_tails_due", "Runs that are to be asked about and were not yet", registry=registry)

    def look_at(self, tails: Callable[[], int], due: Callable[[], int]) -> None:
        """Where a scrape reads what nobody counts."""
        self._tails.set_function(tails)
        self._due.set_function(due)

    def asked(self, seconds: float, pages: Sequence[Sequence[Recorded]]) -> None:
        """The log answered one question; no page is empty."""
        self._ask_seconds.observe(seconds)
        if pages:
            self._events.inc(sum(map(len, pages)))
            oldest_us = min(page[0].recorded_us for page in pages)
            self._lag.observe(max(0.0, time.time() - oldest_us / 1e6))
        self.database.answered()


class SealerMetrics:
    """What one sealer does."""

    OUTCOMES: Final = ("sealed", "idle", "following", "unsigned", "shut", "away", "fault")

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        registry = registry or Registry()
        self.database = DatabaseWatch(registry)
        self._leading = Gauge("runwire_sealer_leading", "1 while this sealer leads", registry=registry)
        self._ticks = Counter(
            "runwire_sealer_ticks", "Looks at the log, by what came of them", ["outcome"], registry=registry
        )
        self._seconds = Histogram("runwire_sealer_tick_seconds", "One look", buckets=SECONDS, registry=registry)
        self._blocks = Counter("runwire_sealer_blocks", "Blocks made", registry=registry)
        self._entries = Counter("runwire_sealer_entries", "Heads sealed in them", registry=registry)
        for outcome in self.OUTCOMES:
            self._ticks.labels(outcome)

    def ticked(self, seconds: float, *, leading: bool, blocks: int, entries: int, fault: str | None) -> None:
        """A look ended."""
        self._leading.set(leading)
        self._seconds.observe(seconds)
        self._blocks.inc(blocks)
        self._entries.inc(entries)
        self._ticks.labels(fault or ("sealed" if blocks else "idle" if leading else "following")).inc()
        self.database.answered()

    def failed(self, fault: BaseException, *, away: bool) -> None:
        """A look could not be had."""
        self._leading.set(0)
        self._ticks.labels("away" if away else "fault").inc()
        if away:
            self.database.met(fault)
