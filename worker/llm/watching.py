"""Deadlines of a stream that is read piece by piece, with one timer for all of its reads.

A time-out of its own for each read costs as much as decoding what was read. Here a read only notes its deadline; the
timer looks when the earliest one it was set for has passed, and sets itself anew if data came meanwhile.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Protocol


class Timer(Protocol):
    """What was set to happen."""

    def when(self) -> float:
        """The loop's time at which it happens."""
        ...

    def cancel(self) -> None:
        """It shall not."""
        ...


class Clock(Protocol):
    """The part of an event loop that is needed here."""

    def time(self) -> float:
        """Now."""
        ...

    def call_at(self, when: float, callback: Callable[[], None], /) -> Timer:
        """Call this then."""
        ...


class Watch:
    """Watches one stream, read by one task at a time. `close` it when the stream is left."""

    def __init__(self, loop: Clock | None = None) -> None:
        self._loop: Clock = loop or asyncio.get_running_loop()
        self._timer: Timer | None = None
        self._due = 0.0
        self._reader: asyncio.Task[object] | None = None
        self._cancels = 0
        self._late = False

    async def read(self, body: AsyncIterator[bytes], deadline: float) -> bytes | None:
        """The next bytes, or None at the end. Raises TimeoutError when the loop's clock has passed the deadline."""
        self._due = deadline
        if self._timer is None or self._timer.when() > deadline:
            self._set()
        self._reader = asyncio.current_task()
        try:
            return await anext(body)
        except StopAsyncIteration:
            return None
        except asyncio.CancelledError:
            reader = self._reader
            # Somebody else may have cancelled the reader too: that one's wish counts.
            if self._late and reader is not None and reader.uncancel() <= self._cancels:
                raise TimeoutError from None
            raise
        finally:
            self._reader = None

    def close(self) -> None:
        """Watch no longer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set(self) -> None:
        self.close()
        self._timer = self._loop.call_at(self._due, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._reader is None:
            return  # nobody waits: what was read is with the stream's reader, whose time does not count
        if self._loop.time() < self._due:
            self._set()
            return
        self._late = True
        self._cancels = self._reader.cancelling()
        self._reader.cancel()
