"""Every request that waits for news, so that a reader who leaves, or a process that stops, ends the wait at once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from starlette.types import Receive

from api.errors import Refusal
from eventstore.tail import Tail

SEND_TIMEOUT_S: Final = 10.0
LOOKS: Final = 10  # for stuck readers within one time-out


class Stuck(Exception):
    """The reader takes nothing any more."""


class Wait:
    """One reader's patience, and ours with it. `over` is set from outside: it left, or the process stops."""

    __slots__ = ("_sending", "_waiting", "clock", "gone", "held_s", "over", "sending_since")

    def __init__(self) -> None:
        self.over = False
        self.clock = asyncio.get_running_loop().time
        self.gone = asyncio.Event()
        self.sending_since: float | None = None  # set by whoever sends, for the length of each send
        self.held_s = 0.0  # how long the reader's socket took nothing of what was ready, in sum
        self._waiting: asyncio.Timeout | None = None
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
        if self._waiting is not None and not self._waiting.expired():
            self._waiting.reschedule(self.clock())

    async def moved(self, tail: Tail, after: int, timeout_s: float) -> None:
        """Until the run has something after this cursor, the time is up or the wait is over."""
        # Pulling an asyncio.Timeout forward ends a wait from outside for the price of a timer, without a task per wait.
        if not self.over:
            try:
                async with asyncio.timeout(timeout_s) as self._waiting:
                    await tail.moved(after, None)
            except TimeoutError:
                pass
            finally:
                self._waiting = None

    async def pause(self, timeout_s: float) -> None:
        """Until the time is up or the wait is over."""
        if not self.over:
            try:
                async with asyncio.timeout(timeout_s) as self._waiting:
                    await asyncio.sleep(timeout_s + 1.0)
            except TimeoutError:
                pass
            finally:
                self._waiting = None


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
