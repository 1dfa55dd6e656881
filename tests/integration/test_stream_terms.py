"""What a stream is asked for and held to: some types only, a snapshot first, its age, and a database that is away."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from time import monotonic
from typing import Any
from uuid import UUID

import httpx
import pytest
import pytest_asyncio
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from eventstore.domain.events import BODIES, Retry
from ops.services import Endpoints
from tests.serving import DEADLINE_S, Api, Writer, database_away, register, serving, until
from tests.writing import result, started, token

SSE = {"Accept": "text/event-stream"}
LINES = {"Accept": "application/x-ndjson"}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def api(database_url: str, services: Endpoints, worker_engine: AsyncEngine) -> AsyncIterator[Api]:
    await register(worker_engine)
    async with serving(database_url, services.redis_url, keepalive_s=0.2, checkpoint_events=10) as api:
        yield api


@pytest_asyncio.fixture(loop_scope="session")
async def ada(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    async with api.client() as client:
        yield client


@pytest_asyncio.fixture(loop_scope="session")
async def writer(api: Api, worker_engine: AsyncEngine, redis: Redis) -> Writer:
    return Writer(worker_engine, await api.submit(), redis)


def stream_path(run_id: UUID) -> str:
    return f"/v1/runs/{run_id}/events"


def blocks(body: bytes) -> list[dict[str, str]]:
    """The fields of each frame."""
    return [
        dict(line.split(": ", 1) for line in block.split("\n") if ": " in line)
        for block in body.decode().split("\n\n")
        if "event: " in block
    ]


class Stream:
    """A stream that is being read."""

    def __init__(self) -> None:
        self.body = b""
        self.status = 0
        self.complete = False

    async def read(self, client: httpx.AsyncClient, path: str, headers: dict[str, str]) -> None:
        async with client.stream("GET", path, headers=headers) as answer:
            self.status = answer.status_code
            async for chunk in answer.aiter_raw():
                self.body += chunk
        self.complete = True

    @property
    def types(self) -> list[str]:
        return [block["event"] for block in blocks(self.body)]


@asynccontextmanager
async def reading(client: httpx.AsyncClient, path: str, **headers: str) -> AsyncIterator[Stream]:
    stream = Stream()
    task = asyncio.create_task(stream.read(client, path, {**SSE, **headers}))
    try:
        yield stream
    finally:
        task.cancel()
        await asyncio.wait([task])


# --- types


async def test_a_reader_of_some_types_is_given_those_its_place_now_and_then_and_the_end(
    ada: httpx.AsyncClient, writer: Writer
) -> None:
    await writer.append(started(), *[token("a") for _ in range(25)])
    async with reading(ada, stream_path(writer.run_id) + "?types=started") as stream:
        await until(lambda: stream.types == ["started", "checkpoint"])
        await writer.append(*[token("b") for _ in range(12)])
        await until(lambda: stream.types == ["started", "checkpoint", "checkpoint"])
        await writer.append(result())
        await until(lambda: stream.complete)
    frames = blocks(stream.body)
    assert [(frame["event"], frame["id"]) for frame in frames] == [
        ("started", "2"), ("checkpoint", "27"), ("checkpoint", "39"), ("result", "40"),
    ]  # fmt: skip
    assert json.loads(frames[1]["data"]) == {
        "seq": 27, "run_id": str(writer.run_id), "type": "checkpoint", "final": False, "data": {},
    }  # fmt: skip
    again = await ada.get(stream_path(writer.run_id) + "?types=started", headers={**SSE, "Last-Event-ID": "27"})
    assert [frame["event"] for frame in blocks(again.content)] == ["result"]
    over = await ada.get(stream_path(writer.run_id) + "?types=started&after=40", headers=SSE)
    assert over.status_code == 204


async def test_who_is_shown_drafts_is_told_what_is_taken_back(ada: httpx.AsyncClient, writer: Writer) -> None:
    retry = Retry(what="model", key="k", reason="r", message="m", superseded=[(3, 3)], attempt=1)
    await writer.append(started(), token("a"), retry, token("b"), result())
    told = await ada.get(stream_path(writer.run_id) + "?types=token", headers=LINES)
    assert [json.loads(line)["type"] for line in told.content.splitlines()] == ["token", "retry", "token", "result"]
    page = (
        await ada.get(stream_path(writer.run_id) + "?types=accepted", headers={"Accept": "application/json"})
    ).json()
    assert [event["type"] for event in page["events"]] == ["accepted", "result"]
    assert (page["next_after"], page["done"]) == (6, True)


@pytest.mark.parametrize("types", ["tokens", "", "token,", "token,checkpoint", "*", "x" * 500])
@pytest.mark.parametrize("accept", ["text/event-stream", "application/x-ndjson", "application/json"])
async def test_a_type_that_is_none_is_refused(ada: httpx.AsyncClient, writer: Writer, types: str, accept: str) -> None:
    answer = await ada.get(stream_path(writer.run_id), params={"types": types}, headers={"Accept": accept})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (400, "/query/types")
    if len(types) < 400:
        assert all(name in answer.json()["errors"][0]["detail"] for name in BODIES)


# --- snapshot


async def test_a_snapshot_takes_the_place_of_history(ada: httpx.AsyncClient, writer: Writer) -> None:
    await writer.append(started(), token("Clause "), token("4.1"))
    state = (await ada.get(f"/v1/runs/{writer.run_id}")).json()
    async with reading(ada, stream_path(writer.run_id) + "?snapshot=1") as stream:
        await until(lambda: stream.types == ["reset"])
        await writer.append(token(" again"), result())
        await until(lambda: stream.complete)
    assert stream.types == ["reset", "token", "result"]
    reset, *_ = blocks(stream.body)
    assert "id" not in reset
    told = json.loads(reset["data"])
    assert (told["type"], told["final"], told["run_id"]) == ("reset", False, str(writer.run_id))
    assert "seq" not in told
    assert told["data"]["seen"]["seq"] == 4
    assert told["data"]["partial"]["sections"] == {"comments": "Clause 4.1"}
    [draft] = told["data"].pop("drafts")
    assert draft == {"type": "token", "shared": {"section": "comments"}, "pieces": [[3, "Clause "], [4, "4.1"]]}
    assert told["data"] == {name: state[name] for name in told["data"]}


@pytest.mark.parametrize("where", ["parameter", "header"])
async def test_a_snapshot_is_that_of_the_place_that_the_reader_names(
    ada: httpx.AsyncClient, writer: Writer, where: str
) -> None:
    await writer.append(started(), token("Clause "), token("4.1"), result())
    query, headers = ("&after=3", {}) if where == "parameter" else ("&after=1", {"Last-Event-ID": "3"})
    told = await ada.get(stream_path(writer.run_id) + "?snapshot=1" + query, headers={**LINES, **headers})
    reset, *rest = map(json.loads, told.content.splitlines())
    assert reset["data"]["partial"]["sections"] == {"comments": "Clause "}
    assert [event["seq"] for event in rest] == [4, 5]


async def test_a_snapshot_of_a_run_that_has_ended_still_brings_the_end(ada: httpx.AsyncClient, writer: Writer) -> None:
    await writer.append(started(), token("a"), result())
    told = await asyncio.wait_for(ada.get(stream_path(writer.run_id) + "?snapshot=1", headers=SSE), DEADLINE_S)
    assert [frame["event"] for frame in blocks(told.content)] == ["reset", "result"]
    assert json.loads(blocks(told.content)[0]["data"])["data"]["result"] is None
    assert told.content.startswith(b"retry: 1000\nevent: reset\n")
    assert (await ada.get(stream_path(writer.run_id) + "?snapshot=1&after=4", headers=SSE)).status_code == 204


async def test_a_page_has_no_snapshot(ada: httpx.AsyncClient, writer: Writer) -> None:
    answer = await ada.get(stream_path(writer.run_id) + "?snapshot=1", headers={"Accept": "application/json"})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (400, "/query/snapshot")
    answer = await ada.get(stream_path(writer.run_id) + "?snapshot=perhaps", headers=SSE)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (400, "/query/snapshot")


# --- age


async def test_a_stream_ends_when_it_is_old_and_its_reader_goes_on(
    database_url: str, services: Endpoints, worker_engine: AsyncEngine, redis: Redis
) -> None:
    terms: dict[str, Any] = {"stream_age_s_max": 0.4, "stream_age_jitter": 0.5, "checkpoint_events": 1_000}
    async with serving(database_url, services.redis_url, **terms) as young, young.client() as client:
        run_id = await young.submit()
        await Writer(worker_engine, run_id, redis).append(started(), token("a"))
        whole = await asyncio.wait_for(client.get(stream_path(run_id), headers=SSE), DEADLINE_S)
        assert whole.status_code == 200
        assert whole.content.endswith(b"}\n\n")
        assert [block["id"] for block in blocks(whole.content)] == ["1", "2", "3"]
        again = await asyncio.wait_for(
            client.get(stream_path(run_id), headers={**SSE, "Last-Event-ID": "3"}), DEADLINE_S
        )
        assert (again.status_code, again.content) == (200, b"")
        some = await asyncio.wait_for(client.get(stream_path(run_id) + "?types=started", headers=SSE), DEADLINE_S)
        assert [(block["event"], block["id"]) for block in blocks(some.content)] == [
            ("started", "2"),
            ("checkpoint", "3"),
        ]
        figures = young.service.figures.registry
        ended = {"front": "sse", "outcome": "rotated"}
        assert figures.get_sample_value("runwire_api_streams_total", ended) == 3


# --- a database that is away when a reader comes


def forget_for_now(api: Api) -> None:
    """As when the keys were last looked up a while ago."""
    known = api.service.keys._known
    for key_id in known:
        known[key_id] = known[key_id]._replace(until=monotonic() - 1.0)


async def test_a_known_reader_who_comes_while_the_database_is_away_is_let_wait(
    api: Api, ada: httpx.AsyncClient, writer: Writer, services: Endpoints
) -> None:
    await writer.append(started(), token("a"))
    path = stream_path(writer.run_id)
    assert (await ada.get("/v1/runs")).status_code == 200
    forget_for_now(api)
    stranger = {"X-API-Key": "rw_0123456789abcdef_" + "0" * 64, "Authorization": ""}
    known = ada.headers["authorization"]
    forged = {"Authorization": known[:-1] + ("0" if known[-1] != "0" else "1")}
    async with AsyncExitStack() as held:
        async with database_away(services, api.database_url):
            late = await held.enter_async_context(reading(ada, path, **{"Last-Event-ID": "2"}))
            lines = await held.enter_async_context(reading(ada, path + "?snapshot=1", **LINES))
            await until(lambda: late.body.endswith(b":\n:\n"))
            await until(lambda: lines.status == 200)
            assert (late.status, late.types) == (200, [])
            assert (await ada.head(path)).status_code == 200
            assert (await ada.get(path, headers={"Last-Event-ID": "x"})).status_code == 400
            away = await ada.get(path, headers={"Accept": "application/json"})
            assert (away.status_code, away.headers["retry-after"]) == (503, "1")
            assert (await ada.get(path, headers=stranger)).status_code == 503
            assert (await asyncio.wait_for(ada.get(path, headers=forged), DEADLINE_S)).status_code == 503
        await writer.append(token("b"), result())
        await until(lambda: late.complete and lines.complete)
    assert late.types == ["token", "token", "result"]
    told = [json.loads(line)["type"] for line in lines.body.splitlines()]
    assert (told[0], told[-1]) == ("reset", "result")


async def test_who_may_not_read_after_all_is_let_go_without_an_event_and_told_when_it_returns(
    api: Api, writer: Writer, services: Endpoints, owner_engine: AsyncEngine
) -> None:
    await writer.append(started(), token("a"))
    async with api.client("operator", "leaver") as leaver, api.client("user", "bob") as bob:
        for client in (leaver, bob):
            assert (await client.get("/v1/runs")).status_code == 200
        async with owner_engine.begin() as connection:
            await connection.execute(text("UPDATE runwire.api_key SET revoked_at = now() WHERE subject = 'leaver'"))
        forget_for_now(api)
        path = stream_path(writer.run_id)
        async with AsyncExitStack() as held:
            async with database_away(services, api.database_url):
                streams = [
                    await held.enter_async_context(reading(leaver, path)),  # whose key is revoked
                    await held.enter_async_context(reading(bob, path)),  # whose run it is not
                    await held.enter_async_context(reading(leaver, path, **{"Last-Event-ID": "99"})),
                ]
                await until(lambda: all(stream.body.endswith(b":\n") for stream in streams))
            await until(lambda: all(stream.complete for stream in streams))
        assert [(stream.status, stream.body.replace(b":\n", b"")) for stream in streams] == [(200, b"")] * 3
        assert (await leaver.get(path)).status_code == 401
        assert (await bob.get(path)).status_code == 404


async def test_a_key_that_was_good_too_long_ago_opens_nothing(api: Api, services: Endpoints, writer: Writer) -> None:
    async with api.client("user", "eve") as eve:
        assert (await eve.get("/v1/runs")).status_code == 200
        known, key_id = api.service.keys._known, api.key("user", "eve").split("_")[1]
        known[key_id] = known[key_id]._replace(until=monotonic() - api.service.settings.key_outage_s - 1)
        async with database_away(services, api.database_url):
            answer = await asyncio.wait_for(eve.get(stream_path(writer.run_id)), DEADLINE_S)
            assert answer.status_code == 503
