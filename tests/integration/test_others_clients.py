"""Clients that others wrote, on a real stream: all of a run, once, over a cut, through silence, to a clean end."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from typing import Any

import aiohttp
import httpx
import orjson
import pytest
import pytest_asyncio
import sseclient
import urllib3
from httpx_sse import SSEError, aconnect_sse
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from ops.services import Endpoints
from tests.meddling import Proxy, meddling
from tests.serving import DEADLINE_S, Api, Writer, register, serving, until
from tests.writing import result, started, token

Headers = dict[str, str]
Take = Callable[[str | None, str, str], None]
# Reads one connection to its end and tells each event; False when the connection broke.
Reader = Callable[[str, Headers, Take], Coroutine[Any, Any, bool]]
SILENCE = re.compile(rb"\r\n:\n\r\n")


async def httpx_sse(url: str, headers: Headers, take: Take) -> bool:
    try:
        async with (
            httpx.AsyncClient(timeout=DEADLINE_S) as client,
            aconnect_sse(client, "GET", url, headers=headers) as source,
        ):
            async for event in source.aiter_sse():
                take(event.id, event.event, event.data)
    except httpx.RemoteProtocolError:
        return False
    return True


async def sseclient_py(url: str, headers: Headers, take: Take) -> bool:
    return await asyncio.to_thread(_sseclient_py, url, headers, take)


def _sseclient_py(url: str, headers: Headers, take: Take) -> bool:
    with urllib3.PoolManager(timeout=DEADLINE_S) as pool:
        answer = pool.request("GET", url, headers=headers, preload_content=False)
        try:
            for event in sseclient.SSEClient(answer).events():
                take(event.id, event.event, event.data)
        except urllib3.exceptions.ProtocolError:
            return False
        finally:
            answer.close()
    return True


async def aiohttp_lines(url: str, headers: Headers, take: Take) -> bool:
    """Line by line, as programs that know no library for it read a stream."""
    fields: Headers = {}
    try:
        async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
            async for raw in answer.content:
                name, colon, value = raw.decode().rstrip("\n").partition(": ")
                if colon:
                    fields[name] = value
                elif not raw.strip():
                    take(fields.get("id"), fields["event"], fields["data"])
                    fields = {}
    except aiohttp.ClientPayloadError:
        return False
    return True


async def curl(url: str, headers: Headers, take: Take) -> bool:
    """The program, and its output cut at empty lines."""
    named = [part for name, value in headers.items() for part in ("-H", f"{name}: {value}")]
    child = await asyncio.create_subprocess_exec(
        "curl", "-sSN", *named, url, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    assert child.stdout is not None
    said = b""
    while piece := await child.stdout.read(65_536):
        *whole, said = (said + piece).split(b"\n\n")
        for block in whole:
            fields = dict(line.split(": ", 1) for line in block.decode().splitlines() if line != ":")
            take(fields.get("id"), fields["event"], fields["data"])
    code = await child.wait()
    assert code in {0, 18}, code
    return code == 0


READERS: list[Reader] = [httpx_sse, sseclient_py, aiohttp_lines, curl]
EACH = pytest.mark.parametrize(
    "reader",
    [pytest.param(one, marks=pytest.mark.program("curl")) if one is curl else one for one in READERS],
    ids=lambda one: one.__name__,
)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def api(database_url: str, services: Endpoints, worker_engine: AsyncEngine) -> AsyncIterator[Api]:
    await register(worker_engine)
    async with serving(database_url, services.redis_url, keepalive_s=0.05, retry_ms=10) as api:
        yield api


@pytest_asyncio.fixture(loop_scope="session")
async def proxy(api: Api) -> AsyncIterator[Proxy]:
    async with meddling(api.address) as proxy:
        yield proxy


class Heard:
    """What one client made of a run, over all of its connections."""

    def __init__(self) -> None:
        self.seqs: list[int] = []
        self.last_id = ""
        self.types: list[str] = []

    def take(self, id_: str | None, event: str, data: str) -> None:
        told = orjson.loads(data)
        assert (id_, event) == (str(told["seq"]), told["type"]), "an event that is not in the log"
        self.seqs.append(told["seq"])
        self.types.append(event)
        self.last_id = id_ or self.last_id


@EACH
async def test_a_live_run_is_heard_whole_over_a_cut_and_through_silence_to_a_clean_end(
    api: Api, proxy: Proxy, worker_engine: AsyncEngine, redis: Redis, reader: Reader
) -> None:
    run = Writer(worker_engine, await api.submit(), redis)
    url = f"{proxy.address}/v1/runs/{run.run_id}/events"
    key = {"Authorization": f"Bearer {api.key()}", "Accept": "text/event-stream"}
    heard = Heard()
    reading = asyncio.create_task(reader(url, dict(key), heard.take))
    await until(lambda: reading.done() or heard.seqs)
    await run.append(started(), token("é – 契"))
    await until(lambda: reading.done() or heard.seqs[-1] == 3)
    proxy.cut()
    assert not await asyncio.wait_for(reading, DEADLINE_S), "it took a connection that was cut for a whole one"
    assert heard.seqs == [1, 2, 3]
    await run.append(token("b"))
    reading = asyncio.create_task(reader(url, {**key, "Last-Event-ID": heard.last_id}, heard.take))
    await until(lambda: reading.done() or (len(proxy.heard) > 1 and len(SILENCE.findall(proxy.heard[1])) >= 3))
    await run.append(token("c"))
    await until(lambda: reading.done() or heard.seqs[-1] == 5)
    await run.append(result())
    assert await asyncio.wait_for(reading, DEADLINE_S), "the end was not clean"
    assert heard.seqs == [1, 2, 3, 4, 5, 6]
    assert heard.types[-1] == "result"


@EACH
async def test_whoever_comes_back_after_the_end_is_told_that_there_is_nothing_more(
    api: Api, worker_engine: AsyncEngine, redis: Redis, reader: Reader
) -> None:
    run = Writer(worker_engine, await api.submit(), redis)
    last = await run.append(started(), result())
    url = f"{api.address}/v1/runs/{run.run_id}/events"
    headers = {"Authorization": f"Bearer {api.key()}", "Accept": "text/event-stream", "Last-Event-ID": str(last)}
    heard = Heard()
    read = partial(reader, url, headers, heard.take)
    if reader is httpx_sse:
        with pytest.raises(SSEError):  # it takes a 204 for a wrong content type: docs/clients.md says what to do
            await read()
    else:
        assert await read()
    assert heard.seqs == []
