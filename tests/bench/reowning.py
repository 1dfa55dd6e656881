"""How long it takes until 5,000 runs whose owners fall silent at once are all carried again, by two worker processes.

The owners hold 200 runs each, as full workers do; their leases run from the last event that each of them stored. The
time is counted from the last of these events, so it holds the lease. Carried again means that the next owner has stored
its `started`; how long all of them take to end is told beside it.
"""

import asyncio
import signal
import time
from pathlib import Path
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from eventstore import log, queue
from eventstore.database import async_engine, sync_engine
from eventstore.domain.events import new_event
from eventstore.queue import Bounds, Taken, Taker
from migrations import schema
from ops.services import Endpoints, Services
from tests.bench.figures import Claim, percentile
from tests.running import Runs, start_worker
from tests.writing import NOW_US, new_tenant, started

RUNS: Final = 5_000
ABOARD: Final = 200
WORKERS: Final = 2
LEASE_S: Final = 6.0
WANTED_S: Final = 60.0
GIVEN_UP_S: Final = 300.0
WIDE: Final = Bounds(2 * RUNS, 2 * RUNS)
SHORT: Final = {"pieces": 1, "rate_per_s": 0, "tool_calls": 0, "findings": 0, "milestones": 1}
AGAIN: Final = "SELECT recorded_us / 1e6 FROM runwire.event WHERE type = :type AND epoch > 1"
NOW: Final = "SELECT extract(epoch FROM clock_timestamp())"


async def _submit(runs: Runs) -> None:
    left = iter(range(RUNS))

    async def some() -> None:
        for _ in left:
            await runs.submit("drill", SHORT)

    await asyncio.gather(*(some() for _ in range(8)))


async def _fall_silent(worker: AsyncEngine) -> None:
    """Owners that take runs, store `started` for each, and are never heard of again."""
    for number in range(RUNS // ABOARD):
        taker, taken = Taker(f"silent-{number}", LEASE_S, WIDE, [("drill", 1)]), list[Taken]()
        while len(taken) < ABOARD:
            async with worker.begin() as connection:
                taken += (await queue.take(connection, taker, ABOARD - len(taken))).runs
        event = new_event(started(), NOW_US)
        async with worker.begin() as connection:
            batches = [log.Batch(one.run_id, one.epoch, 1, [event]) for one in taken]
            answers = await log.append(connection, batches, LEASE_S)
        assert {answer.verdict for answer in answers} == {"ok"}


async def _times(owner: AsyncEngine, type_: str) -> list[float]:
    async with owner.connect() as connection:
        return [float(row[0]) for row in await connection.execute(text(AGAIN), {"type": type_})]


async def _measure(endpoints: Endpoints, folder: Path) -> tuple[list[float], float]:
    owner = async_engine(endpoints.database_url, application="bench", role=None, pool_size=2)
    api = async_engine(endpoints.database_url, application="bench-api", role="runwire_api", pool_size=8)
    worker = async_engine(endpoints.database_url, application="bench-worker", role="runwire_worker", pool_size=2)
    environ = {
        "RUNWIRE_DATABASE_URL": endpoints.database_url,
        "RUNWIRE_REDIS_URL": endpoints.redis_url,
        "RUNWIRE_SCRIPTED_URL": "http://127.0.0.1:1/v1",
        "RUNWIRE_TENANT_RUNS_MAX": str(2 * RUNS),
        "RUNWIRE_CALLER_RUNS_MAX": str(2 * RUNS),
    }
    try:
        await _submit(Runs(api, await new_tenant(owner)))
        await _fall_silent(worker)
        async with owner.connect() as connection:
            silent = float((await connection.execute(text(NOW))).scalar_one())
        workers = [await start_worker(environ, folder / f"worker-{number}.log") for number in range(WORKERS)]
        end = time.monotonic() + GIVEN_UP_S
        while len(ended := await _times(owner, "result")) < RUNS:
            assert time.monotonic() < end, f"{len(ended)} of {RUNS} runs ended in {GIVEN_UP_S:g} s"
            await asyncio.sleep(1)
        for one in workers:
            await one.end(signal.SIGTERM)
        return [at - silent for at in await _times(owner, "started")], max(ended) - silent
    finally:
        for engine in (owner, api, worker):
            await engine.dispose()


def main(folder: Path) -> None:
    with Services(folder / "reowning") as services:
        engine = sync_engine(services.endpoints.database_url, application="bench")
        schema.upgrade(engine)
        engine.dispose()
        again, all_ended_s = asyncio.run(_measure(services.endpoints, folder))
    print(
        f"{RUNS:,} runs whose {RUNS // ABOARD} owners fell silent at once, {WORKERS} workers, lease {LEASE_S:g} s: "
        f"carried again p50 {percentile(again, 0.5):.1f} s, all after {max(again):.1f} s, "
        f"all ended after {all_ended_s:.1f} s"
    )
    print(Claim("all carried again, seconds", max(again), at_most=WANTED_S).line())
