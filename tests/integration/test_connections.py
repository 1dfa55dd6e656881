"""What one connection may owe the server and cost it: on real sockets, with small limits."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import pytest_asyncio
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine
from websockets.asyncio.client import connect

from ops.services import Endpoints
from tests.serving import DEADLINE_S, Api, Writer, register, serving, until
from tests.writing import started, token

HEAD = 4_096
GET = b"GET /v1/runs HTTP/1.1\r\nHost: x\r\n"
POST = b"POST /v1/runs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
WAITS = {
    "head_timeout_s": 0.3,
    "body_timeout_s": 0.4,
    "idle_timeout_s": 1,
    "send_timeout_s": 0.5,
    "unheard_timeout_s": 0.8,
    "keepalive_s": 0.2,
}
SIZES = {"head_bytes_max": HEAD, "head_fields_max": 20, "connections_max": 24, "caller_streams_max": 24}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def api(database_url: str, services: Endpoints, worker_engine: AsyncEngine) -> AsyncIterator[Api]:
    await register(worker_engine)
    async with serving(database_url, services.redis_url, **WAITS, **SIZES) as api:
        yield api


@dataclass
class Line:
    """One connection, and what came over it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    came: bytes = b""
    over: bool = False

    async def listen(self) -> None:
        try:
            while data := await self.reader.read(65_536):
                self.came += data
        except ConnectionError:
            pass
        self.over = True

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def is_over(self) -> bool:
        return self.over

    def has(self, what: bytes) -> Callable[[], bool]:
        return lambda: what in self.came


@asynccontextmanager
async def line(api: Api) -> AsyncIterator[Line]:
    host, port = api.address.removeprefix("http://").split(":")
    one = Line(*await asyncio.open_connection(host, int(port)))
    listening = asyncio.create_task(one.listen())
    try:
        yield one
    finally:
        listening.cancel()
        await asyncio.wait([listening])
        one.writer.transport.abort()


def problem_in(came: bytes) -> tuple[int, str]:
    """The problem that an answer tells."""
    head, _, body = came.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head
    assert b"connection: close" in head
    return int(head.split(b" ")[1]), json.loads(body)["code"]


def answered(one: Line, count: int) -> bool:
    return one.came.count(b"HTTP/1.1 401") == count


def at_least(connections: set[Any], count: int) -> bool:
    return len(connections) >= count


async def refused(one: Line) -> tuple[int, str]:
    """How it ends by itself, in bounded time."""
    await until(lambda: one.over)
    return problem_in(one.came)


# --- time


async def test_a_head_that_comes_by_drops_is_refused_in_time(api: Api) -> None:
    async with line(api) as one, asyncio.timeout(DEADLINE_S):
        await one.say(GET)
        sent = 0
        while not one.came:  # one byte for each turn of a request of somebody else's
            await one.say(b"X: y\r\n"[sent % 6 : sent % 6 + 1] if sent < 60 else b"z")
            sent += 1
            async with api.client() as client:
                await client.get("/healthz")
        assert await refused(one) == (408, "too-slow")


async def test_a_connection_that_says_nothing_is_closed_without_an_answer(api: Api) -> None:
    async with line(api) as one:
        await until(lambda: one.over)
        assert one.came == b""
    async with line(api) as one:
        await one.say(b"\r\n")
        await until(lambda: one.over)


@pytest.mark.parametrize("form", [b"Content-Length: 100\r\n", b"Transfer-Encoding: chunked\r\n"])
async def test_a_body_that_does_not_come_is_refused_in_time(api: Api, form: bytes) -> None:
    async with line(api) as one:
        await one.say(POST + form + b"Authorization: Bearer " + api.key().encode() + b"\r\n\r\n5\r\n{")
        assert await refused(one) == (408, "too-slow")
    async with api.client() as client:
        assert (await client.get("/v1/runs")).status_code == 200


async def test_a_kept_connection_without_a_request_is_closed_and_one_with_requests_is_kept(api: Api) -> None:
    async with line(api) as one:
        for count in range(1, 4):
            await one.say(GET + b"\r\n")
            await until(partial(answered, one, count))
        await until(lambda: one.over)


async def test_a_stream_outlives_the_time_for_heads_and_bodies(
    api: Api, worker_engine: AsyncEngine, redis: Redis
) -> None:
    writer = Writer(worker_engine, await api.submit(), redis)
    asking = f"GET /v1/runs/{writer.run_id}/events HTTP/1.1\r\nHost: x\r\nX-API-Key: {api.key()}\r\n\r\n"
    async with line(api) as one, line(api) as other:
        await one.say(asking.encode() + b"\r\n")  # an old client's empty line behind its request
        await until(lambda: one.came.count(b"\n:\n") >= 1)
        for _ in range(5):  # that long is a head, and a body, waited for, by the same watch
            async with line(api) as silent:
                await until(silent.is_over)
        await writer.append(started(), token("a"))
        await until(one.has(b"event: token"))
        assert not other.came


async def test_a_socket_whose_page_sends_no_key_is_closed_in_time(api: Api) -> None:
    address = api.address.replace("http", "ws", 1) + "/v1/runs/x/ws"
    async with asyncio.timeout(DEADLINE_S), connect(address) as connection:
        told = json.loads(await connection.recv())
        await connection.wait_closed()
    assert (told["problem"]["code"], connection.close_code) == ("not-authenticated", 4401)


