"""The client that we ship, on a real server and through a network that meddles: every event once, whatever happens."""

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

import pytest
import pytest_asyncio
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from ops.services import Endpoints
from runwire import AsyncClient, Client, Event, Notice, Pace
from runwire.following import Choice
from tests.meddling import Fate, Proxy, cursor_of, meddling, said
from tests.serving import DEADLINE_S, Api, Writer, register, serving, until
from tests.writing import result, started, token

PACE = Pace(
    first_byte_s=0.6, silence_s=1.0, poll_wait_s=1, stream_again_s=0.5, waits_s=(0.01, 0.02), patience_s=DEADLINE_S
)


@dataclass
class Network:
    """A server, a proxy before it, and clients that go through the proxy."""

    api: Api
    proxy: Proxy
    worker: AsyncEngine
    redis: Redis
    pace: Pace = PACE
    notices: list[Notice] = field(default_factory=list)

    async def run(self) -> Writer:
        """A run of ada's that the test writes."""
        return Writer(self.worker, await self.api.submit(), self.redis)

    def client(self) -> AsyncClient:
        return AsyncClient(self.proxy.address, self.api.key(), pace=self.pace, on_notice=self.notices.append)

    def blocking(self) -> Client:
        return Client(self.proxy.address, self.api.key(), pace=self.pace, on_notice=self.notices.append)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def api(database_url: str, services: Endpoints, worker_engine: AsyncEngine) -> AsyncIterator[Api]:
    await register(worker_engine)
    async with serving(database_url, services.redis_url, keepalive_s=0.2, retry_ms=10) as api:
        yield api


@pytest_asyncio.fixture(loop_scope="session")
async def network(api: Api, worker_engine: AsyncEngine, redis: Redis) -> AsyncIterator[Network]:
    async with meddling(api.address) as proxy:
        yield Network(api, proxy, worker_engine, redis)


class Reading:
    """A reader in the background, async or in a thread of its own."""

    def __init__(self, network: Network, run: Writer, *, blocking: bool, transport: Choice = "auto") -> None:
        self.seqs: list[int] = []
        self.transports: list[str] = []
        read = (
            asyncio.to_thread(self._block, network, run, transport)
            if blocking
            else self._await(network, run, transport)
        )
        self.task = asyncio.create_task(read)

    async def _await(self, network: Network, run: Writer, transport: Choice) -> None:
        async with network.client() as client, client.follow(run.run_id, transport=transport) as events:
            async for event in events:
                self._take(event, events.transport)

    def _block(self, network: Network, run: Writer, transport: Choice) -> None:
        with network.blocking() as client, client.follow(run.run_id, transport=transport) as events:
            for event in events:
                self._take(event, events.transport)

    def _take(self, event: Event, transport: str) -> None:
        self.seqs.append(event.seq)
        self.transports.append(transport)

    async def has(self, seq: int) -> None:
        await until(lambda: self.task.done() or (self.seqs and self.seqs[-1] >= seq))

    async def all(self) -> list[int]:
        await asyncio.wait_for(self.task, DEADLINE_S)
        return self.seqs


BOTH = pytest.mark.parametrize("blocking", [False, True], ids=["async", "sync"])


@BOTH
@pytest.mark.parametrize(
    "fates",
    [
        [],
        [Fate("cut", 0)] * 2,
        [Fate("cut", 150), Fate("cut", 700), Fate("cut", 400)],
        [Fate("refuse"), said("502 Bad Gateway"), said("503 Service Unavailable", Retry_After="0")],
        [Fate("cut", 700), said("401 Unauthorized"), said("429 Too Many Requests", Retry_After="0")],
        [Fate("stall", 900)],
    ],
    ids=["nothing", "no byte", "pieces", "away", "key and limit", "stall"],
)
async def test_a_run_is_read_to_its_end_over_a_stream_that_breaks(
    network: Network, fates: list[Fate], blocking: bool
) -> None:
    network.proxy.meddle(*fates)
    run = await network.run()
    await run.append(started(), token("a"))
    reading = Reading(network, run, blocking=blocking)
    await reading.has(3)
    await run.append(token("b"))
    await run.append(result())
    assert await reading.all() == [1, 2, 3, 4, 5]
    assert not network.proxy.polls
    assert len(network.proxy.streams) >= len(fates) + 1


@pytest.mark.parametrize(
    "fate",
    [Fate("hold"), Fate("stall", 0), Fate("mute"), said("200 OK", "<p>Please log in</p>"), said("403 Forbidden")],
    ids=["held", "no answer", "no byte", "another page", "forbidden"],
)
async def test_where_no_stream_gets_through_the_run_is_read_by_short_requests_and_that_is_said(
    network: Network, fate: Fate
) -> None:
    network.proxy.meddle(then=fate)
    network.pace = replace(PACE, stream_again_s=60.0, silence_s=60.0)
    run = await network.run()
    await run.append(started(), token("a"))
    readings = [Reading(network, run, blocking=blocking) for blocking in (False, True)]
    for reading in readings:
        await reading.has(3)
    await run.append(token("b"))
    await run.append(result())
    for reading in readings:
        assert await reading.all() == [1, 2, 3, 4, 5]
        assert set(reading.transports) == {"poll"}
    assert [notice.transport for notice in network.notices if "short requests" in notice.text] == ["poll", "poll"]


