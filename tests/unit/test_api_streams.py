"""A stream on its way: what comes is written where it comes, by the short way or the long one, the same bytes."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from typing import Any, cast

import pytest

from api.figures import ApiFigures
from api.fronts.feed import Feed
from api.fronts.outlet import OUTLET, chunk
from api.fronts.sources import LiveSource
from api.fronts.sse import StreamAnswer, event, event_stream
from api.fronts.waits import Waits
from api.policies import load
from api.settings import ROOT, ApiSettings
from eventstore.domain.record import Recorded
from eventstore.tail import GIVEN_BYTES_MAX, Entry, Tail
from tests.histories import RUN, recorded
from tests.waiting import until
from tests.writing import accepted, result, started, token

OFFICER = load(ROOT / "policies").view("contract_review", "officer")
HISTORY = recorded([accepted(), started(), token("a"), token("b"), result()])
FRAMES = [event(frame) for frame in Feed(OFFICER, 0).take([Entry(stored) for stored in HISTORY])]
RETRY = b"retry: 1000\n"


class Outlet:
    """A socket that takes everything, or nothing."""

    def __init__(self) -> None:
        self.ready = True
        self.chunks: list[bytes] = []
        self.write = self.chunks.append

    def untaken(self) -> int:
        return 0


class Stream:
    """One stream in the making: its tail, its socket, and what went by ASGI."""

    def __init__(self, tail: Tail, outlet: Outlet | None, keepalive_s: float = 59.0, feed: Feed | None = None) -> None:
        self.tail = tail
        self.outlet = outlet
        self.sent: list[bytes] = []
        self.figures = ApiFigures()
        settings = ApiSettings(keepalive_s=keepalive_s)
        source = LiveSource(tail, feed or Feed(OFFICER, 0))
        self.answer = StreamAnswer(
            nullcontext(source), event_stream(settings), Waits(), settings, self.figures.stream("sse")
        )

    async def run(self) -> None:
        extensions: dict[str, Any] = {} if self.outlet is None else {OUTLET: lambda scope: self.outlet}
        await self.answer({"type": "http", "method": "GET", "extensions": extensions}, self._receive, self._send)

    async def _receive(self) -> Any:
        await asyncio.get_running_loop().create_future()

    async def _send(self, message: Any) -> None:
        if message.get("body"):
            self.sent.append(message["body"])

    @property
    def waits(self) -> bool:
        return bool(self.tail._followers)

    def delivered(self) -> float | None:
        return self.figures.registry.get_sample_value("runwire_api_events_delivered_total", {"front": "sse"})


def new_tail(history: list[Recorded] | None = None) -> Tail:
    """A tail that stands at the beginning of its run, and never asks a log."""
    tail = Tail(RUN, cast("Any", None), lambda run_id: None)
    tail.cursor = 0
    if history:
        tail.take(history)
    return tail


@asynccontextmanager
async def running(stream: Stream) -> AsyncIterator["asyncio.Task[None]"]:
    task = asyncio.create_task(stream.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNWIRE_DATABASE_URL", "postgresql:///nowhere")
    monkeypatch.setenv("RUNWIRE_REDIS_URL", "redis://nowhere")


async def test_what_comes_while_readers_wait_is_written_to_all_of_them_in_the_same_turn() -> None:
    tail = new_tail()
    sockets = [Outlet(), Outlet()]
    one, two = (Stream(tail, socket) for socket in sockets)
    async with running(one) as first, running(two) as second:
        await until(lambda: len(tail._followers) == 2)
        for stored in HISTORY[:-1]:
            tail.take([stored])  # and nobody else has a turn before the next
        wanted = [chunk(RETRY + FRAMES[0]), *map(chunk, FRAMES[1:-1])]
        for stream, socket in zip((one, two), sockets, strict=True):
            assert socket.chunks == wanted
            assert stream.delivered() == 4
        assert sockets[0].chunks[1] is sockets[1].chunks[1], "one run's readers share what they are given"
        tail.take(HISTORY[-1:])
        await asyncio.wait_for(asyncio.gather(first, second), 5)
        assert sockets[0].chunks == [*wanted, chunk(FRAMES[-1])]
        assert one.sent == []


async def test_without_the_short_way_the_same_bytes_go_by_asgi() -> None:
    tail = new_tail()
    stream = Stream(tail, None)
    async with running(stream) as task:
        for number, stored in enumerate(HISTORY):
            await until(lambda: stream.waits)
            tail.take([stored])
            await until(lambda: len(stream.sent) == number + 1)  # noqa: B023 - waited for within the turn
        await asyncio.wait_for(task, 5)
    assert stream.sent == [RETRY + FRAMES[0], *FRAMES[1:]]


async def test_a_full_socket_is_not_written_to_and_its_reader_reads_on_from_where_it_was() -> None:
    tail, outlet = new_tail(), Outlet()
    stream = Stream(tail, outlet)
    async with running(stream) as task:
        await until(lambda: stream.waits)
        tail.take(HISTORY[:1])
        outlet.ready = False
        tail.take(HISTORY[1:2])
        tail.take(HISTORY[2:3])
        assert outlet.chunks == [chunk(RETRY + FRAMES[0])]
        await until(lambda: bool(stream.sent) and stream.waits)
        assert b"".join(stream.sent) == b"".join(FRAMES[1:3])
        outlet.ready = True
        tail.take(HISTORY[3:])
        await asyncio.wait_for(task, 5)
    assert outlet.chunks[1:] == [chunk(FRAMES[3] + FRAMES[4])]


async def test_much_at_one_moment_is_read_by_pages_and_not_pushed() -> None:
    large = recorded([accepted(), started(), *[token("x" * 1_000)] * (GIVEN_BYTES_MAX // 1_000)])
    tail, outlet = new_tail(), Outlet()
    stream = Stream(tail, outlet)
    async with running(stream):
        await until(lambda: stream.waits)
        tail.take(large)
        assert outlet.chunks == []
        await until(lambda: b"".join(outlet.chunks).count(b"\nevent: ") == len(large))


class Broken(Feed):
    """A feed that cannot take what comes."""

    def take(self, *_: Any) -> Any:
        raise ValueError("this reader's own fault")


async def test_a_readers_fault_ends_its_own_stream_and_no_other() -> None:
    tail = new_tail()
    broken, well = Stream(tail, Outlet(), feed=Broken(OFFICER, 0)), Stream(tail, Outlet())
    async with running(broken) as task, running(well):
        await until(lambda: len(tail._followers) == 2)
        tail.take(HISTORY[:2])
        assert well.delivered() == 2
        with pytest.raises(ValueError, match="own fault"):
            await asyncio.wait_for(task, 5)
        tail.take(HISTORY[2:3])
        assert well.delivered() == 3


async def test_silence_begins_with_the_last_event_that_was_pushed() -> None:
    tail, outlet = new_tail(), Outlet()
    stream = Stream(tail, outlet, keepalive_s=0.2)
    clock: Callable[[], float] = asyncio.get_running_loop().time
    async with running(stream):
        await until(lambda: stream.waits)
        began = clock()
        await until(lambda: clock() > began + 0.1)
        tail.take(HISTORY[:1])
        spoke = clock()
        await until(lambda: outlet.chunks[-1:] == [chunk(b":\n")])
        silent_s = clock() - spoke
    assert silent_s >= 0.2
    assert outlet.chunks.index(chunk(RETRY + FRAMES[0])) == len(outlet.chunks) - 2