async def test_a_socket_that_answers_no_ping_is_cut(api: Api) -> None:
    run_id, waits = await api.submit(), api.service.waits
    handshake = (
        f"GET /v1/runs/{run_id}/ws HTTP/1.1\r\nHost: x\r\nX-API-Key: {api.key()}\r\nConnection: Upgrade\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    before = len(waits)
    async with line(api) as one:
        await one.say(handshake.encode())
        await until(lambda: len(waits) == before + 1)
        await until(lambda: one.over)
        await until(lambda: len(waits) == before)
        assert b"\x89\x04" in one.came  # it was asked


async def test_a_socket_that_takes_nothing_is_cut_and_its_neighbour_reads_on(
    api: Api, worker_engine: AsyncEngine, redis: Redis
) -> None:
    writer = Writer(worker_engine, await api.submit(), redis)
    await writer.append(started())
    for _ in range(4):
        await writer.append(*[token("word " * 1_000) for _ in range(100)])
    address = f"{api.address.replace('http', 'ws', 1)}/v1/runs/{writer.run_id}/ws"
    key, waits, before = {"X-API-Key": api.key()}, api.service.waits, await cuts(api)
    async with asyncio.timeout(DEADLINE_S), connect(address, additional_headers=key, compression=None) as deaf:
        deaf.transport.pause_reading()
        await until(lambda: len(waits) == 1)
        [own] = [one for one in api.server.server_state.connections if hasattr(one, "hold")]
        async with connect(address, additional_headers=key, compression=None, max_size=None) as neighbour:
            for seq in range(1, 403):
                assert json.loads(await neighbour.recv())["seq"] == seq
            assert own.transport.get_write_buffer_size() < 1_000_000
            await until(lambda: len(waits) == 1)  # it was cut; the neighbour stays
            await writer.append(token("b"))
            assert json.loads(await neighbour.recv())["seq"] == 403
        deaf.transport.abort()
    assert await cuts(api) == before + 1


async def cuts(api: Api) -> float:
    async with api.client() as client:
        figures = (await client.get("/metrics")).text.splitlines()
    [told] = [one for one in figures if 'runwire_api_streams_total{front="ws",outcome="cut"}' in one]
    return float(told.split()[-1])


# --- size


@pytest.mark.parametrize(
    "head",
    [
        GET + b"X: " + b"x" * HEAD + b"\r\n\r\n",
        GET + b"X: " + b"x" * HEAD,
        b"GET /" + b"x" * HEAD + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /" + b"x" * HEAD,
        GET + b"x" * HEAD,
        GET + b"".join(b"X-%d: x\r\n" % number for number in range(30)) + b"\r\n",
        GET + b"X: " + b"x" * 1_000_000,
    ],
    ids=["value", "open value", "path", "open path", "name", "many", "a megabyte"],
)
@pytest.mark.parametrize("pieces", [1, 7])
async def test_a_head_that_is_too_large_is_refused_however_it_comes(api: Api, head: bytes, pieces: int) -> None:
    async with line(api) as one:
        size = len(head) // pieces + 1
        for start in range(0, len(head), size):
            await one.say(head[start : start + size])
        assert await refused(one) == (431, "head-too-large")


async def test_what_stands_around_a_body_is_bounded_too(api: Api) -> None:
    head = POST + b"Transfer-Encoding: chunked\r\nAuthorization: Bearer " + api.key().encode() + b"\r\n\r\n"
    for wrapping in (b"1;", b"1\r\n{\r\n0\r\nTrailer: "):
        async with line(api) as one:
            await one.say(head + wrapping + b"x" * 1_000_000)  # more than one read takes
            assert await refused(one) == (431, "head-too-large")


async def test_a_body_in_many_small_chunks_is_taken(api: Api) -> None:
    body = json.dumps({"workflow": "contract_review", "input": {"text": "Clause 1" * 100}}).encode()
    head = POST + b"Transfer-Encoding: chunked\r\nAuthorization: Bearer " + api.key().encode() + b"\r\n\r\n"
    async with line(api) as one:
        await one.say(head + b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n")
        await until(one.has(b"HTTP/1.1 202"))


async def test_a_large_head_behind_a_good_request_does_not_reach_the_answer_before_it(api: Api) -> None:
    async with line(api) as one:
        await one.say(GET + b"\r\n")
        await until(one.has(b"HTTP/1.1 401"))
        await one.say(GET + b"X: " + b"x" * HEAD)
        await until(lambda: one.over)
        assert problem_in(one.came[one.came.index(b"HTTP/1.1 431") :]) == (431, "head-too-large")


async def test_a_handshake_that_websockets_cannot_read_is_answered(api: Api) -> None:
    async with line(api) as one:
        await one.say(GET.replace(b"/v1/runs", b"/v1/runs/x/ws") + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        assert await refused(one) == (400, "bad-request")


# --- number


async def test_a_connection_too_many_is_told_so_and_the_others_are_served(api: Api) -> None:
    lines: list[Any] = []
    connections = api.server.server_state.connections
    await until(lambda: not connections)
    try:
        async with asyncio.timeout(DEADLINE_S):
            for count in range(1, 25):
                lines.append(opened := line(api))
                one = await opened.__aenter__()
                await one.say(GET)  # half a head, so that it stays a while
                await until(partial(at_least, connections, count))
            async with line(api) as one:
                assert await refused(one) == (503, "too-many-connections")
                assert b"retry-after: 1\r\n" in one.came
    finally:
        for opened in lines:
            await opened.__aexit__(None, None, None)
    await until(lambda: len(connections) < 24)
    async with api.client() as client:
        assert (await client.get("/v1/runs")).status_code == 200
        figures = (await client.get("/metrics")).text
    for limit in ("connections", "head", "time"):
        [told] = [one for one in figures.splitlines() if f'runwire_api_refused_total{{limit="{limit}"}}' in one]
        assert float(told.split()[-1]) >= 1
