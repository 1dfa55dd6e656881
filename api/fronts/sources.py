"""The log as it grows: where live frames come from and how a request waits for one, holding no connection."""

import asyncio
import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Literal, Protocol
from uuid import UUID

from sqlalchemy.exc import SQLAlchemyError
from starlette.types import Receive

from api.figures import StreamFigures
from api.fronts.feed import Feed, Frame, View
from api.fronts.lagging import Bounds, Lag, conflated
from api.fronts.waits import Wait, Waits
from api.service import Service
from api.settings import STREAM_PAGE_BYTES, ApiSettings
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

    @property
    def outcome(self) -> Literal["ended", "rotated"]:
        """Once it is closed: whether the run has ended, or only this stream of it."""
        ...

    async def frames(self, wait: Wait, patience_s: float) -> list[Frame]:
        """The next frames; none when nothing came in this time, or only what the view withholds."""
        ...


class LiveSource:
    """History from the log, then whatever is stored next. While the log is away, it waits for it."""

    __slots__ = ("_feed", "_figures", "_first", "_lag", "_rotated", "_tail", "_until")

    def __init__(
        self,
        tail: Tail,
        feed: Feed,
        lag: Lag | None = None,
        figures: StreamFigures | None = None,
        first: Sequence[Frame] = (),
        until: float = math.inf,
    ) -> None:
        self._tail = tail
        self._feed = feed
        self._lag = lag
        self._figures = figures
        self._first = list(first)
        self._until = until  # by the loop's clock: then the stream ends and its reader comes back to another
        self._rotated = False

    @property
    def closed(self) -> bool:
        return self._rotated or (self._feed.closed and not self._first)

    @property
    def outcome(self) -> Literal["ended", "rotated"]:
        return "rotated" if self._rotated else "ended"

    async def frames(self, wait: Wait, patience_s: float) -> list[Frame]:
        if self._first:
            first, self._first = self._first, []
            return first
        left_s = self._until - wait.clock()
        if left_s <= 0:
            self._rotated = True
            return self._feed.checkpoint(self._tail.run_id)
        patience_s = min(patience_s, left_s)
        try:
            page = await self._tail.page(self._feed.cursor, bytes_max=STREAM_PAGE_BYTES)
        except LOG_AWAY:
            await wait.pause(min(AWAY_S, patience_s))
            return []
        if not page:
            if self._lag is not None:
                self._lag.near(wait.held_s)
            await wait.moved(self._tail, self._feed.cursor, patience_s, self._feed.take)
            return []
        return self._given(page, wait.held_s)

    def _given(self, page: list[Entry], held_s: float) -> list[Frame]:
        """What this reader gets of a page: all of it, unless it lags."""
        cursor = self._feed.cursor
        frames = self._feed.take(page)
        if self._lag is None:
            return frames
        behind = max(self._tail.cursor or 0, page[-1].seq) - cursor
        if not self._lag.lags(behind, lambda: _size(page), held_s):
            return frames
        fewer = conflated(frames)
        if self._figures is not None and len(fewer) < len(frames):
            self._figures.conflated()
            self._figures = None
        return fewer


def _size(page: list[Entry]) -> int:
    return sum(len(entry.recorded.body) for entry in page)


@contextmanager
def live(
    service: Service,
    run_id: UUID,
    view: View,
    after: int,
    figures: StreamFigures,
    *,
    first: Sequence[Frame] = (),
    lags: bool = True,
    checkpoints: bool = False,
) -> Iterator[LiveSource]:
    """A run's frames from a cursor to its end, or until the stream is old enough. A reader of a run that had ended
    before it came never lags: it has asked for all of that."""
    settings = service.settings
    feed = Feed(view, after, checkpoint_every=settings.checkpoint_events if checkpoints else None)
    lag = Lag(Bounds(settings.lag_events, settings.lag_bytes, settings.lag_held_s)) if lags else None
    until = asyncio.get_running_loop().time() + age_s(settings)
    with service.readers.reading(run_id), service.tails.follow(run_id) as tail:
        yield LiveSource(tail, feed, lag, figures, first, until)


def age_s(settings: ApiSettings) -> float:
    """How old one stream becomes. Not all that began together end together: they would come back together too."""
    share = random.uniform(1 - settings.stream_age_jitter, 1)  # noqa: S311 - it keeps no secret
    return settings.stream_age_s_max * share


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
