"""The log as it grows: where live frames come from and how a request waits for one, holding no connection."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol
from uuid import UUID

from sqlalchemy.exc import SQLAlchemyError
from starlette.types import Receive

from api.fronts.feed import Feed, Frame, View
from api.fronts.waits import Wait, Waits
from api.readers import Readers
from eventstore.domain.lifecycle import TERMINAL_TYPES
from eventstore.tail import Entry, Tail, Tails

LOG_AWAY: Final = (SQLAlchemyError, OSError, TimeoutError)
AWAY_S: Final = 0.5


class Source(Protocol):
    """Frames in order, until it is closed."""

    @property
    def closed(self) -> bool:
        """Whether there is nothing more to come."""
        ...

    async def frames(self, wait: Wait, patience_s: float) -> list[Frame]:
        """The next frames; none when nothing came in this time, or only what the view withholds."""
        ...


class LiveSource:
    """History from the log, then whatever is stored next. While the log is away, it waits for it."""

    def __init__(self, tail: Tail, feed: Feed) -> None:
        self._tail = tail
        self._feed = feed

    @property
    def closed(self) -> bool:
        return self._feed.closed

    async def frames(self, wait: Wait, patience_s: float) -> list[Frame]:
        try:
            page = await self._tail.page(self._feed.cursor)
        except LOG_AWAY:
            await wait.pause(min(AWAY_S, patience_s))
            return []
        if not page:
            await wait.moved(self._tail, self._feed.cursor, patience_s, self._feed.take)
        return self._feed.take(page)


@contextmanager
def live(tails: Tails, readers: Readers, run_id: UUID, view: View, after: int) -> Iterator[LiveSource]:
    """A run's frames from a cursor to its end."""
    with readers.reading(run_id), tails.follow(run_id) as tail:
        yield LiveSource(tail, Feed(view, after))


async def until_ended(tails: Tails, waits: Waits, run_id: UUID, wait_s: float, receive: Receive) -> bool:
    """Wait for a run's end, this long at most; True when it has come. A log that is away is no end."""

    def is_end(entry: Entry) -> bool:
        return entry.recorded.type in TERMINAL_TYPES

    try:
        return await _until(is_end, tails, waits, run_id, 0, wait_s, receive)
    except LOG_AWAY:
        return False


async def until_shown(
    tails: Tails, waits: Waits, run_id: UUID, view: View, after: int, wait_s: float, receive: Receive
) -> bool:
    """Wait for an event after the cursor that this view shows, this long at most; True when there is one."""

    def is_shown(entry: Entry) -> bool:
        return view.data(entry) is not None

    return await _until(is_shown, tails, waits, run_id, after, wait_s, receive)


async def _until(
    wanted: Callable[[Entry], bool],
    tails: Tails,
    waits: Waits,
    run_id: UUID,
    cursor: int,
    wait_s: float,
    receive: Receive,
) -> bool:
    clock = asyncio.get_running_loop().time
    deadline = clock() + wait_s
    with tails.follow(run_id) as tail:
        async with waits.open(receive) as wait:
            while True:
                page = await tail.page(cursor)
                if any(wanted(entry) for entry in page):
                    return True
                if page:
                    cursor = page[-1].seq
                elif wait.over or (left_s := deadline - clock()) <= 0:
                    return False
                else:
                    await wait.moved(tail, cursor, left_s)
