"""Every request that waits for news, so that a reader who leaves, or a process that stops, ends the wait at once."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, Protocol

from starlette.types import Receive

from api.errors import Refusal
from api.fronts.feed import Frame
from eventstore.tail import Entry, Tail

SEND_TIMEOUT_S: Final = 10.0
LOOKS: Final = 10  # for stuck readers within one time-out


class Stuck(Exception):
    """The reader takes nothing any more."""


class Pen(Protocol):
    """Writes to one reader without waiting, for as long as it takes everything at once."""

    @property
    def ready(self) -> bool:
        """Whether the reader takes more now."""
        ...

    def write(self, frames: list[Frame]) -> None:
        """Write these now."""
        ...


Take = Callable[[list[Entry]], list[Frame]]


class Wait:
    """One reader's patience, and ours with it. `over` is set from outside: it left, or the process stops.

    A wait with a pen is a follower of its tail: what comes is written where it comes, and nobody is woken for it.
    """

    __slots__ = ("_fault", "_sending", "_sleep", "_take", "clock", "gone", "held_s", "over", "pen", "sending_since")

    def __init__(self) -> None:
        self.over = False
        self.clock = asyncio.get_running_loop().time
        self.gone = asyncio.Event()
        self.pen: Pen | None = None
        self.sending_since: float | None = None  # set by whoever sends, for the length of each send
        self.held_s = 0.0  # in which the reader's socket took nothing, all together
        self._take: Take | None = None
        self._sleep: asyncio.Future[None] | None = None
        self._fault: Exception | None = None
        self._sending: asyncio.Timeout | None = None

    @asynccontextmanager
    async def bounded(self) -> AsyncIterator[None]:
        """A block that ends with Stuck when the reader takes nothing. One time-out for the whole stream, which the
        process's watch over all streams pulls forward: one for each send would cost as much as the frame."""
        try:
            async with asyncio.timeout(None) as self._sending:
                yield
        except TimeoutError as fault:
            raise Stuck from fault
        finally:
            self._sending = None

    def give_up(self) -> None:
        """The reader has taken nothing for too long."""
        if self._sending is not None and not self._sending.expired():
            self._sending.reschedule(self.clock())

    def end(self) -> None:
        """Stop waiting now, and do not begin again."""
        self.over = True
        self.wake()

    def wake(self) -> None:
        """Whoever waits goes on."""
        if self._sleep is not None and not self._sleep.done():
            self._sleep.set_result(None)

    def came(self, entries: list[Entry]) -> None:
        """What the tail has got: written at once if there is a way, else a reason to wake up and read it."""
        if self._take is None or self.pen is None or self._sleep is None or self._sleep.done() or not self.pen.ready:
            self.wake()
            return
        try:
            self.pen.write(self._take(entries))
        except Exception as fault:  # noqa: BLE001 - it is this reader's, and must not end the tail of all others
            self._fault = fault
            self.wake()

    async def moved(self, tail: Tail, after: int, timeout_s: float, take: Take | None = None) -> None:
        """Until the run has something after this cursor, the time is up or the wait is over.

        With `take`, a reader that has a pen is given what comes meanwhile, as frames, and goes on waiting: until the
        run has ended, or something came that its socket did not take at once.
        """
        if self.over or tail.has(after):
            return
        self._take = take
        with tail.followed(self):
            await self.pause(timeout_s)
        self._take = None
        if self._fault is not None:
            raise self._fault

    async def pause(self, timeout_s: float) -> None:
        """Until the time is up or the wait is over."""
        if self.over:
            return
        # One future and one timer: an asyncio.timeout() costs three times as much, and there is one for each wait.
        loop = asyncio.get_running_loop()
        self._sleep = loop.create_future()
        timer = loop.call_later(timeout_s, self.wake)
        try:
            await self._sleep
        finally:
            timer.cancel()
            self._sleep = None


class Waits:
    """All waits of the process."""

    def __init__(self, send_timeout_s: float = SEND_TIMEOUT_S) -> None:
        self._open: set[Wait] = set()
        self._send_timeout_s = send_timeout_s
        self._watch: asyncio.TimerHandle | None = None
        self.draining = False

    def __len__(self) -> int:
        return len(self._open)

    @asynccontextmanager
    async def open(self, receive: Receive) -> AsyncIterator[Wait]:
        """A wait that ends when the reader leaves."""
        wait = Wait()
        if self.draining:
            wait.end()
        self._open.add(wait)
        watcher = asyncio.create_task(_until_gone(receive, wait))
        if self._watch is None:
            self._look()
        try:
            yield wait
        finally:
            watcher.cancel()
            self._open.discard(wait)

    def _look(self) -> None:
        """Give up on readers who have taken nothing; again and again for as long as there are readers."""
        loop = asyncio.get_running_loop()
        limit = loop.time() - self._send_timeout_s
        for wait in self._open:
            if wait.sending_since is not None and wait.sending_since <= limit:
                wait.give_up()
        self._watch = loop.call_later(self._send_timeout_s / LOOKS, self._look) if self._open else None

    def drain(self) -> None:
        """End every wait, those that begin from now on too: readers come back to another process."""
        self.draining = True
        for wait in list(self._open):
            wait.end()


async def _until_gone(receive: Receive, wait: Wait) -> None:
    try:
        while (await receive())["type"] != "http.disconnect":
            pass
    except Refusal:  # it went on sending a body that nobody asked for
        pass
    wait.gone.set()
    wait.end()
