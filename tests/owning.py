"""Owners of runs within the test's own process: what a worker process does, and how it dies."""

import asyncio
from contextlib import suppress
from typing import Any
from uuid import UUID

from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from eventstore import log
from eventstore.recorder import Recorder
from worker.__main__ import clock_us
from worker.llm.retrying import RetryPolicy
from worker.registry import WORKFLOWS
from worker.runner import Bench
from worker.settings import WorkerSettings


class Owner:
    """One worker process's worth of a recorder, which can die at once, as under kill -9."""

    def __init__(self, bench: Bench, recording: "asyncio.Task[None]") -> None:
        self.bench = bench
        self._recording = recording

    async def die(self, run: "asyncio.Task[None]") -> None:
        """Neither the run nor the recorder does anything more."""
        for task in (run, self._recording):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def new_owner(
    engine: AsyncEngine, redis: Redis, model: Any, settings: WorkerSettings | None = None, **more: Any
) -> Owner:
    """A process that carries runs on this database."""
    recorder = Recorder(engine, redis, lease_s=600, heartbeat_s=1, clock_us=clock_us)
    bench = Bench(
        engine=engine,
        recorder=recorder,
        model=model,
        model_name="scripted-1",
        retries=RetryPolicy(),
        workflows=WORKFLOWS,
        settings=settings or WorkerSettings(),
        lease_s=600,
        owner="test",
        clock_us=clock_us,
        **more,
    )
    return Owner(bench, asyncio.create_task(recorder.run()))


async def free(engine: AsyncEngine, run_id: UUID) -> None:
    """What the lease would do after a while."""
    async with engine.begin() as connection:
        head = await log.head(connection, run_id)
        assert head is not None
        await log.release(connection, run_id, head.epoch)
