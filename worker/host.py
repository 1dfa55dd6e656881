"""One worker process: takes hints from the queue, carries runs on one event loop, sweeps, and goes away in order."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final
from uuid import UUID

import structlog
from redis.asyncio import Redis
from sqlalchemy.exc import SQLAlchemyError

from eventstore import log, partitions, wakeups
from eventstore.handoff import Handoff
from worker.runner import Bench, advance

PARTITIONS_S: Final = 3_600.0
PARTITIONS_AGAIN_S: Final = 10.0
PARTITIONS_AGAIN_S_MAX: Final = 600.0
OFFER_RUNS_MAX: Final = 100

logger = structlog.get_logger(__name__)


class Host:
    """Carries runs. `admit` is called from the queue's thread, everything else on the loop."""

    def __init__(
        self,
        bench: Bench,
        handoff: Handoff,
        redis: Redis,
        *,
        waiting: threading.Event,
        sweep_s: float,
        forgotten_s: float,
    ) -> None:
        self._bench = bench
        self._handoff = handoff
        self._redis = redis
        self._waiting = waiting
        self._sweep_s = sweep_s
        self._forgotten_s = forgotten_s
        self._loop = asyncio.get_running_loop()
        self._slots = threading.Semaphore(bench.settings.runs_max)
        self._runs: dict[UUID, asyncio.Task[None]] = {}
        self._handover = asyncio.Event()
        bench.metrics.look_at(lambda: len(self._runs), bench.settings.runs_max)

    def admit(self, run_id: UUID) -> None:
        """Begin a run as soon as there is room. A hint that comes while the process stops is left to the sweep."""
        while not self._slots.acquire(timeout=0.5):
            if self._handover.is_set():
                return
        self._loop.call_soon_threadsafe(self._begin, run_id)

    def _begin(self, run_id: UUID) -> None:
        if self._handover.is_set() or run_id in self._runs:
            self._slots.release()
            return
        self._runs[run_id] = self._loop.create_task(self._carry(run_id))

    async def _carry(self, run_id: UUID) -> None:
        try:
            await advance(self._bench, run_id, self._handover)
        except (SQLAlchemyError, OSError, TimeoutError) as fault:
            logger.warning(
                "the log is away: this run is left to the sweep", run_id=str(run_id), fault=type(fault).__name__
            )
        except Exception:  # the edge of a run: one that breaks must not take the others with it
            logger.exception("a run broke", run_id=str(run_id))
        finally:
            del self._runs[run_id]
            self._slots.release()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Everything that goes on beside the runs; on the way out the runs are handed back."""
        async with AsyncExitStack() as stack:
            for work in (self._bench.recorder.run(), self._hear(), self._sweep(), self._make_room()):
                task = self._loop.create_task(work)
                stack.push_async_callback(_end, task)
            try:
                yield
            finally:
                await self._hand_back()

    async def _hand_back(self) -> None:
        self._handover.set()
        runs = dict(self._runs)
        if runs:
            await asyncio.wait(runs.values(), timeout=self._bench.settings.drain_s)
            await self._handoff.hand_over(*runs)

    async def _hear(self) -> None:
        """Wake-ups: a message waits in the queue, or the API wrote to a run that may be ours."""
        async for channel, payload in wakeups.listen(self._redis, wakeups.HANDOFF, wakeups.CONTROL):
            if channel == wakeups.HANDOFF:
                self._waiting.set()
            elif not payload:
                self._bench.recorder.nudge(None)
            elif len(payload) == 32 and payload.isalnum():
                try:
                    self._bench.recorder.nudge(UUID(hex=payload))
                except ValueError:
                    continue

    async def _sweep(self) -> None:
        """Offer what nobody works on: runs whose hint was lost, and runs of workers that fell silent.

        After the log was out of reach for longer than a lease, the sweep first waits one lease: every healthy worker
        was cut off as well and must have the time to renew before its runs are given away.
        """
        away_since: float | None = None
        while True:
            await asyncio.sleep(self._sweep_s)
            try:
                if away_since is not None and self._loop.time() - away_since > self._bench.lease_s:
                    async with self._bench.engine.connect() as connection:
                        await log.head(connection, UUID(int=0))
                    await asyncio.sleep(self._bench.lease_s)
                async with self._bench.engine.begin() as connection:
                    lost = await log.forgotten(connection, self._forgotten_s, OFFER_RUNS_MAX)
                away_since = None
                self._bench.metrics.database.answered()
            except (SQLAlchemyError, OSError, TimeoutError) as fault:
                self._bench.metrics.database.met(fault)
                away_since = away_since if away_since is not None else self._loop.time()
                continue
            if lost:
                self._bench.metrics.offered_again(len(lost))
                logger.info("offered again", runs=len(lost))
                if not await self._handoff.hand_over(*[run.run_id for run in lost]):
                    # No queue at all: whoever found the runs begins them, as far as it has room.
                    for run in lost:
                        if self._slots.acquire(blocking=False):
                            self._begin(run.run_id)

    async def _make_room(self) -> None:
        """Partitions ahead of time. That they cannot be made, or do not reach far, is said loudly and tried again."""
        wait_s = PARTITIONS_AGAIN_S
        while True:
            made = await self._partitions_made()
            enough = await self._runway_told()
            await asyncio.sleep(PARTITIONS_S if made and enough else wait_s)
            wait_s = PARTITIONS_AGAIN_S if made and enough else min(wait_s * 2, PARTITIONS_AGAIN_S_MAX)

    async def _partitions_made(self) -> bool:
        try:
            async with self._bench.engine.begin() as connection:
                if made := await log.ensure_partitions(connection):
                    logger.info("made partitions", count=made)
        except (SQLAlchemyError, OSError, TimeoutError) as fault:
            self._bench.metrics.no_room_made()
            why = str(getattr(fault, "orig", fault)).partition("\n")[0]
            logger.error(
                "could not make partitions", fault=type(fault).__name__, why=why, hint="tried again; " + partitions.HINT
            )
            return False
        return True

    async def _runway_told(self) -> bool:
        """Whether there is room for long enough. While the log cannot be asked, somebody else says so."""
        try:
            async with self._bench.engine.connect() as connection:
                _, runway_s = await partitions.look(connection)
        except (SQLAlchemyError, OSError, TimeoutError):
            return False
        if runway_s >= partitions.RUNWAY_WARN_S:
            return True
        logger.error("partitions run out", runway_days=round(runway_s / partitions.DAY_S, 1), hint=partitions.HINT)
        return False


async def _end(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
