"""A live source and its waits: patient while the log is away, and ended at once from outside."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

import pytest
from sqlalchemy.exc import OperationalError

from api.fronts.feed import Feed
from api.fronts.sources import LiveSource
from api.fronts.waits import Stuck, Wait, Waits
from api.policies import load
from api.settings import ROOT
from eventstore.tail import Entry, Follower, Tail
from tests.histories import recorded
from tests.writing import accepted, result, started

USER = load(ROOT / "policies").view("contract_review", "user")
HISTORY = recorded([accepted(), started(), result()])
LONG_S = 3_600.0


class Log:
    """A tail whose log is away as often as it is told."""

    def __init__(self, away: int = 0, fault: Exception | None = None) -> None:
        self.away = away
        self.fault = fault or OperationalError("SELECT", {}, Exception())

    async def page(self, after: int, limit: int = 500, bytes_max: int = 0) -> list[Entry]:
        if self.away:
            self.away -= 1
            raise self.fault
        return [Entry(event) for event in HISTORY[after:]]

    def has(self, after: int) -> bool:
        return False

    @contextmanager
    def followed(self, follower: Follower) -> Iterator[None]:
        yield


def source(log: Log) -> LiveSource:
    return LiveSource(cast("Tail", log), Feed(USER, 0))


async def messages_never() -> dict[str, str]:
    await asyncio.sleep(LONG_S)
    return {}


@pytest.mark.parametrize("fault", [OperationalError("SELECT", {}, Exception()), ConnectionResetError(), TimeoutError()])
async def test_a_reader_waits_for_a_log_that_is_away_and_then_misses_nothing(fault: Exception) -> None:
    live = source(Log(away=3, fault=fault))
    for _ in range(3):
        assert await live.frames(Wait(), patience_s=0.0) == []
    assert [frame.seq for frame in await live.frames(Wait(), patience_s=0.0)] == [1, 2, 3]
    assert live.closed


@pytest.mark.parametrize(
    "waited",
    [
        lambda wait: wait.moved(cast("Tail", Log()), 3, LONG_S),
        lambda wait: wait.pause(LONG_S),
        lambda wait: source(Log(away=1)).frames(wait, LONG_S),
    ],
)
async def test_a_wait_ends_at_once_when_it_is_ended_from_outside(waited: Callable[[Wait], object]) -> None:
    wait = Wait()
    waiting = asyncio.ensure_future(cast("asyncio.Future[object]", waited(wait)))
    await asyncio.sleep(0)  # it waits now
    wait.end()
    await asyncio.wait_for(waiting, 0.4)
    assert wait.over
    await asyncio.wait_for(asyncio.ensure_future(cast("asyncio.Future[object]", waited(wait))), 0.4)


async def test_a_drain_ends_the_waits_of_now_and_those_to_come() -> None:
    waits = Waits()
    async with waits.open(messages_never) as before:
        assert not before.over
        waits.drain()
        assert before.over
        async with waits.open(messages_never) as after:
            assert after.over
    assert len(waits) == 0


async def test_a_reader_that_leaves_ends_its_wait() -> None:
    said = asyncio.Queue[dict[str, str]]()
    async with Waits().open(said.get) as wait:
        said.put_nowait({"type": "http.request"})
        said.put_nowait({"type": "http.disconnect"})
        await asyncio.wait_for(wait.gone.wait(), 5)
        assert wait.over


async def send_for_ever(wait: Wait) -> None:
    async with asyncio.timeout(5), wait.bounded():
        wait.sending_since = wait.clock()
        await asyncio.sleep(LONG_S)


async def test_a_reader_that_takes_nothing_is_given_up_and_its_neighbours_are_not() -> None:
    waits = Waits(send_timeout_s=0.05)
    async with waits.open(messages_never) as stuck, waits.open(messages_never) as silent, silent.bounded():
        with pytest.raises(Stuck):
            await send_for_ever(stuck)


async def test_readers_that_come_after_a_quiet_time_are_watched_too() -> None:
    waits = Waits(send_timeout_s=0.05)
    for _ in range(2):
        async with waits.open(messages_never) as wait:
            with pytest.raises(Stuck):
                await send_for_ever(wait)
        waits._look()  # nobody is there, so nobody is watched any more
        assert waits._watch is None
