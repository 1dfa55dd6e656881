"""How the log stands, read from the database for whoever watches it: bounded cost, bounded time, never a failure.

A scrape must not add to the trouble that it is there to show. So one connection is kept for it, one question is under
way at a time, an answer serves for a second, and a database that is slow or away costs the scrape a bounded wait and
its figures, not its answer: what is unknown is left out, and never said to be what it last was.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from eventstore import partitions
from eventstore.domain import block
from eventstore.metrics import DatabaseWatch
from eventstore.queue import LIVE_S
from eventstore.sql import rows

UNSEALED_ALARM_S: Final = 30.0  # thirty times the sealer's tick; what is older than this is not just late
QUEUED_ALARM_S: Final = 300.0  # longer than most runs take: the line does not move, or not enough
UNCOVERED_ALARM_S: Final = 60.0  # longer than a worker takes to be replaced by one of the same release
UNWALKED_ALARM_S: Final = 600.0  # under a burst it falls behind, and catches up
LOOK_RUNS_MAX: Final = 2_000
GOOD_FOR_S: Final = 1.0
STATEMENT_MS: Final = 1_000
LOOK_S: Final = 2.5

logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Vitals:
    """How the log stands. Ages in seconds by the database's clock; None where there is nothing to have one."""

    partitions: int
    runway_s: float
    unsealed_runs: int
    unsealed_age_s: float
    blocks: int
    unsigned_blocks: int
    unsigned_age_s: float
    checkpoint_age_s: float | None
    unwalked_blocks: int
    unwalked_age_s: float
    mismatches: int
    gate_open: bool
    queued_runs: int
    queued_age_s: float
    uncovered_runs: int
    uncovered_age_s: float


async def read_vitals(connection: AsyncConnection, runs_max: int = LOOK_RUNS_MAX) -> Vitals:
    """One look, by two statements: at the log, and at who waits."""
    [row] = await rows(connection, "vitals", {"runs": runs_max})
    [line] = await rows(connection, "queue_vitals", {"live_s": LIVE_S})
    now_us, bounds, unsealed, since_us, blocks, signed, kept_us, unsigned, walked, unwalked, mismatches, shut = row
    return Vitals(
        partitions=len(bounds),
        runway_s=partitions.runway_s(bounds, now_us),
        unsealed_runs=unsealed,
        unsealed_age_s=_age_s(now_us, since_us) or 0.0,
        blocks=blocks,
        unsigned_blocks=max(0, blocks - signed),
        unsigned_age_s=_age_s(now_us, _sealed_us(unsigned)) or 0.0,
        checkpoint_age_s=_age_s(now_us, kept_us),
        unwalked_blocks=max(0, blocks - walked),
        unwalked_age_s=_age_s(now_us, _sealed_us(unwalked)) or 0.0,
        mismatches=mismatches,
        gate_open=not shut,
        queued_runs=line[0],
        queued_age_s=float(line[1]),
        uncovered_runs=line[2],
        uncovered_age_s=float(line[3]),
    )


def _sealed_us(header: bytes | None) -> int | None:
    return None if header is None else block.decode_header(bytes(header)).sealed_us


def _age_s(now_us: int, then_us: int | None) -> float | None:
    return None if then_us is None else max(0, now_us - then_us) / 1e6


class VitalFigures(Collector):
    """The vitals as metrics. `refresh` reads, a scrape then shows what was read."""

    def __init__(self, registry: CollectorRegistry, database: DatabaseWatch) -> None:
        self._database = database
        self._known: Vitals | None = None
        self._read_at = float("-inf")
        self._turn = asyncio.Lock()
        self._told = False
        registry.register(self)

    async def refresh(self, engine: AsyncEngine) -> None:
        """Read again, unless that was done just now."""
        async with self._turn:
            clock = asyncio.get_running_loop().time
            if clock() - self._read_at < GOOD_FOR_S:
                return
            self._known = await self._look(engine)
            self._read_at = clock()

    async def _look(self, engine: AsyncEngine) -> Vitals | None:
        try:
            async with asyncio.timeout(LOOK_S), engine.begin() as connection:
                await rows(connection, "short_statements", {"ms": str(STATEMENT_MS)})
                self._database.answered()
                known = await read_vitals(connection)
        except (SQLAlchemyError, OSError, TimeoutError) as fault:
            self._database.met(fault)
            if not self._told:
                logger.warning("the log's figures cannot be read", fault=type(getattr(fault, "orig", fault)).__name__)
            self._told = True
            return None
        self._told = False
        return known

    def describe(self) -> list[Metric]:
        """The names, also while there are no figures."""
        return [GaugeMetricFamily(name, told) for name, told, _ in FIGURES]

    def collect(self) -> Iterator[Metric]:
        """What is known."""
        if (known := self._known) is not None and self._database.is_up:
            for name, told, of in FIGURES:
                if (value := of(known)) is not None:
                    yield GaugeMetricFamily(name, told, value=value)


FIGURES: Final[Sequence[tuple[str, str, Callable[[Vitals], float | None]]]] = (
    ("runwire_partitions", "Partitions of the log that take events", lambda known: known.partitions),
    ("runwire_partition_runway_seconds", "Until the partitions from now on end", lambda known: known.runway_s),
    (
        "runwire_unsealed_runs",
        f"Runs with events that no block names, of the newest {LOOK_RUNS_MAX:,}",
        lambda known: known.unsealed_runs,
    ),
    (
        "runwire_unsealed_age_seconds",
        "Age of the oldest of those events; 0 without any",
        lambda known: known.unsealed_age_s,
    ),
    ("runwire_blocks", "Blocks in the log of blocks", lambda known: known.blocks),
    ("runwire_unsigned_blocks", "Blocks that no checkpoint covers", lambda known: known.unsigned_blocks),
    (
        "runwire_unsigned_age_seconds",
        "Age of the oldest of them; 0 without any",
        lambda known: known.unsigned_age_s,
    ),
    (
        "runwire_checkpoint_age_seconds",
        "Age of the last checkpoint; none before the first",
        lambda known: known.checkpoint_age_s,
    ),
    ("runwire_unwalked_blocks", "Blocks whose events were not walked again yet", lambda known: known.unwalked_blocks),
    (
        "runwire_unwalked_age_seconds",
        "Age of the oldest of them; 0 without any",
        lambda known: known.unwalked_age_s,
    ),
    ("runwire_mismatches", "Runs that were found not to fit their chain", lambda known: known.mismatches),
    ("runwire_queued_runs", "Runs that wait for their turn", lambda known: known.queued_runs),
    (
        "runwire_queued_age_seconds",
        "How long the first of them has waited; 0 without any",
        lambda known: known.queued_age_s,
    ),
    (
        "runwire_uncovered_runs",
        "Runs whose version no worker that is there can carry",
        lambda known: known.uncovered_runs,
    ),
    (
        "runwire_uncovered_age_seconds",
        "How long the first of them has waited; 0 without any",
        lambda known: known.uncovered_age_s,
    ),
    ("runwire_gate_open", "1 while the log takes events", lambda known: float(known.gate_open)),
)
