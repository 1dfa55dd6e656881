"""Limits per caller over real servers: refusals that say when to come back, on every front, and over processes."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest_asyncio
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from api.neighbours import KEY
from ops.services import Endpoints
from tests.serving import DEADLINE_S, Api, register, serving, until

FEW: dict[str, Any] = {"caller_streams_max": 3, "caller_requests_per_s": 5.0, "caller_requests_window_s": 8.0}
SSE = {"Accept": "text/event-stream"}
WISH = {"workflow": "contract_review", "input": {"text": "Clause 1"}}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def api(database_url: str, services: Endpoints, worker_engine: AsyncEngine) -> AsyncIterator[Api]:
    await register(worker_engine)
    async with serving(database_url, services.redis_url, callers_tell_s=0.05, poll_wait_s_max=30, **FEW) as api:
        yield api


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def neighbour(api: Api, database_url: str, services: Endpoints) -> AsyncIterator[Api]:
    async with serving(database_url, services.redis_url, callers_tell_s=0.05, **FEW) as other:
        yield other


def refused(answer: httpx.Response, code: str, policy: str) -> dict[str, Any]:
    told: dict[str, Any] = answer.json()
    assert (answer.status_code, told["code"]) == (429, code)
    assert answer.headers["content-type"] == "application/problem+json"
    wait = int(answer.headers["retry-after"])
    assert 1 <= wait <= 10
    assert answer.headers["ratelimit"] == f'"{policy}";r=0;t={wait}'
    assert answer.headers["ratelimit-policy"].startswith(f'"{policy}";q=')
    return told


async def open_streams(api: Api, stack: AsyncExitStack, subject: str, count: int) -> None:
    """Streams of one run, open until the stack is closed."""
    run_id = await api.submit(subject=subject)
    client = await stack.enter_async_context(api.client(subject=subject))
    for _ in range(count):
        answer = await stack.enter_async_context(client.stream("GET", f"/v1/runs/{run_id}/events", headers=SSE))
        assert answer.status_code == 200
        chunks: Any = answer.aiter_raw()  # an open generator: when it goes, the stream is closed
        await anext(chunks)
        stack.push_async_callback(chunks.aclose)


async def test_one_stream_too_many_is_refused_on_every_front_and_a_closed_one_makes_room(api: Api) -> None:
    async with asyncio.timeout(DEADLINE_S), AsyncExitStack() as stack, api.client(subject="eve") as client:
        await open_streams(api, stack, "eve", 3)
        runs = (await client.get("/v1/runs")).json()["runs"]
        path = f"/v1/runs/{runs[0]['id']}"
        for headers in (SSE, {"Accept": "application/x-ndjson"}):
            refused(await client.get(path + "/events", headers=headers), "too-many-streams", "streams")
        refused(await client.get(path + "/poll?after=1&wait=5"), "too-many-streams", "streams")
        assert (await client.get(path + "/poll?after=1")).status_code == 200
        async with connect(
            api.address.replace("http", "ws", 1) + path + "/ws",
            additional_headers={"X-API-Key": api.key("user", "eve")},
        ) as socket:
            told = json.loads(await asyncio.wait_for(socket.recv(), DEADLINE_S))
            assert (told["type"], told["problem"]["code"], told["retry_after"]) == ("problem", "too-many-streams", 5)
            await socket.wait_closed()
            assert socket.close_code == 4429
        for headers in (SSE, {"Prefer": "wait=5"}):
            refused(await client.post("/v1/runs", json=WISH, headers=headers), "too-many-streams", "streams")
        assert len((await client.get("/v1/runs")).json()["runs"]) == 1, "a refused submission has started a run"
        async with api.client(subject="bob") as bob:
            assert (await bob.get("/v1/runs")).status_code == 200
    await until(lambda: not len(api.service.waits))
    async with AsyncExitStack() as stack:
        await open_streams(api, stack, "eve", 3)
    await until(lambda: not len(api.service.waits))


async def test_more_requests_than_the_rate_are_refused_with_the_time_to_come_back(api: Api) -> None:
    async with api.client(subject="fast") as client:
        answers = [await client.get("/v1/runs") for _ in range(60)]
        good = [answer for answer in answers if answer.status_code == 200]
        assert 40 <= len(good) < 60
        told = refused(answers[-1], "too-many-requests", "requests")
        assert "5 requests a second" in told["detail"]
        assert answers[-1].headers["ratelimit-policy"] == '"requests";q=40;w=8'
        refused(await client.post("/v1/runs", json=WISH), "too-many-requests", "requests")
    async with api.client(subject="slow") as other:
        assert (await other.get("/v1/runs")).status_code == 200
    async with httpx.AsyncClient(base_url=api.address) as nobody:
        assert (await nobody.get("/healthz")).status_code == 200
        figures = (await nobody.get("/metrics")).text
    for limit in ("requests", "streams"):
        [count] = [one for one in figures.splitlines() if f'runwire_api_refused_total{{limit="{limit}"}}' in one]
        assert float(count.split()[-1]) >= 1


async def test_what_is_said_on_a_socket_counts_as_requests_and_a_flood_is_slowed_not_served(api: Api) -> None:
    run_id = await api.submit(subject="talker")
    kinds: list[str] = []
    async with connect(
        api.address.replace("http", "ws", 1) + f"/v1/runs/{run_id}/ws",
        additional_headers={"X-API-Key": api.key("user", "talker")},
    ) as socket:
        for _ in range(60):
            await socket.send('{"type":"ping"}')
        try:
            async with asyncio.timeout(DEADLINE_S):
                while kinds.count("problem") < 3:
                    told = json.loads(await socket.recv())
                    kinds.append(told["type"])
        except ConnectionClosed:
            kinds.append("closed")
    assert 30 <= kinds.count("pong") < 60
    assert "closed" not in kinds


async def test_streams_count_over_all_processes(api: Api, neighbour: Api, redis: Redis) -> None:
    async with AsyncExitStack() as stack:
        await open_streams(api, stack, "spread", 2)
        await open_streams(neighbour, stack, "spread", 1)
        person = api.service.keys._known[api.key("user", "spread").split("_")[1]].caller
        for one in (api, neighbour):
            use = one.service.limits.use(person)
            await until(lambda use=use: use.streams + use.streams_elsewhere == 3)  # type: ignore[misc]
            async with one.client(subject="spread") as client:
                runs = (await client.get("/v1/runs")).json()["runs"]
                path = f"/v1/runs/{runs[0]['id']}/events"
                refused(await client.get(path, headers=SSE), "too-many-streams", "streams")
        told = await redis.hgetall(KEY)
        assert len(told) == 2
        assert "spread" not in str(told)
    await until(lambda: not len(api.service.waits) and not len(neighbour.service.waits))


async def test_without_redis_each_process_counts_for_itself_and_refuses_nobody_more(
    database_url: str, api: Api
) -> None:
    async with serving(database_url, callers_tell_s=0.05, **FEW) as alone, AsyncExitStack() as stack:
        await open_streams(alone, stack, "alone", 3)
        async with alone.client(subject="alone") as client:
            runs = (await client.get("/v1/runs")).json()["runs"]
            answer = await client.get(f"/v1/runs/{runs[0]['id']}/events", headers=SSE)
            refused(answer, "too-many-streams", "streams")
            answers = [await client.get("/v1/runs") for _ in range(30)]
            assert {one.status_code for one in answers} == {200}
