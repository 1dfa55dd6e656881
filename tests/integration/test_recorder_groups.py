"""Groups: one commit for all that waits, fair among runs, bounded in events and bytes."""

import asyncio
from collections.abc import Sequence

import pytest
import pytest_asyncio
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from eventstore import log, recorder
from eventstore.domain.events import CancelRequested, Person, new_event
from eventstore.run_writer import GROUP_BYTES_MAX
from tests.recording import Claimed, claiming, held, recording, stored
from tests.waiting import until
from tests.writing import NOW_US, new_tenant, started, token

CANCEL = new_event(CancelRequested(by=Person(subject="ada", role="user"), reason="enough"), NOW_US)


@pytest_asyncio.fixture(loop_scope="session")
async def claimed(api_engine: AsyncEngine, worker_engine: AsyncEngine, owner_engine: AsyncEngine) -> Claimed:
    return claiming(api_engine, worker_engine, await new_tenant(owner_engine))


async def test_one_commit_carries_the_waiting_events_of_all_runs(
    worker_engine: AsyncEngine, redis: Redis, api_engine: AsyncEngine, owner_engine: AsyncEngine, claimed: Claimed,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    groups: list[int] = []
    real = log.append

    async def counted(connection: AsyncConnection, batches: Sequence[log.Batch], lease_s: float) -> list[log.Answer]:
        groups.append(len(batches))
        return await real(connection, batches, lease_s)

    async with recording(worker_engine, redis) as made:
        writers = [made.open(await claimed(), 1) for _ in range(20)]
        monkeypatch.setattr(log, "append", counted)
        async with held(owner_engine, writers[0].run_id) as waits:
            writers[0].push(started())
            await until(waits)
            for writer in writers[1:]:
                writer.push(started())
        await asyncio.gather(*(writer.flush() for writer in writers))
        assert groups == [1, 19]
        for writer in writers:
            assert [event.type for event in await stored(api_engine, writer.run_id)] == ["accepted", "started"]


async def test_a_run_that_fills_every_group_keeps_no_neighbour_waiting(
    worker_engine: AsyncEngine,
    api_engine: AsyncEngine,
    owner_engine: AsyncEngine,
    redis: Redis,
    claimed: Claimed,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recorder, "GROUP_EVENTS_MAX", 5)
    async with recording(worker_engine, redis) as made:
        loud, quiet, other = [made.open(await claimed(), 1) for _ in range(3)]
        async with api_engine.begin() as connection:
            await log.control(connection, quiet.run_id, CANCEL)
        async with held(owner_engine, loud.run_id) as waits:
            loud.push(started())
            await until(waits)
            for _ in range(100):
                loud.push(token("x"))
            other.push(started())
            made.nudge(quiet.run_id)
        await asyncio.wait_for(quiet.cancel.wait(), 5)  # the nudge is not lost, nor the heartbeat that answers it
        await other.flush()
        assert loud.has_events, "a run with one event waited for all of its neighbour's"
        await loud.flush()
    assert len(await stored(api_engine, loud.run_id)) == 102


async def test_a_group_is_bounded_in_bytes_and_large_events_of_many_runs_are_all_stored(
    worker_engine: AsyncEngine, api_engine: AsyncEngine, redis: Redis, claimed: Claimed, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    real = log.append

    async def weighed(connection: AsyncConnection, batches: Sequence[log.Batch], lease_s: float) -> list[log.Answer]:
        sizes.append(sum(len(event.body) for batch in batches for event in batch.events))
        return await real(connection, batches, lease_s)

    monkeypatch.setattr(log, "append", weighed)
    async with recording(worker_engine, redis) as made:
        writers = [made.open(await claimed(), 1) for _ in range(4)]
        for writer in writers:
            writer.push(started())
            for _ in range(5):
                writer.push(token("x" * 900_000))
        await asyncio.gather(*(writer.flush() for writer in writers))
    assert sum(sizes) > 4 * 5 * 900_000
    assert max(sizes) <= GROUP_BYTES_MAX
    for writer in writers:
        assert len(await stored(api_engine, writer.run_id)) == 7
