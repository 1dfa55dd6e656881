"""The client as a slow reader: gathered draft text comes as the events that it was, and nothing else is missing."""

import asyncio
import socket
from collections.abc import AsyncIterator

import httpx
import pytest_asyncio
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from ops.services import Endpoints
from runwire import AsyncClient, Event
from tests.serving import Api, Writer, register, serving, until
from tests.writing import result, started, token

SMALL = [(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)]
HELD_S = 0.2


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def api(database_url: str, services: Endpoints, worker_engine: AsyncEngine) -> AsyncIterator[Api]:
    await register(worker_engine)
    limits = {"lag_events": 20, "lag_held_s": HELD_S, "send_buffer_bytes": 4_096}
    async with serving(database_url, services.redis_url, keepalive_s=0.2, retry_ms=10, **limits) as api:
        yield api


def held_up(api: Api) -> bool:
    """Whether a reader's socket takes nothing, and long enough."""
    return any(
        wait.sending_since is not None and wait.clock() - wait.sending_since > 2 * HELD_S
        for wait in api.service.waits._open
    )


async def test_a_slow_reader_has_the_whole_draft_and_every_other_event(
    api: Api, worker_engine: AsyncEngine, redis: Redis
) -> None:
    run = Writer(worker_engine, await api.submit(), redis)
    await run.append(started())
    transport = httpx.AsyncHTTPTransport(socket_options=SMALL)
    events: list[Event] = []
    async with AsyncClient(api.address, api.key(), transport=transport) as client, client.follow(run.run_id) as follow:
        events.append(await anext(follow))
        for number in range(20):
            last = await run.append(*(token(f"{number}.{piece} " + "x" * 2_000) for piece in range(20)))
        last = await run.append(result())
        await until(lambda: held_up(api))
        async for event in follow:
            events.append(event)
            await asyncio.sleep(0)
    stored = [event for event in events if event.seq]
    assert [event.seq for event in stored] == list(range(1, last + 1)), "none is missing, doubled or out of order"
    assert [event.data["text"].partition(" ")[0] for event in stored if event.type == "token"] == [
        f"{number}.{piece}" for number in range(20) for piece in range(20)
    ]
    assert [event for event in events if event.type == "lagging"]
    assert follow.transport == "sse"
