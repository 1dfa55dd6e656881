"""One timer for all reads of a stream: each read still has its own deadline, and a cancel from outside its own way."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pytest

from worker.llm.watching import Watch


@dataclass(eq=False)
class Alarm:
    """One timer of the clock below."""

    at: float
    callback: Callable[[], None]
    cancelled: bool = False

    def when(self) -> float:
        return self.at

    def cancel(self) -> None:
        self.cancelled = True


@dataclass
class Clock:
    """Time that passes by order."""

    now: float = 100.0
    alarms: list[Alarm] = field(default_factory=list)

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], None], /) -> Alarm:
        self.alarms.append(Alarm(when, callback))
        return self.alarms[-1]

    def waiting(self) -> list[Alarm]:
        return [alarm for alarm in self.alarms if not alarm.cancelled]

    def forward(self, seconds: float) -> None:
        self.now += seconds
        for alarm in [alarm for alarm in self.waiting() if alarm.at <= self.now]:
            alarm.cancelled = True
            alarm.callback()


class Line:
    """A body whose bytes come by order."""

    def __init__(self) -> None:
        self._ready: asyncio.Queue[bytes] = asyncio.Queue()

    def send(self) -> None:
        self._ready.put_nowait(b"x")

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        return await self._ready.get()


async def begun(watch: Watch, line: Line, deadline: float) -> "asyncio.Task[bytes | None]":
    """A read that waits."""
    reading = asyncio.create_task(watch.read(line, deadline))
    await asyncio.sleep(0)
    return reading


async def test_a_silent_stream_is_left_at_its_deadline_and_what_comes_after_is_not_cancelled() -> None:
    clock, line = Clock(), Line()

    async def read() -> int:
        with pytest.raises(TimeoutError):
            await Watch(clock).read(line, 130.0)
        await asyncio.sleep(0)
        task = asyncio.current_task()
        assert task is not None
        return task.cancelling()

    reading = asyncio.create_task(read())
    await asyncio.sleep(0)
    clock.forward(29.0)
    await asyncio.sleep(0)
    assert not reading.done()
    clock.forward(1.0)
    assert await reading == 0


async def test_data_renews_the_deadline_and_a_hundred_reads_set_no_hundred_timers() -> None:
    clock, line = Clock(), Line()
    watch = Watch(clock)
    for _ in range(100):
        reading = await begun(watch, line, clock.now + 30.0)
        clock.forward(1.0)
        line.send()
        assert await reading == b"x"
    assert len(clock.alarms) <= 5
    reading = await begun(watch, line, clock.now + 30.0)
    clock.forward(29.0)
    await asyncio.sleep(0)
    assert not reading.done()
    clock.forward(1.0)
    with pytest.raises(TimeoutError):
        await reading


async def test_a_sooner_deadline_is_kept_too() -> None:
    clock, line = Clock(), Line()
    watch = Watch(clock)
    line.send()
    assert await watch.read(line, 130.0) == b"x"
    reading = await begun(watch, line, 105.0)
    clock.forward(5.0)
    with pytest.raises(TimeoutError):
        await reading
    assert not clock.waiting()


async def test_the_time_of_whoever_reads_does_not_count() -> None:
    clock, line = Clock(), Line()
    watch = Watch(clock)
    line.send()
    await watch.read(line, 130.0)
    clock.forward(1_000.0)
    reading = await begun(watch, line, clock.now + 30.0)
    clock.forward(29.0)
    line.send()
    assert await reading == b"x"
    watch.close()
    assert not clock.waiting()


@pytest.mark.parametrize("late", [False, True])
async def test_a_cancel_from_outside_stays_a_cancel_even_when_the_deadline_passes_with_it(late: bool) -> None:
    clock = Clock()
    reading = await begun(Watch(clock), Line(), 130.0)
    if late:
        clock.forward(30.0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading


async def test_the_end_is_told_apart_from_silence() -> None:
    async def nothing() -> AsyncIterator[bytes]:
        for part in list[bytes]():
            yield part

    clock = Clock()
    watch = Watch(clock)
    assert await watch.read(nothing(), 130.0) is None
    watch.close()
    assert not clock.waiting()
