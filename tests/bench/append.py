"""How many events per second one writer appends, durably and chained, in groups of three shapes."""

import asyncio
import time
from pathlib import Path
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from eventstore import log
from eventstore.database import async_engine, sync_engine
from eventstore.domain.events import new_event
from migrations import schema
from ops.services import Services
from tests.writing import NOW_US, claim, new_tenant, open_run, started, token

SHAPES = ((1, 1), (1, 50), (100, 1), (100, 50))
SECONDS = 3.0


async def _measure(api: AsyncEngine, worker: AsyncEngine, tenant: UUID, runs: int, events: int) -> float:
    run_ids = [(await open_run(api, tenant)).run_id for _ in range(runs)]
    for run_id in run_ids:
        await claim(worker, run_id, lease_s=600)
    piece = new_event(token("the words of a draft, twenty-four"), NOW_US)
    connection = await (await worker.connect()).execution_options(isolation_level="AUTOCOMMIT")
    await log.append(connection, [log.Batch(run_id, 1, 1, [new_event(started(), NOW_US)]) for run_id in run_ids], 600)
    number, stored, began = 1, 0, time.perf_counter()
    while time.perf_counter() - began < SECONDS:
        number += 1
        answers = await log.append(connection, [log.Batch(r, 1, number, [piece] * events) for r in run_ids], 600)
        assert all(answer.verdict == "ok" for answer in answers)
        stored += runs * events
    rate = stored / (time.perf_counter() - began)
    await connection.close()
    return rate


async def _run(database_url: str) -> None:
    engine = sync_engine(database_url, application="bench")
    schema.upgrade(engine)
    engine.dispose()
    owner = async_engine(database_url, application="bench", role=None, pool_size=1)
    api = async_engine(database_url, application="bench", role="runwire_api", pool_size=2)
    worker = async_engine(database_url, application="bench", role="runwire_worker", pool_size=2)
    tenant = await new_tenant(owner)
    for runs, events in SHAPES:
        rate = await _measure(api, worker, tenant, runs, events)
        print(f"append, {runs} runs × {events} events a call: {rate:,.0f} events/s")
    for engine_ in (owner, api, worker):
        await engine_.dispose()


def main(folder: Path) -> None:
    with Services(folder / "append") as services:
        asyncio.run(_run(services.endpoints.database_url))
