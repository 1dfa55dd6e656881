"""Asks runs to stop that nobody reads, where their workflow wants that. The log decides, as with any other request."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import structlog
from redis.asyncio import Redis
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from eventstore import readers, wakeups
from eventstore.domain.events import CancelRequested, new_event
from eventstore.handoff import Handoff
from eventstore.readers import Unread
from worker.endings import SWEEP
from worker.metrics import WorkerMetrics

RUNS_MAX: Final = 100

logger = structlog.get_logger(__name__)


class Abandoning:
    """One worker's look at the runs without readers. Several may look: a run is asked once."""

    def __init__(
        self,
        engine: AsyncEngine,
        redis: Redis,
        handoff: Handoff,
        metrics: WorkerMetrics,
        *,
        sweep_s: float,
        gone_s: float,
    ) -> None:
        self._engine = engine
        self._reading = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._redis = redis
        self._handoff = handoff
        self._metrics = metrics
        self._sweep_s = sweep_s
        self._gone_s = gone_s

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Look, for as long as the block lasts."""
        task = asyncio.create_task(self._sweep(), name="unread runs")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(self._sweep_s)
            try:
                await self.look()
            except (SQLAlchemyError, OSError, TimeoutError) as fault:
                logger.debug("runs without readers are looked for later", fault=type(fault).__name__)

    async def look(self) -> None:
        """Ask all of them that are due."""
        async with self._reading.connect() as connection:
            found = await readers.unread(connection, self._gone_s, RUNS_MAX)
        for run in found:
            await self._abandon(run)

    async def _abandon(self, run: Unread) -> None:
        body = CancelRequested(by=SWEEP, reason=f"nobody was reading for {run.after_s:g} s")
        async with self._engine.begin() as connection:
            told = await readers.abandon(connection, run.run_id, new_event(body, time.time_ns() // 1_000), self._gone_s)
        if told.verdict != "ok" or told.seq is None:
            return
        self._metrics.unread()
        logger.info("nobody was reading", run_id=str(run.run_id), after_s=run.after_s)
        await wakeups.publish(self._redis, wakeups.CONTROL, run.run_id.hex)
        await wakeups.publish(self._redis, wakeups.MOVED, wakeups.moved_payload([(run.run_id, told.seq)]))
        if not told.owned:
            await self._handoff.hand_over(run.run_id)
