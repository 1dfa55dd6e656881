"""What readers live through: a process that stops, Redis or Postgres away, a neighbour who does not read."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from uuid import UUID

import httpx
import pytest_asyncio
from redis.asyncio import Redis
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from ops.services import Endpoints
from tests.serving import DEADLINE_S, NOWHERE, Api, Writer, database_away, register, serving, until
from tests.writing import result, started, token

ROOT = Path(__file__).resolve().parents[2]


@pytest_asyncio.fixture(scope="module", loop_scope="session", autouse=True)
async def registered(worker_engine: AsyncEngine) -> None:
    await register(worker_engine)


class Stream:
    """A stream that is being read."""

    def __init__(self) -> None:
        self.body = bytearray()
        self.ended_cleanly = False

    def has(self, *types: str) -> bool:
        return all(f"event: {type_}\n".encode() in self.body for type_ in types)

    async def read(self, answer: httpx.Response) -> None:
        async for chunk in answer.aiter_raw():
            self.body += chunk
        self.ended_cleanly = True


@asynccontextmanager
async def streaming(address: str, key: str, run_id: UUID, after: int = 0) -> AsyncIterator[Stream]:
    headers = {"Authorization": f"Bearer {key}"}
    async with (
        httpx.AsyncClient(base_url=address, headers=headers, timeout=DEADLINE_S) as client,
        client.stream("GET", f"/v1/runs/{run_id}/events", params={"after": after}) as answer,
    ):
        assert answer.status_code == 200
        stream = Stream()
        task = asyncio.create_task(stream.read(answer))
        try:
            yield stream
        finally:
            task.cancel()
            await asyncio.wait([task])


async def test_a_process_that_stops_ends_every_stream_after_a_whole_event(
    database_url: str, services: Endpoints, worker_engine: AsyncEngine
) -> None:
    async with serving(database_url, services.redis_url) as api:
        run_id = await api.submit()
        await Writer(worker_engine, run_id).append(started(), token("a"))
        async with streaming(api.address, api.key(), run_id) as stream, api.client() as client:
            await until(lambda: stream.has("accepted", "started", "token"))
            polling = asyncio.create_task(client.get(f"/v1/runs/{run_id}/poll?after=3&wait=20"))
            await until(lambda: len(api.service.waits) == 2)
            api.server.stop()
            await until(lambda: stream.ended_cleanly)
            assert stream.body.endswith(b"}\n\n")
            assert (await asyncio.wait_for(polling, 5)).json()["events"] == []


async def test_a_reader_goes_on_at_another_process(
    database_url: str, services: Endpoints, worker_engine: AsyncEngine, redis: Redis
) -> None:
    async with serving(database_url, services.redis_url) as second:
        async with serving(database_url, services.redis_url) as first:
            run_id = await first.submit()
            writer = Writer(worker_engine, run_id, redis)
            await writer.append(started())
            async with streaming(first.address, first.key(), run_id) as before:
                await until(lambda: before.has("started"))
                first.server.stop()
                await until(lambda: before.ended_cleanly)
        async with streaming(second.address, second.key(), run_id, after=2) as after:
            await writer.append(token("a"), result())
            await until(lambda: after.ended_cleanly)
    assert [line for line in after.body.split(b"\n") if line.startswith(b"id: ")] == [b"id: 3", b"id: 4"]


async def test_without_redis_a_stream_delivers_by_its_timer(database_url: str, worker_engine: AsyncEngine) -> None:
    async with serving(database_url, NOWHERE) as api, api.client() as client:
        run_id = await api.submit()
        writer = Writer(worker_engine, run_id)
        assert (await client.get("/readyz")).json() == {
            "ready": True,
            "postgres": "ok",
            "redis": "away",
            "draining": False,
        }
        async with streaming(api.address, api.key(), run_id) as stream:
            await until(lambda: stream.has("accepted"))
            await writer.append(started(), token("a"))
            await until(lambda: stream.has("started", "token"))
            await writer.append(result())
            await until(lambda: stream.ended_cleanly)
        assert stream.has("result")


async def test_a_stream_outlives_an_outage_of_the_database_and_requests_are_told_of_it(
    database_url: str, services: Endpoints, worker_engine: AsyncEngine, redis: Redis
) -> None:
    async with serving(database_url, services.redis_url, keepalive_s=0.2) as api, api.client() as client:
        run_id = await api.submit()
        writer = Writer(worker_engine, run_id, redis)
        await writer.append(started())
        async with streaming(api.address, api.key(), run_id) as stream:
            await until(lambda: stream.has("started"))
            async with database_away(services, database_url):
                calls = [("GET", f"/v1/runs/{run_id}/poll"), ("GET", "/v1/runs"), ("DELETE", f"/v1/runs/{run_id}")]
                for method, path in calls:
                    away = await client.request(method, path)
                    assert (away.status_code, away.json()["code"]) == (503, "log-unavailable")
                    assert away.headers["retry-after"] == "1"
                assert (await client.get("/readyz")).json()["postgres"] == "away"
                assert (await client.get("/healthz")).status_code == 200
                await until(lambda: stream.body.endswith(b":\n:\n"))
            await writer.append(token("a"), result())
            await until(lambda: stream.ended_cleanly)
    assert stream.has("token", "result")


async def test_a_reader_that_does_not_read_is_cut_and_its_neighbour_reads_on(
    database_url: str, services: Endpoints, worker_engine: AsyncEngine, redis: Redis
) -> None:
    async with serving(database_url, services.redis_url, send_timeout_s=1.0) as api:
        run_id = await api.submit()
        writer = Writer(worker_engine, run_id, redis)
        await writer.append(started())
        for _ in range(20):
            await writer.append(*[token("x" * 60_000) for _ in range(10)])
        async with not_reading(api, run_id) as (reader, _):
            await until(lambda: len(api.service.waits) == 1)
            await until(lambda: len(api.service.waits) == 0)
            async with streaming(api.address, api.key(), run_id) as stream:
                await writer.append(result())
                await until(lambda: stream.ended_cleanly)
            assert stream.body.count(b"\nevent: token\n") == 200
            came = await asyncio.wait_for(reader.read(-1), DEADLINE_S)
        assert not came.endswith(b"0\r\n\r\n"), "what was cut must not look finished"
        assert came.count(b"\nevent: token\n") < 200


@asynccontextmanager
async def not_reading(api: Api, run_id: UUID) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A reader who opens a stream and takes nothing of it."""
    host, port = api.address.removeprefix("http://").split(":")
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect((host, int(port)))
    reader, writer = await asyncio.open_connection(sock=connection, limit=1024)
    writer.write(f"GET /v1/runs/{run_id}/events HTTP/1.1\r\nHost: x\r\nX-API-Key: {api.key()}\r\n\r\n".encode())
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with suppress(ConnectionError):
            await writer.wait_closed()


