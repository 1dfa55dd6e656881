"""How runs are handed over: a message that a dramatiq consumer can read, hints that come or do not, and Redis away."""

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
import pytest_asyncio
from dramatiq.brokers.redis import RedisBroker
from redis.asyncio import Redis

from eventstore import wakeups
from eventstore.handoff import ACTOR, NAMESPACE, QUEUE, Handoff, queue_client
from eventstore.wakeups import CONTROL, HANDOFF, MOVED, listen, publish
from ops.services import Endpoints
from tests.waiting import until

NOWHERE = "redis://127.0.0.1:1/0"


@pytest_asyncio.fixture(loop_scope="session")
async def handoff(services: Endpoints, redis: Redis) -> AsyncIterator[Handoff]:
    await redis.flushdb()
    made = Handoff(services.redis_url, redis)
    yield made
    made.close()
    await redis.flushdb()


class Ear:
    """Somebody who listens, and remembers."""

    def __init__(self, redis: Redis, *channels: str) -> None:
        self.heard: list[tuple[str, str]] = []
        self.task = asyncio.create_task(self._listen(redis, *channels))

    async def _listen(self, redis: Redis, *channels: str) -> None:
        async for hint in listen(redis, *channels):
            self.heard.append(hint)

    async def close(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])


async def test_a_run_that_is_handed_over_can_be_read_by_a_dramatiq_consumer(
    handoff: Handoff, services: Endpoints
) -> None:
    runs = [uuid4(), uuid4()]
    assert await handoff.hand_over(*runs)
    broker = RedisBroker(client=queue_client(services.redis_url), namespace=NAMESPACE, middleware=[])
    broker.declare_queue(QUEUE)
    consumer = broker.consume(QUEUE, prefetch=2, timeout=1000)
    messages = []
    for _ in runs:
        message = next(consumer)
        assert message is not None
        consumer.ack(message)
        messages.append(message)
    consumer.close()
    broker.client.close()
    assert {message.actor_name for message in messages} == {ACTOR}
    assert [message.args for message in messages] == [(str(run),) for run in runs]


async def test_handing_over_wakes_whoever_waits_for_work(handoff: Handoff, redis: Redis) -> None:
    ear = Ear(redis, HANDOFF)
    await until(lambda: len(ear.heard) == 1)
    await handoff.hand_over(uuid4())
    await until(lambda: ear.heard == [(HANDOFF, "")] * 2)
    await ear.close()


async def test_without_redis_handing_over_answers_no_and_raises_nothing() -> None:
    away = wakeups.connect(NOWHERE)
    handoff = Handoff(NOWHERE, away)
    async with asyncio.timeout(5):
        assert await handoff.hand_over(uuid4()) is False
    handoff.close()
    await away.aclose()


async def test_a_full_redis_is_no_other_trouble_than_one_that_is_away(handoff: Handoff, redis: Redis) -> None:
    used = (await redis.info("memory"))["used_memory"]
    before = str((await redis.config_get("maxmemory"))["maxmemory"])
    await redis.config_set("maxmemory", max(1, used // 2))
    try:
        assert await handoff.hand_over(uuid4()) is False
    finally:
        await redis.config_set("maxmemory", before)
    assert await handoff.hand_over(uuid4()) is True


async def test_a_listener_is_told_to_look_for_itself_when_it_begins_and_after_every_cut(redis: Redis) -> None:
    ear = Ear(redis, MOVED, CONTROL)
    await until(lambda: ear.heard == [(MOVED, ""), (CONTROL, "")])
    await publish(redis, CONTROL, "a hint")
    await until(lambda: ear.heard[-1] == (CONTROL, "a hint"))
    for round_ in (2, 3):
        assert await redis.client_kill_filter(_type="pubsub")
        await until(lambda wanted=round_: ear.heard.count((MOVED, "")) == wanted)  # type: ignore[misc]
        assert ear.heard.count((CONTROL, "")) == round_
    await publish(redis, MOVED, "\udcff" * 0 + "é")
    await until(lambda: ear.heard[-1] == (MOVED, "é"))
    assert not ear.task.done()
    await ear.close()


async def test_a_hint_that_is_not_text_breaks_no_listener(redis: Redis) -> None:
    ear = Ear(redis, MOVED)
    await until(lambda: len(ear.heard) == 1)
    await redis.publish(MOVED, b"\xff\xfe\x00")
    await until(lambda: len(ear.heard) == 2)
    await ear.close()


@pytest.mark.parametrize("what", ["publish", "listen"])
async def test_a_cancellation_that_comes_together_with_an_answer_is_not_lost(redis: Redis, what: str) -> None:
    """A loop around these must end when it is told to, at whatever moment it is told."""

    async def publishing() -> None:
        while True:
            await publish(redis, MOVED, "x")

    async def listening() -> None:
        async for _ in listen(redis, MOVED):
            pass

    for moment in range(60):
        task = asyncio.create_task(publishing() if what == "publish" else listening())
        for _ in range(moment):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task], timeout=2)
        assert task.cancelled(), f"after {moment} turns of the loop"
