"""When the machine is busy, further pieces of one text gather; whatever else waits, or is waited for, does not."""

import asyncio

import pytest
import pytest_asyncio
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from eventstore.pacing import Pace
from eventstore.run_writer import BUFFER_CHARS_MAX, RunWriter
from tests.recording import NEVER_S, Claimed, claiming, recording, stored
from tests.waiting import until
from tests.writing import new_tenant, started, token

JOINS = ("token", "draft#1")


class Busy(Pace):
    """A machine that is busy and stays so, so much that nothing that may gather is ever stored for its age."""

    def __init__(self) -> None:
        super().__init__()
        self.gap_s = NEVER_S

    def took(self, now: float, seconds: float) -> None:
        """Nothing makes it calm."""


@pytest_asyncio.fixture(loop_scope="session")
async def claimed(api_engine: AsyncEngine, worker_engine: AsyncEngine, owner_engine: AsyncEngine) -> Claimed:
    return claiming(api_engine, worker_engine, await new_tenant(owner_engine))


async def say(writer: RunWriter, said: str) -> None:
    await writer.push_piece(JOINS, said, token)


async def texts(engine: AsyncEngine, writer: RunWriter) -> list[str]:
    return [event.fact().data["text"] for event in await stored(engine, writer.run_id) if event.type == "token"]


async def test_the_first_piece_of_a_text_is_stored_at_once_and_further_ones_gather_until_something_else_comes(
    worker_engine: AsyncEngine, api_engine: AsyncEngine, redis: Redis, claimed: Claimed
) -> None:
    async with recording(worker_engine, redis, pace=Busy()) as made:
        writer, other = made.open(await claimed(), 1), made.open(await claimed(), 1)
        await writer.record(started())
        await say(writer, "first ")
        await until(lambda: not writer.has_events)
        for number in range(50):
            await say(writer, f"{number} ")
        reader = asyncio.create_task(writer.stored(writer._waiting[-1], hurry=False))
        await other.record(started())
        assert not reader.done()
        assert await texts(api_engine, writer) == ["first "]
        gathered = "".join(f"{number} " for number in range(50))
        await writer.push_piece(("token", "draft#2"), "another text", token)
        await until(lambda: not writer.has_events)
        await reader
        assert await texts(api_engine, writer) == ["first ", gathered, "another text"]
        await writer.push_piece(("token", "draft#2"), " goes on", token)
        await writer.record(token("an event"))
        assert (await texts(api_engine, writer))[3:] == [" goes on", "an event"]


@pytest.mark.parametrize("who", ["flush", "a full buffer", "nudge"])
async def test_what_is_waited_for_or_grows_large_gathers_no_longer(
    who: str, worker_engine: AsyncEngine, api_engine: AsyncEngine, redis: Redis, claimed: Claimed
) -> None:
    async with recording(worker_engine, redis, pace=Busy()) as made:
        writer = made.open(await claimed(), 1)
        await writer.record(started())
        await say(writer, "first ")
        await until(lambda: not writer.has_events)
        await say(writer, "second")
        if who == "flush":
            await writer.flush()
        elif who == "nudge":
            made.nudge(writer.run_id)
            await until(lambda: not writer.has_events)
        else:
            for _ in range(BUFFER_CHARS_MAX // 4096 + 2):
                await say(writer, "x" * 4096)
            await writer.flush()
        assert (await texts(api_engine, writer))[1].startswith("second")