@BOTH
async def test_a_stream_that_gets_through_again_is_taken_up_where_the_short_requests_were(
    network: Network, blocking: bool
) -> None:
    network.proxy.meddle(Fate("hold"))
    run = await network.run()
    await run.append(started(), token("a"))
    reading = Reading(network, run, blocking=blocking)
    await reading.has(3)
    await until(lambda: [notice for notice in network.notices if "again" in notice.text])
    await run.append(token("b"))
    await run.append(result())
    assert await reading.all() == [1, 2, 3, 4, 5]
    assert (reading.transports[0], reading.transports[-1]) == ("poll", "sse")
    assert cursor_of(network.proxy.streams[-1]) == 2, "the event that must come at once is the last one that was given"


async def test_a_follower_that_is_cancelled_lets_go_of_its_connection_at_once_and_the_run_goes_on(
    network: Network,
) -> None:
    run = await network.run()
    await run.append(started())
    reading = Reading(network, run, blocking=False)
    await reading.has(2)
    waits = network.api.service.waits
    before = len(waits)
    reading.task.cancel()
    await asyncio.wait([reading.task])
    await until(lambda: not network.proxy.open and len(waits) == before - 1)
    assert await run.append(token("a")) == 3


@BOTH
async def test_leaving_the_block_lets_go_of_the_connection_while_the_client_lives(
    network: Network, blocking: bool
) -> None:
    run = await network.run()
    await run.append(started())
    let_go, done = threading.Event(), threading.Event()

    def block() -> int:
        with network.blocking() as client:
            with client.follow(run.run_id) as events:
                next(events)
            let_go.set()
            done.wait(DEADLINE_S)
            return events.cursor

    if blocking:
        reading = asyncio.create_task(asyncio.to_thread(block))
        await until(let_go.is_set)
        await until(lambda: not network.proxy.open)
        done.set()
        assert await reading == 1
    else:
        async with network.client() as client:
            async with client.follow(run.run_id) as events:
                await anext(events)
            await until(lambda: not network.proxy.open)
            assert events.cursor == 1


@BOTH
async def test_waiting_for_a_result_ends_when_the_time_that_was_given_is_up(network: Network, blocking: bool) -> None:
    run = await network.run()
    await run.append(started())

    async def wait() -> None:
        async with network.client() as client:
            await client.result(run.run_id, timeout_s=0.5)

    def block() -> None:
        with network.blocking() as client:
            client.result(run.run_id, timeout_s=0.5)

    with pytest.raises(TimeoutError):
        await (asyncio.to_thread(block) if blocking else wait())


@BOTH
async def test_events_are_followed_through_a_restart_of_the_server(
    network: Network, database_url: str, services: Endpoints, blocking: bool
) -> None:
    run = await network.run()
    async with meddling("http://127.0.0.1:1") as nowhere:
        nowhere.meddle(then=said("502 Bad Gateway"))
        async with serving(database_url, services.redis_url, keepalive_s=0.2, retry_ms=10) as first:
            other = Network(network.api, nowhere, network.worker, network.redis)
            nowhere.upstream = first.address
            nowhere.meddle()
            await run.append(started())
            reading = Reading(other, run, blocking=blocking)
            await reading.has(2)
            nowhere.meddle(then=said("502 Bad Gateway"))
        await until(lambda: len(nowhere.streams) > 1)
        await run.append(token("a"))
        async with serving(database_url, services.redis_url, keepalive_s=0.2, retry_ms=10) as second:
            nowhere.upstream = second.address
            nowhere.meddle()
            await run.append(result())
            assert await reading.all() == [1, 2, 3, 4]
    assert not nowhere.polls


async def test_silence_between_events_is_borne_longer_than_silence_before_the_first(
    network: Network, database_url: str, services: Endpoints
) -> None:
    network.pace = replace(PACE, silence_s=60.0)
    run = await network.run()
    async with serving(database_url, services.redis_url, keepalive_s=50) as quiet:
        network.proxy.upstream = quiet.address
        readings = [Reading(network, run, blocking=blocking) for blocking in (False, True)]
        for reading in readings:
            await reading.has(1)
        over = asyncio.get_running_loop().time() + 2 * PACE.first_byte_s
        await until(lambda: asyncio.get_running_loop().time() > over)
        await run.append(started(), result())
        for reading in readings:
            assert await reading.all() == [1, 2, 3]
    assert (len(network.proxy.streams), network.proxy.polls) == (2, [])
