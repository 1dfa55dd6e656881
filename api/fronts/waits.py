"""Every request that waits for news, so that a reader who leaves, or a process that stops, ends the wait at once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.types import Receive

from api.errors import Refusal
from eventstore.tail import Tail


class Wait:
    """One reader's patience. `over` is set from outside: it left, or the process stops."""

    __slots__ = ("_waiting", "gone", "over")

    def __init__(self) -> None:
        self.over = False
        self.gone = asyncio.Event()
        self._waiting: asyncio.Timeout | None = None

    def end(self) -> None:
        """Stop waiting now, and do not begin again."""
        self.over = True
        if self._waiting is not None and not self._waiting.expired():
            self._waiting.reschedule(asyncio.get_running_loop().time())

    async def moved(self, tail: Tail, after: int, timeout_s: float) -> None:
        """Until the run has something after this cursor, the time is up or the wait is over."""
        # Pulling an asyncio.Timeout forward ends a wait from outside for the price of a timer, without a task per wait.
        if not self.over:
            try:
                async with asyncio.timeout(timeout_s) as self._waiting:
                    await tail.moved(after, timeout_s + 1.0)
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

    def __init__(self) -> None:
        self._open: set[Wait] = set()
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
        try:
            yield wait
        finally:
            watcher.cancel()
            self._open.discard(wait)

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
