"""A provider's limits: held by several processes together, waited for in turn, and never gone with Redis."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any
from uuid import uuid4

import orjson
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from eventstore import wakeups
from tests.running import until
from worker.llm.model import ModelEnd, ModelFault, ModelRequest
from worker.llm.provider import create_model
from worker.llm.rated import RatedModel
from worker.llm.rates import REJOIN_S, Bucket, Rates, rates_of
from worker.llm.room import hold_in, tokens_of
from worker.llm.scripted_chat import Pace
from worker.llm.scripted_faults import Fault
from worker.llm.scripted_rules import parse_rules
from worker.llm.scripted_server import ScriptedServer
from worker.llm.settings import ModelSettings
from worker.llm.spending import MEMORY_MS, PREFIX, Amounts
from worker.metrics import WorkerMetrics

WINDOW_S = 2  # where its end is waited for
LONG_S = 3_600  # windows end on the clock: with a minute, one in a hundred test runs would meet such an end
SOON_S = 0.3
LIVE = 4
SCRIPT = [{"name": "all", "when": ["."], "say": "one two three"}]
NOWHERE = "redis://127.0.0.1:1/0"


@pytest_asyncio.fixture(loop_scope="session", autouse=True)
async def long_there(redis: Redis) -> None:
    """A Redis that every process has told all it knows."""
    await redis.set(f"{PREFIX}:memory", uuid4().hex, px=MEMORY_MS - int(REJOIN_S * 2_000))


@pytest_asyncio.fixture(loop_scope="session")
async def nowhere() -> AsyncIterator[Redis]:
    client = wakeups.connect(NOWHERE)
    yield client
    await client.aclose()


class Figures:
    """What was counted."""

    def __init__(self) -> None:
        self.calls = 0
        self.outcomes: list[str] = []
        self.is_common: bool | None = None

    def waiting(self, calls: int) -> None:
        self.calls += calls

    def waited(self, seconds: float, outcome: str) -> None:
        self.outcomes.append(outcome)

    def common(self, *, is_common: bool) -> None:
        self.is_common = is_common


class Process:
    """The limits as one process holds them."""

    def __init__(
        self,
        redis: Redis,
        name: str,
        requests: int | None,
        tokens: int | None,
        live: int | None = LIVE,
        window_s: int = LONG_S,
    ) -> None:
        self.figures = Figures()
        self.live = live
        self.bucket = Bucket(redis, name, Amounts(requests, tokens, window_s), self._live, self.figures)

    async def _live(self) -> int | None:
        return self.live

    async def takes(self, tokens: int = 1, tenant: str = "acme", wait_s: float = SOON_S) -> Any:
        return await self.bucket.take(tenant, tokens, wait_s)

    async def may(self, tokens: int = 1) -> bool:
        """Whether there is room for a call very soon."""
        try:
            await self.takes(tokens)
        except ModelFault as fault:
            return (fault.code, fault.retryable) != ("provider_busy", False)
        return True


def two(
    redis: Redis, *, requests: int | None = None, tokens: int | None = None, window_s: int = LONG_S
) -> tuple[Process, Process]:
    name = uuid4().hex
    one, other = (Process(redis, name, requests, tokens, window_s=window_s) for _ in range(2))
    return one, other


# --- held together


async def test_two_processes_share_one_limit_of_tokens(redis: Redis) -> None:
    one, other = two(redis, tokens=1_000)
    await one.takes(600)
    await other.takes(300)
    assert not await other.may(200)
    assert not await one.may(200)
    assert await one.may(100)
    assert other.figures.outcomes == ["gave_up"]
    assert (other.figures.calls, other.figures.is_common) == (0, True)


async def test_two_processes_share_one_limit_of_requests(redis: Redis) -> None:
    one, other = two(redis, requests=3)
    for process in (one, other, one):
        await process.takes()
    assert not await other.may()


async def test_what_was_refused_for_its_tokens_costs_no_request(redis: Redis) -> None:
    one, other = two(redis, requests=2, tokens=100)
    await one.takes(90)
    assert not await one.may(50)
    assert await other.may(10)


async def test_room_comes_back_and_who_waited_gets_it(redis: Redis) -> None:
    one, other = two(redis, tokens=10, window_s=WINDOW_S)
    await one.takes(10)
    await other.takes(5, wait_s=4 * WINDOW_S)
    assert other.figures.outcomes == ["served"]


async def test_without_limits_nothing_waits(redis: Redis, nowhere: Redis) -> None:
    for client in (redis, nowhere):
        process = Process(client, uuid4().hex, None, None)
        for _ in range(100):
            await process.takes(1_000_000)
        assert process.figures.outcomes == []


async def test_a_call_larger_than_the_limit_takes_all_of_it(redis: Redis) -> None:
    one, other = two(redis, tokens=10)
    await one.takes(1_000)
    assert not await other.may(1)


async def test_the_keys_in_redis_tell_nothing_of_the_key(redis: Redis) -> None:
    settings = ModelSettings(OPENAI_API_KEY="sk-very-secret", RUNWIRE_MODEL_TOKENS_PER_MINUTE=60)
    process = Process(redis, settings.rates_name("gpt-x"), 5, 5)
    await process.takes(1)
    process.bucket.hold(0.1)
    await process.bucket.keep()
    keys = str(await redis.keys("*"))
    assert settings.rates_name("gpt-x") in keys
    assert "very-secret" not in keys
    assert settings.rates_name("gpt-x") != settings.rates_name("gpt-y")


# --- what a call came to


async def test_what_was_not_used_is_room_again_for_all(redis: Redis) -> None:
    one, other = two(redis, tokens=1_000)
    share = await one.takes(1_000)
    assert not await other.may(1)
    await share.settle(200)
    assert await other.may(800)
    assert not await one.may(1)


async def test_what_was_used_beyond_the_estimate_counts(redis: Redis) -> None:
    one, other = two(redis, tokens=1_000)
    share = await one.takes(100)
    await share.settle(1_500)
    assert not await other.may(1)


async def test_a_late_settlement_takes_nothing_from_another_window(redis: Redis) -> None:
    one, other = two(redis, tokens=1_000, window_s=WINDOW_S)
    share = await one.takes(1_000)
    await other.takes(600, wait_s=4 * WINDOW_S)
    await share.settle(0)
    assert not await other.may(500), "what was given back then was spent long ago"


# --- in turn


async def test_tenants_are_served_in_turn_however_many_calls_one_has(redis: Redis) -> None:
    process, served = Process(redis, uuid4().hex, None, 8, window_s=WINDOW_S), list[str]()
    await process.takes(8)

    async def call(tenant: str) -> None:
        await process.takes(2, tenant, wait_s=5 * WINDOW_S)
        served.append(tenant)

    async def waits() -> bool | None:
        return process.figures.calls == 5 or None

    async with asyncio.TaskGroup() as calls:
        for _ in range(5):
            calls.create_task(call("busy"))
        await until(waits, "the busy tenant's calls to wait")
        before = len(served)
        calls.create_task(call("quiet"))
    assert served.index("quiet") <= before + 1, served


async def test_a_call_that_is_stopped_waits_no_longer_and_takes_nothing(redis: Redis) -> None:
    one, other = two(redis, tokens=10, window_s=WINDOW_S)
    await one.takes(10)
    waiting = [asyncio.create_task(one.takes(5, wait_s=60)) for _ in range(3)]

    async def waits() -> bool | None:
        return one.figures.calls == 3 or None

    await until(waits, "three calls to wait")
    for task in waiting:
        task.cancel()
    async with asyncio.timeout(SOON_S):
        await asyncio.wait(waiting)
    assert one.figures.outcomes == ["stopped"] * 3
    await other.takes(10, wait_s=4 * WINDOW_S)
    assert other.figures.outcomes == ["served"]


# --- what the provider says


async def test_a_pause_that_the_provider_asks_of_one_holds_for_all(redis: Redis) -> None:
    one, other = two(redis)
    one.bucket.hold(60)
    await one.bucket.keep()
    assert not await other.may(1)
    with pytest.raises(ModelFault, match="long pause"):
        await one.takes(wait_s=10)
    unheld, _ = two(redis)
    assert await unheld.may(1)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"x-ratelimit-remaining-requests": "3", "x-ratelimit-reset-requests": "1s"}, None),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1s"}, 1.0),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6m0s"}, 360.0),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "120ms"}, 0.12),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1h2m3.5s"}, 3723.5),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "17"}, 17.0),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "soon"}, None),
        ({"x-ratelimit-remaining-tokens": "0"}, None),
    ],
)
def test_what_is_left_is_read_from_the_head_of_an_answer(headers: dict[str, str], seconds: float | None) -> None:
    assert hold_in(headers) == seconds


def test_a_call_is_reserved_with_its_prompt_and_its_longest_answer() -> None:
    said = ({"role": "user", "content": "x" * 4_000},)
    assert 1_500 <= tokens_of(ModelRequest("m", said, {"max_tokens": 500}), 1_024) <= 1_530
    assert 2_024 <= tokens_of(ModelRequest("m", said), 1_024) <= 2_054


# --- without Redis


async def test_while_redis_is_away_each_process_keeps_to_its_part(nowhere: Redis) -> None:
    one, other = two(nowhere, tokens=40, window_s=WINDOW_S)
    for process in (one, other):
        await process.takes(10)
        assert not await process.may(1)
        assert process.figures.is_common is False
        await process.takes(5, wait_s=4 * WINDOW_S)


async def test_a_call_larger_than_the_part_comes_as_seldom_as_it_is_larger(nowhere: Redis) -> None:
    process = Process(nowhere, uuid4().hex, None, 40, window_s=WINDOW_S)
    began = asyncio.get_running_loop().time()
    await process.takes(20, wait_s=10 * WINDOW_S)
    assert asyncio.get_running_loop().time() - began >= 2 * WINDOW_S


async def test_nobody_knows_how_many_live_and_nothing_is_without_a_limit(nowhere: Redis) -> None:
    process = Process(nowhere, uuid4().hex, None, 40, live=None)
    assert not await process.may(1)
    process.live = 1
    assert await process.may(40)


async def test_a_redis_that_forgot_is_told_what_was_spent_before_it_gives_anything(redis: Redis) -> None:
    one, other = two(redis, tokens=1_000)
    await one.takes(900)
    await other.takes(50)
    await redis.flushall()
    assert not await other.may(200), "within its part, and more than there is"
    await one.bucket.keep()
    await redis.pexpire(f"{PREFIX}:memory", MEMORY_MS - int(REJOIN_S * 2_000))
    assert not await other.may(100)
    assert await other.may(50)


# --- a model behind them


@pytest_asyncio.fixture(loop_scope="session")
async def server() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer(parse_rules(orjson.dumps(SCRIPT), source="here"), pace=Pace(0)) as running:
        yield running


async def answer(model: RatedModel, name: str = "scripted-1") -> ModelEnd:
    request = ModelRequest(name, ({"role": "user", "content": "speak"},))
    async with aclosing(model.stream(request)) as pieces:
        said = [piece async for piece in pieces]
    assert isinstance(said[-1], ModelEnd)
    return said[-1]


async def test_a_429_is_a_pause_for_every_process_and_the_first_byte_is_waited_for_from_the_real_call(
    server: ScriptedServer, redis: Redis
) -> None:
    settings = ModelSettings(RUNWIRE_SCRIPTED_URL=server.url, first_byte_s=0.5)

    async def live() -> int:
        return 1

    one, other = (rates_of(settings, redis, live, WorkerMetrics()) for _ in range(2))
    model = create_model(settings, heard=one.heard)
    server.faults.add(Fault(kind="429", retry_after_s=1.5))
    with pytest.raises(ModelFault):
        await answer(RatedModel(model, one, "acme"))
    await one._bucket("scripted-1").keep()
    clock = asyncio.get_running_loop().time
    began = clock()
    end = await answer(RatedModel(model, other, "acme"))
    assert clock() - began >= 1.0, "another process waits as well"
    assert end.total_ms < 500
    await model.aclose()


async def test_the_usage_that_a_provider_tells_is_settled(server: ScriptedServer, redis: Redis) -> None:
    settings = ModelSettings(
        RUNWIRE_SCRIPTED_URL=server.url, RUNWIRE_MODEL_TOKENS_PER_MINUTE=4_000, RUNWIRE_MODEL_RATE_WAIT_S=5.0
    )

    async def live() -> int:
        return 1

    rates: Rates = rates_of(settings, redis, live, WorkerMetrics())
    model = create_model(settings)
    try:
        for _ in range(10):  # each is reserved with a thousand, uses ten; one that a new minute begins under keeps all
            await answer(RatedModel(model, rates, "acme"))
    finally:
        await model.aclose()
