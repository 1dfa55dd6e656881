"""What one worker process counts of the runs that it carries, beside what its recorder counts."""

from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from eventstore.metrics import DatabaseWatch, Registry

# The service's own targets, in seconds: what is wanted, and what wakes somebody.
FIRST_EVENT_TARGET_S: Final = 0.5
FIRST_EVENT_ALARM_S: Final = 2.0
CANCEL_TARGET_S: Final = 2.0
CANCEL_ALARM_S: Final = 5.0
# A provider that leaves more than this share of the calls that wait without room wakes somebody.
MODEL_GIVE_UP_ALARM: Final = 0.05
FIRST_EVENT: Final = (0.01, 0.025, 0.05, 0.1, 0.25, FIRST_EVENT_TARGET_S, 1.0, FIRST_EVENT_ALARM_S, 5.0, 15.0, 60.0)
CANCEL: Final = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, CANCEL_TARGET_S, CANCEL_ALARM_S, 15.0, 60.0)

MODEL_WAIT: Final = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)


class WorkerMetrics:
    """Runs, as this process carries them. Both ends of each span are times that the database gave."""

    def __init__(self, registry: CollectorRegistry | None = None, database: DatabaseWatch | None = None) -> None:
        registry = registry or Registry()
        self.database = database or DatabaseWatch(registry)
        self._runs = Gauge("runwire_worker_runs", "Runs under way in this process", registry=registry)
        self._runs_max = Gauge("runwire_worker_runs_max", "Runs that it may carry at once", registry=registry)
        self._first_event = Histogram(
            "runwire_first_event_seconds",
            "From a run's acceptance to its worker's first event, the wait for a worker included",
            buckets=FIRST_EVENT,
            registry=registry,
        )
        self._cancel = Histogram(
            "runwire_cancel_seconds", "From a stored cancel request to the run's end", buckets=CANCEL, registry=registry
        )
        self._offered = Counter(
            "runwire_runs_offered_again",
            "Runs that nobody worked on, or whose wait was over, and that came back into line",
            registry=registry,
        )
        self._model_waiting = Gauge(
            "runwire_model_calls_waiting", "Model calls that wait for room in the provider's limits", registry=registry
        )
        self._model_waits = Histogram(
            "runwire_model_wait_seconds",
            "How long a model call waited for that room, by how it ended; not those that need not wait",
            ["outcome"],
            buckets=MODEL_WAIT,
            registry=registry,
        )
        self._model_common = Gauge(
            "runwire_model_limits_common", "1 while all workers hold the limits together", registry=registry
        )
        self._model_common.set(1)
        self._unread = Counter(
            "runwire_runs_unread", "Runs that were asked to stop because nobody was reading", registry=registry
        )
        self._room_failures = Counter(
            "runwire_partition_failures", "Times that partitions could not be made ahead", registry=registry
        )

    def look_at(self, runs: Callable[[], int], runs_max: int) -> None:
        """Where a scrape reads what nobody counts."""
        self._runs.set_function(runs)
        self._runs_max.set(runs_max)

    def first_event(self, accepted_us: int, stored_us: int) -> None:
        """A run that nobody had begun before has begun."""
        self._first_event.observe(max(0, stored_us - accepted_us) / 1e6)

    def cancelled(self, asked_us: int, ended_us: int) -> None:
        """A run that was asked to stop has stopped."""
        self._cancel.observe(max(0, ended_us - asked_us) / 1e6)

    def offered_again(self, runs: int) -> None:
        """The sweep found forgotten runs."""
        self._offered.inc(runs)

    def waiting(self, calls: int) -> None:
        """So many more model calls wait for the provider's limits."""
        self._model_waiting.inc(calls)

    def waited(self, seconds: float, outcome: str) -> None:
        """One waited: it was served, gave up, or was stopped."""
        self._model_waits.labels(outcome).observe(seconds)

    def common(self, *, is_common: bool) -> None:
        """Whether the limits are held by all workers together."""
        self._model_common.set(1 if is_common else 0)

    def unread(self) -> None:
        """A run was asked to stop because nobody was reading."""
        self._unread.inc()

    def no_room_made(self) -> None:
        """Partitions could not be made."""
        self._room_failures.inc()
