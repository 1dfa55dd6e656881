"""What a fault run is to be: how much, how long, how hard; and what each of its processes is told of it."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

from pydantic import BaseModel, ConfigDict
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

BYTES_PER_EVENT: Final = 550  # measured: 410 for row and index, 50 in the journals; the rest is for what lies dead
BYTES_BESIDE: Final = 5 * 2**30  # write-ahead log at its largest, during a recovery, and the servers themselves
ENOUGH: Final = "enough"  # a file of this name: no new runs
LEASE_S: Final = 2.0
HEARTBEAT_S: Final = 0.5
AWAY_S: Final = 0.1  # a process that cannot reach the log asks again after this
LOG_AWAY: Final = (DBAPIError, PoolTimeoutError, OSError, TimeoutError)


@dataclass(frozen=True, slots=True)
class Plan:
    """One fault run. It goes on until it has its events and has done every fault `rounds` times."""

    events: int
    seed: int
    rounds: int = 1
    every_s: float = 1.5  # between two faults, on average
    spread_s: float = 0.0  # the events are not written faster than over this time
    writers: int = 2
    runs_at_once: int = 60  # per writer
    run_events: int = 1_000  # on average
    window: int = 50  # events of a run on their way at once, on average
    readers: int = 2
    read_by: int = 1  # so many of the readers follow each run
    without: str | None = None  # a safeguard to take out first, see sabotage.py
    drain_s: float = 90.0  # so long may the runs take to end after the last fault, and then the readers

    @property
    def deadline_s(self) -> float:
        """By then it has its events, or something is wrong."""
        return 120.0 + self.spread_s * 4 + self.rounds * self.every_s * 32 + self.events / 4_000

    @property
    def disk_bytes(self) -> int:
        return self.events * BYTES_PER_EVENT + BYTES_BESIDE

    def fits(self, folder: Path) -> bool:
        """Whether the disk has room for it."""
        return shutil.disk_usage(folder).free > self.disk_bytes


class Order(BaseModel):
    """What every process of the crew knows."""

    model_config = ConfigDict(frozen=True)
    name: str
    journals: Path
    database_url: str
    redis_url: str
    seed: int


class WriterOrder(Order):
    """What a writer is told."""

    tenant: UUID
    runs_at_once: int
    run_events: int
    window: int
    rate_per_s: float | None

    def length_of(self, run_id: UUID) -> int:
        """How many events this run is to have before its result: whoever takes it over knows it too."""
        return self.run_events // 4 + run_id.int % (self.run_events * 3 // 2)


class ReaderOrder(Order):
    """What a reader is told: it follows the runs whose number, over all readers, falls on it."""

    place: int
    readers: int
    read_by: int

    def follows(self, run_id: UUID) -> bool:
        return (run_id.int - self.place) % self.readers < self.read_by
