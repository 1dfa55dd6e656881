"""Readers who take little or nothing, over real sockets: bounded, harmless to others, and never without a result."""

import asyncio
import json
import resource
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from eventstore.domain.events import Finding
from ops.services import Endpoints
from tests.serving import DEADLINE_S, Api, Writer, register, serving, until
from tests.writing import result, started, token

WORD = "word " * 40


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def api(database_url: str, services: Endpoints, worker_engine: AsyncEngine) -> AsyncIterator[Api]:
    await register(worker_engine)
    limits: dict[str, Any] = {"lag_events": 20, "lag_held_s": 0.2, "send_buffer_bytes": 4_096, "send_timeout_s": 8.0}
    async with serving(database_url, services.redis_url, keepalive_s=0.2, **limits) as api:
        yield api


@pytest_asyncio.fixture(loop_scope="session", autouse=True)
async def nobody_else(api: Api) -> None:
    """The readers of the test before are gone."""
    await until(lambda: len(api.service.waits) == 0)


class Slow:
    """A reader who takes what it is told to take, in small bites, and keeps the frames."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self.body = b""
        self.complete = False

    async def take(self, most: int) -> None:
        bite = await asyncio.wait_for(self._reader.read(most), DEADLINE_S)
        self.complete = not bite
        self.body += bite

    async def take_all(self) -> None:
        while not self.complete:
            await self.take(65_536)

    def frames(self) -> list[tuple[str, int | None, dict[str, Any]]]:
        """Type, id and envelope of each."""
        whole = self.body.partition(b"\r\n\r\n")[2].rpartition(b"\n\n")[0].replace(b"\n:\n", b"\n")
        told = []
        for block in whole.split(b"\n\n"):
            fields = dict(line.split(b": ", 1) for line in block.split(b"\n") if b": " in line)
            place = int(fields[b"id"]) if b"id" in fields else None
            told.append((fields[b"event"].decode(), place, json.loads(fields[b"data"])))
        return told


def asking(api: Api, run_id: UUID, query: str = "") -> bytes:
    headers = ("Host: x", "Connection: close", f"X-API-Key: {api.key()}", "", "")
    return "\r\n".join((f"GET /v1/runs/{run_id}/events{query} HTTP/1.1", *headers)).encode()


@asynccontextmanager
async def reading(api: Api, run_id: UUID, query: str = "") -> AsyncIterator[Slow]:
    """A stream over a socket that holds little."""
    host, port = api.address.removeprefix("http://").split(":")
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    connection.connect((host, int(port)))
    reader, writer = await asyncio.open_connection(sock=connection, limit=1_024)
    writer.write(asking(api, run_id, query))
    try:
        yield Slow(reader)
    finally:
        writer.transport.abort()
        with suppress(ConnectionError):
            await writer.wait_closed()


def finding(number: int) -> Finding:
    return Finding(item=f"clause {number}", value={"n": number}, key=f"k{number}", place=number, args="00")


async def test_a_reader_who_lags_has_its_draft_text_gathered_and_every_finding_and_the_result_as_they_are(
    api: Api, worker_engine: AsyncEngine, redis: Redis
) -> None:
    run_id = await api.submit()
    writer = Writer(worker_engine, run_id, redis)
    await writer.append(started())
    async with reading(api, run_id) as slow:
        await until(lambda: len(api.service.waits) == 1)
        [wait] = api.service.waits._open
        for number in range(60):
            await writer.append(*[token(f"{number}.{part} {WORD}") for part in range(20)], finding(number))
        while wait.held_s < 0.3:
            await until(lambda: wait.sending_since is not None or wait.held_s >= 0.3)
            await until(lambda: wait.sending_since is None or wait.clock() - wait.sending_since > 0.3)
            await slow.take(20_000)
        await writer.append(result())
        await slow.take_all()
    frames = slow.frames()
    lagging = [told["data"] for type_, _, told in frames if type_ == "lagging"]
    assert lagging
    assert all(place is None for type_, place, _ in frames if type_ == "lagging")
    assert [told["data"]["item"] for type_, _, told in frames if type_ == "finding"] == [
        f"clause {number}" for number in range(60)
    ]
    assert frames[-1][0] == "result"
    assert [place for _, place, _ in frames if place] == sorted({place for _, place, _ in frames if place})
    texts = {told["seq"]: told["data"]["text"] for type_, _, told in frames if type_ == "token"}
    texts |= {seq: text for told in lagging for draft in told["drafts"] for seq, text in draft["pieces"]}
    assert "".join(texts[seq] for seq in sorted(texts)) == "".join(
        f"{number}.{part} {WORD}" for number in range(60) for part in range(20)
    )
    assert len(texts) == 1_200
    figures = api.service.figures.registry
    assert figures.get_sample_value("runwire_api_streams_conflated_total", {"front": "sse"}) == 1


async def test_a_fast_reader_of_a_long_history_is_given_every_event_as_it_is(
    api: Api, worker_engine: AsyncEngine, redis: Redis
) -> None:
    run_id = await api.submit()
    writer = Writer(worker_engine, run_id, redis)
    await writer.append(started())
    for _ in range(4):
        await writer.append(*[token(WORD) for _ in range(400)])
    async with reading(api, run_id) as quick:
        while quick.body.count(b"\nevent: token\n") < 1_600:
            await quick.take(65_536)
        await writer.append(result())
        await quick.take_all()
    assert [place for _, place, _ in quick.frames()] == list(range(1, 1_604))


async def test_whoever_reads_a_run_that_had_ended_is_given_all_of_it_however_slowly_it_reads(
    api: Api, worker_engine: AsyncEngine, redis: Redis
) -> None:
    run_id = await api.submit()
    writer = Writer(worker_engine, run_id, redis)
    await writer.append(started())
    for _ in range(3):
        await writer.append(*[token(WORD) for _ in range(300)])
    await writer.append(result())
    async with reading(api, run_id) as slow:
        await until(lambda: len(api.service.waits) == 1)
        [wait] = api.service.waits._open
        await until(lambda: wait.sending_since is not None and wait.clock() - wait.sending_since > 0.3)
        await slow.take_all()
    assert wait.held_s > 0.3
    assert [place for _, place, _ in slow.frames()] == list(range(1, 904))


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
async def test_curl_at_a_kilobyte_a_second_slows_nobody_and_goes_on_where_it_was(
    api: Api, worker_engine: AsyncEngine, redis: Redis
) -> None:
    run_id = await api.submit()
    writer = Writer(worker_engine, run_id, redis)
    await writer.append(started())
    address, key = f"{api.address}/v1/runs/{run_id}/events", f"X-API-Key: {api.key()}"
    curl = await asyncio.create_subprocess_exec(
        "curl", "-sN", "--limit-rate", "1k", "-H", key, address, stdout=asyncio.subprocess.PIPE
    )
    assert curl.stdout is not None
    try:
        first = await asyncio.wait_for(curl.stdout.read(1_024), DEADLINE_S)
        [wait] = api.service.waits._open
        for _ in range(10):
            await writer.append(*[token(WORD) for _ in range(200)])
        await writer.append(result())
        async with reading(api, run_id) as neighbour:
            await neighbour.take_all()
        assert neighbour.frames()[-1][0] == "result"
        assert neighbour.body.count(b"\nevent: token\n") == 2_000
        await until(lambda: wait.sending_since is not None)  # it still reads, and we wait for it
    finally:
        curl.kill()
        rest, _ = await curl.communicate()
    whole = Slow(asyncio.StreamReader())
    whole.body = b"\r\n\r\n" + (first + rest).rpartition(b"\n\n")[0] + b"\n\n"
    last = max(place or 0 for _, place, _ in whole.frames())
    async with reading(api, run_id, f"?after={last}") as again:
        await again.take_all()
    places = [place for _, place, _ in [*whole.frames(), *again.frames()] if place]
    assert places == list(range(1, 2_004))


async def test_a_process_that_stops_ends_a_slow_readers_stream_after_a_whole_event_and_soon(
    database_url: str, services: Endpoints, worker_engine: AsyncEngine, redis: Redis
) -> None:
    small: dict[str, Any] = {"send_buffer_bytes": 4_096, "send_bytes": 4_096}
    async with serving(database_url, services.redis_url, **small) as api:
        run_id = await api.submit()
        writer = Writer(worker_engine, run_id, redis)
        await writer.append(started(), *[token(WORD) for _ in range(490)])
        async with reading(api, run_id) as slow:
            await until(lambda: any(wait.sending_since is not None for wait in api.service.waits._open))
            api.server.stop()
            await slow.take_all()
        assert slow.body.endswith(b"}\n\n\r\n0\r\n\r\n")
        places = [place for _, place, _ in slow.frames()]
        assert places == list(range(1, len(places) + 1))
        assert len(places) < 490, "the rest of a long page is for the next process"


async def test_a_reader_whose_machine_vanished_is_dropped_in_time(
    api: Api, worker_engine: AsyncEngine, redis: Redis
) -> None:
    """Half open: it has the connection, takes nothing, and never says that it is gone."""
    run_id = await api.submit()
    writer = Writer(worker_engine, run_id, redis)
    await writer.append(started())
    async with reading(api, run_id):
        await until(lambda: len(api.service.waits) == 1)
        api.service.waits._send_timeout_s = 0.5
        try:
            for _ in range(4):
                await writer.append(*[token("x" * 20_000) for _ in range(10)])
            await until(lambda: len(api.service.waits) == 0)
        finally:
            api.service.waits._send_timeout_s = 8.0
    figures = api.service.figures.registry
    assert figures.get_sample_value("runwire_api_streams_total", {"front": "sse", "outcome": "cut"}) == 1


async def test_a_thousand_idle_readers_cost_little_and_each_gets_the_end(
    database_url: str, services: Endpoints, worker_engine: AsyncEngine, redis: Redis
) -> None:
    count = min(1_000, (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 300) // 2)
    assert count >= 300, "the limit of open files leaves no room for this test"
    readers = []
    await register(worker_engine)
    async with serving(database_url, services.redis_url) as api:
        run_id = await api.submit()
        writer = Writer(worker_engine, run_id, redis)
        await writer.append(started())
        host, port = api.address.removeprefix("http://").split(":")
        ask = asking(api, run_id)
        try:
            for _ in range(count):
                reader, sending = await asyncio.open_connection(host, int(port))
                readers.append((reader, sending))
                sending.write(ask)
            for reader, _ in readers:
                await asyncio.wait_for(reader.readuntil(b"event: started\n"), DEADLINE_S)
            # What is held for an idle reader is its place: all share one tail and its ring, and no frame waits for it.
            waits, [tail] = api.service.waits._open, api.service.tails._tails.values()
            assert (len(waits), tail.readers) == (count, count)
            assert all(wait.sending_since is None for wait in waits)
            await writer.append(token("a"), result())
            assert len(tail._ring) <= 4
            for reader, _ in readers:
                end = await asyncio.wait_for(reader.read(), DEADLINE_S)
                assert end.count(b"\nevent: result\n") == 1
                assert end.endswith(b"}\n\n\r\n0\r\n\r\n")
            await until(lambda: not waits)
            assert not api.service.tails._tails
        finally:
            for _, sending in readers:
                sending.transport.abort()
