"""What one API process counts: requests by route, streams by front and how they ended, what was delivered.

Labels hold the template of a route and never its path, a status, the name of a front. So their number is fixed by the
code, and nothing that a caller sends can add a series.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import QueuePool

from eventstore.metrics import DatabaseWatch, TailMetrics, new_registry
from eventstore.vitals import VitalFigures

Front = Literal["sse", "ndjson", "replay", "ws", "poll", "page"]
# A stream's end: the run's, its age's or the process's; the reader went; it took nothing and was cut; we broke.
Outcome = Literal["ended", "rotated", "drained", "left", "cut", "broken"]
Limit = Literal["requests", "streams", "queued", "connections", "head", "time"]

STREAMS: Final[tuple[Front, ...]] = ("sse", "ndjson", "replay", "ws")
LIMITS: Final[tuple[Limit, ...]] = ("requests", "streams", "queued", "connections", "head", "time")
OUTCOMES: Final[tuple[Outcome, ...]] = ("ended", "rotated", "drained", "left", "cut", "broken")
METHODS: Final = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
REQUEST_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
# The service's own targets: the share of streams that may drop, and the one that wakes somebody.
DROPPED_TARGET: Final = 0.005
DROPPED_ALARM: Final = 0.02
# And the share of streams whose reader was so slow that its draft text came gathered.
CONFLATED_TARGET: Final = 0.001
CONFLATED_ALARM: Final = 0.01


class StreamFigures:
    """The streams of one front."""

    def __init__(self, front: Front, opened: Gauge, ends: Counter, delivered: Counter, conflated: Counter) -> None:
        self._open = opened.labels(front)
        self._ends = {outcome: ends.labels(front, outcome) for outcome in OUTCOMES}
        self._delivered = delivered.labels(front)
        self._conflated = conflated.labels(front)

    def opened(self) -> None:
        """One more."""
        self._open.inc()

    def closed(self, outcome: Outcome) -> None:
        """One less, and why."""
        self._open.dec()
        self._ends[outcome].inc()

    def delivered(self, events: int) -> None:
        """Events that were written to a reader, told once for each group of them."""
        self._delivered.inc(events)

    def conflated(self) -> None:
        """A reader lags, told once for each stream."""
        self._conflated.inc()


class Refusals:
    """What was refused because a limit was reached."""

    def __init__(self, registry: CollectorRegistry) -> None:
        refused = Counter("runwire_api_refused", "Refused by a limit, and by which", ["limit"], registry=registry)
        self._by = {limit: refused.labels(limit) for limit in LIMITS}

    def refused(self, limit: Limit) -> None:
        """One more."""
        self._by[limit].inc()


class ApiFigures:
    """Everything that one API process counts, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = new_registry()
        self.database = DatabaseWatch(self.registry)
        self.tails = TailMetrics(self.registry, self.database)
        self.vitals = VitalFigures(self.registry, self.database)
        opened = Gauge("runwire_api_streams_open", "Streams that are open", ["front"], registry=self.registry)
        ends = Counter(
            "runwire_api_streams", "Streams that ended, and how", ["front", "outcome"], registry=self.registry
        )
        delivered = Counter(
            "runwire_api_events_delivered", "Events given to readers", ["front"], registry=self.registry
        )
        conflated = Counter(
            "runwire_api_streams_conflated",
            "Streams whose reader was so slow that its draft text came gathered",
            ["front"],
            registry=self.registry,
        )
        self._streams: Mapping[str, StreamFigures] = {
            front: StreamFigures(front, opened, ends, delivered, conflated) for front in STREAMS
        }
        self._asked = {"poll": delivered.labels("poll"), "page": delivered.labels("page")}
        self._requests = Counter(
            "runwire_api_requests",
            "Requests by route, and how they were answered",
            ["route", "method", "status"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "runwire_api_request_seconds",
            "From a request to the first byte of its answer; not those that asked to wait",
            ["route", "method"],
            buckets=REQUEST_SECONDS,
            registry=self.registry,
        )
        self.refusals = Refusals(self.registry)
        self._connections = Gauge(
            "runwire_api_database_connections", "Connections in use for requests", registry=self.registry
        )
        self._waits = Gauge("runwire_api_waits", "Requests that wait for news, and streams", registry=self.registry)

    def look_at(self, engine: AsyncEngine, waits: Any) -> None:
        """Where a scrape reads what nobody counts."""
        pool = engine.pool
        if isinstance(pool, QueuePool):
            self._connections.set_function(pool.checkedout)
        self._waits.set_function(lambda: len(waits))

    def stream(self, front: Front) -> StreamFigures:
        """The figures of one front's streams."""
        return self._streams[front]

    def delivered(self, front: Literal["poll", "page"], events: int) -> None:
        """Events in one answer."""
        self._asked[front].inc(events)

    def answered(self, scope: Mapping[str, Any], status: int | None, seconds: float | None) -> None:
        """A request is over. Without `seconds` it was one that took its time on purpose."""
        route = getattr(scope.get("route"), "path_format", None) or "other"
        method = scope["method"] if scope["method"] in METHODS else "other"
        self._requests.labels(route, method, str(status) if status else "none").inc()
        if seconds is not None:
            self._seconds.labels(route, method).observe(seconds)
