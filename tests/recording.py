"""A recorder at work on a real log, and what is stored of what it was given."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from uuid import UUID

from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from eventstore import log
from eventstore.domain import chain
from eventstore.domain.record import Recorded
from eventstore.pacing import Pace
from eventstore.recorder import Recorder
from tests.writing import NOW_US, claim, events_of, open_run

NEVER_S = 3600.0
Claimed = Callable[[], Awaitable[UUID]]


def claiming(api: AsyncEngine, worker: AsyncEngine, tenant: UUID) -> Claimed:
    """Makes runs that a test owns, at epoch 1."""

    async def make() -> UUID:
        opened = await open_run(api, tenant)
        assert (await claim(worker, opened.run_id)).epoch == 1
        return opened.run_id

    return make


@asynccontextmanager
async def recording(
    engine: AsyncEngine,
    redis: Redis,
    *,
    lease_s: float = 30.0,
    heartbeat_s: float = NEVER_S,
    pace: Pace | None = None,
) -> AsyncIterator[Recorder]:
    """A recorder at work."""
    made = Recorder(engine, redis, lease_s=lease_s, heartbeat_s=heartbeat_s, clock_us=lambda: NOW_US, pace=pace)
    task = asyncio.create_task(made.run())
    try:
        yield made
        assert not task.done(), task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def stored(engine: AsyncEngine, run_id: UUID) -> list[Recorded]:
    async with engine.connect() as connection:
        events = await events_of(connection, run_id)
        head = await log.head(connection, run_id)
    assert head is not None
    assert chain.verify(run_id, head.tenant_id, events, head.seq, head.chain).ok
    return events


@asynccontextmanager
async def held(owner: AsyncEngine, *runs: UUID) -> AsyncIterator[Callable[[], Awaitable[bool]]]:
    """Keeps every append to these runs waiting at their heads; gives a look at whether one waits now."""

    async def waits() -> bool:
        async with owner.connect() as other:
            found = await other.execute(
                text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%append%'")
            )
            return bool(found.scalar_one())

    async with owner.connect() as connection:
        await connection.execute(text("SET idle_in_transaction_session_timeout = 0"))
        await connection.execute(
            text("SELECT FROM runwire.head WHERE run_id = ANY(:runs) FOR UPDATE"), {"runs": list(runs)}
        )
        yield waits
        await connection.rollback()