# --- the process


@asynccontextmanager
async def process(**environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`python -m api` with this environment."""
    started_ = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "api", cwd=ROOT, env={**os.environ, **environment}, stderr=asyncio.subprocess.PIPE
    )
    try:
        yield started_
    finally:
        if started_.returncode is None:
            started_.kill()
        await started_.communicate()


async def test_a_signal_stops_the_process_cleanly_and_its_streams_too(
    database_url: str, services: Endpoints, worker_engine: AsyncEngine
) -> None:
    async with serving(database_url, services.redis_url) as api:
        run_id, key = await api.submit(), api.key()
    await Writer(worker_engine, run_id).append(started())
    where = {"RUNWIRE_DATABASE_URL": database_url, "RUNWIRE_REDIS_URL": services.redis_url, "RUNWIRE_PORT": "0"}
    async with process(**where) as api_process:
        assert api_process.stderr is not None
        listening = json.loads(await asyncio.wait_for(api_process.stderr.readline(), DEADLINE_S))
        async with streaming(listening["addresses"][0], key, run_id) as stream:
            await until(lambda: stream.has("started"))
            api_process.send_signal(signal.SIGTERM)
            await until(lambda: stream.ended_cleanly)
        assert stream.body.endswith(b"}\n\n")
        _, said = await asyncio.wait_for(api_process.communicate(), DEADLINE_S)
        assert api_process.returncode == 0
    lines = [json.loads(line) for line in said.splitlines()]
    assert [line["path"] for line in lines if line["event"] == "request"] == [f"/v1/runs/{run_id}/events"]
    assert key not in said.decode()


async def test_what_stops_the_start_is_one_line_and_an_exit_code(
    database_url: str, services: Endpoints, tmp_path: Path
) -> None:
    (tmp_path / "a.toml").write_text("workflow = 5\n")
    taken = socket.create_server(("127.0.0.1", 0))
    where = {"RUNWIRE_DATABASE_URL": database_url, "RUNWIRE_REDIS_URL": services.redis_url, "RUNWIRE_PORT": "0"}
    empty = make_url(database_url).set(database="postgres").render_as_string(hide_password=False)
    for change, told in (
        ({"RUNWIRE_POLICIES": str(tmp_path)}, "a.toml: workflow: "),
        ({"RUNWIRE_PORT": str(taken.getsockname()[1])}, "Address already in use"),
        ({"RUNWIRE_DATABASE_URL": "postgresql:///x?host=/nowhere"}, "the database cannot be reached"),
        ({"RUNWIRE_DATABASE_URL": empty}, "migrate"),
        ({"RUNWIRE_KEEPALIVE_S": "0"}, "RUNWIRE_KEEPALIVE_S: "),
    ):
        async with process(**{**where, **change}) as failing:
            _, said = await asyncio.wait_for(failing.communicate(), DEADLINE_S)
        assert failing.returncode == 1
        [line] = said.decode().splitlines()
        assert line.startswith("runwire api: ")
        assert told in line
    taken.close()
