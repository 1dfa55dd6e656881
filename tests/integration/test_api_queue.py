"""A place in line on every answer that tells of a run, and the end of the line."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine

from eventstore import queue
from eventstore.queue import Bounds, Taker
from tests.serving import Api, register, serving

WISH = {"workflow": "contract_review", "input": {"text": "Clause 1"}}
TAKER = Taker("w", 600.0, Bounds(1_000, 1_000), [("contract_review", 1)])


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def api(database_url: str, worker_engine: AsyncEngine) -> AsyncIterator[Api]:
    await register(worker_engine)
    async with serving(database_url, tenant_queued_max=6, caller_queued_max=4) as api:
        yield api


@pytest_asyncio.fixture(loop_scope="session")
async def ada(api: Api, worker_engine: AsyncEngine) -> AsyncIterator[httpx.AsyncClient]:
    await take(worker_engine, 100)
    await tend(worker_engine)
    async with api.client() as client:
        yield client


async def take(engine: AsyncEngine, room: int) -> None:
    async with engine.begin() as connection:
        await queue.take(connection, TAKER, room)


async def tend(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await queue.tend(connection, TAKER)


async def submitted(client: httpx.AsyncClient, count: int) -> list[str]:
    answers = [await client.post("/v1/runs", json=WISH) for _ in range(count)]
    assert [answer.status_code for answer in answers] == [202] * count
    return [answer.json()["id"] for answer in answers]


async def everywhere(client: httpx.AsyncClient, run_id: str) -> Any:
    """What all answers say of this run's place, and that they say the same."""
    shown = (await client.get(f"/v1/runs/{run_id}")).json()["queue"]
    polled = (await client.get(f"/v1/runs/{run_id}/poll")).json()["queue"]
    listed = (await client.get("/v1/runs")).json()["runs"]
    [of_list] = [one["queue"] for one in listed if one["id"] == run_id]
    assert shown == polled == of_list
    return shown


async def test_every_answer_tells_the_place_in_line_until_the_run_is_taken(
    ada: httpx.AsyncClient, worker_engine: AsyncEngine
) -> None:
    runs = await submitted(ada, 3)
    for place, run_id in enumerate(runs, start=1):
        assert await everywhere(ada, run_id) == {"position": place, "exact": True, "reason": "turn"}
    await take(worker_engine, 2)
    assert await everywhere(ada, runs[0]) is None
    assert await everywhere(ada, runs[2]) == {"position": 1, "exact": True, "reason": "turn"}


async def test_a_place_that_moves_is_news_to_whoever_asks_again_and_one_that_stays_is_not(
    ada: httpx.AsyncClient, worker_engine: AsyncEngine
) -> None:
    first, second = await submitted(ada, 2)
    for path in (f"/v1/runs/{second}", f"/v1/runs/{second}/poll"):
        seen = {"If-None-Match": (await ada.get(path)).headers["etag"]}
        assert (await ada.get(path, headers=seen)).status_code == 304
        await take(worker_engine, 1)
        again = await ada.get(path, headers=seen)
        assert (again.status_code, (again.json()["queue"] or {}).get("position")) == (
            200,
            1 if path.endswith(second) else None,
        )
    assert first != second


async def test_one_run_too_many_in_line_is_refused_whole_and_says_when_to_come_again(
    api: Api, ada: httpx.AsyncClient, worker_engine: AsyncEngine
) -> None:
    key = {"Idempotency-Key": "the first"}
    accepted = await ada.post("/v1/runs", json=WISH, headers=key)
    await submitted(ada, 3)
    refused = await ada.post("/v1/runs", json=WISH, headers={"Idempotency-Key": "the fifth"})
    assert (refused.status_code, refused.json()["code"], refused.headers["retry-after"]) == (429, "queue-full", "10")
    assert "4 runs of yours" in refused.json()["detail"]
    listed = (await ada.get("/v1/runs", params={"status": "queued"})).json()["runs"]
    assert sum(one["queue"] is not None for one in listed) == 4
    replayed = await ada.post("/v1/runs", json=WISH, headers=key)
    assert (replayed.status_code, replayed.json()["id"]) == (202, accepted.json()["id"])
    async with api.client(subject="bob") as bob:
        await submitted(bob, 2)
        told = await bob.post("/v1/runs", json=WISH)
        assert (told.status_code, "6 runs of your tenant" in told.json()["detail"]) == (429, True)
    async with api.client(tenant="globex") as other:
        await submitted(other, 1)
    await take(worker_engine, 100)
    assert (await ada.post("/v1/runs", json=WISH, headers={"Idempotency-Key": "the fifth"})).status_code == 202
