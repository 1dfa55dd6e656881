"""Replay: the frames of the live stream again, from the same feed, by another clock. For officers only."""

import asyncio
import math
from collections import deque
from contextlib import nullcontext
from typing import Annotated, Final, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.ext.asyncio import AsyncEngine

from api.access import see
from api.errors import BadRequest, Fault
from api.fronts.events import STREAMS
from api.fronts.feed import Feed, Frame
from api.fronts.sources import AWAY_S, LOG_AWAY
from api.fronts.sse import StreamAnswer, wire_for
from api.fronts.waits import Wait
from api.negotiation import NDJSON, SSE, Number, place, preferred
from api.service import Asked, Who
from eventstore import log
from eventstore.domain.disclosure import Role
from eventstore.tail import Entry

SPEED_MAX: Final = 1_000_000.0

router = APIRouter(prefix="/v1/audit", tags=["audit"])


class Pace:
    """When each frame of a replay is due: as long after the one before as it was then, by another clock."""

    def __init__(self, speed: float, gap_s_max: float) -> None:
        self._speed = speed
        self._gap_s_max = gap_s_max
        self._due: float | None = None
        self._before_us = 0

    def due(self, recorded_us: int, now: float) -> float:
        """When this frame is due. A reader that was held up catches up, but never by more than one long pause."""
        if self._due is None or math.isinf(self._speed):
            self._due = now
        else:
            gap_s = (recorded_us - self._before_us) / 1_000_000 / self._speed
            self._due = max(self._due, now - self._gap_s_max) + min(gap_s, self._gap_s_max)
        self._before_us = recorded_us
        return self._due


class ReplaySource:
    """Stored frames, each when it is due."""

    def __init__(self, engine: AsyncEngine, run_id: UUID, feed: Feed, pace: Pace) -> None:
        self._engine = engine
        self._run_id = run_id
        self._feed = feed
        self._pace = pace
        self._page: deque[Entry] = deque()
        self._next: list[Frame] = []
        self._due = 0.0

    @property
    def closed(self) -> bool:
        return self._feed.closed and not self._next

    @property
    def outcome(self) -> Literal["ended", "rotated"]:
        return "ended"

    async def frames(self, wait: Wait, patience_s: float) -> list[Frame]:
        clock = asyncio.get_running_loop().time
        if not self._page and not self._next:
            await self._read(wait, patience_s)
        ready: list[Frame] = []
        while True:
            while self._page and not self._next:
                entry = self._page.popleft()
                self._next = self._feed.take([entry])
                if self._next:
                    self._due = self._pace.due(entry.recorded.recorded_us, clock())
            if not self._next or self._due > clock():
                break
            ready += self._next
            self._next = []
        if not ready and self._next:
            await wait.pause(min(self._due - clock(), patience_s))
        return ready

    async def _read(self, wait: Wait, patience_s: float) -> None:
        try:
            async with self._engine.connect() as connection:
                stored = await log.read_after(connection, self._run_id, self._feed.cursor)
            self._page.extend(Entry(event) for event in stored.events)
        except LOG_AWAY:
            pass
        if not self._page:
            await wait.pause(min(AWAY_S, patience_s))


def _speed(text: str) -> float:
    if text == "max":
        return math.inf
    try:
        speed = float(text)
    except ValueError:
        speed = -1.0
    if not 0 <= speed <= SPEED_MAX:
        raise BadRequest(faults=[Fault("/query/speed", "must be a number such as 4 or 0.5, or max")])
    return speed or math.inf


@router.get(
    "/runs/{run_id}/replay",
    summary="Replay a run as a role saw it",
    description="The frames of the live stream, paced by when they were recorded. `speed` 2 is twice as fast, 0 or "
    "`max` does not wait; `from` and `to` are seqs; `as` is the role to look through. An open run is replayed to where "
    "it stands.",
    responses=STREAMS,
    response_class=Response,
)
async def replay(
    request: Request,
    service: Asked,
    caller: Who,
    run_id: str,
    speed: Annotated[str, Query(max_length=20)] = "1",
    first: Annotated[Number, Query(alias="from", ge=1)] = 1,
    last: Annotated[Number | None, Query(alias="to", ge=1)] = None,
    role: Annotated[Role, Query(alias="as")] = "officer",
) -> Response:
    media_type = preferred(request, [SSE, NDJSON])
    pace = Pace(_speed(speed), service.settings.replay_gap_s_max)
    async with service.reading.connect() as connection:
        sight = await see(connection, service, caller, run_id, role)
    end = min(last or sight.run.seq, sight.run.seq)
    cursor = max(first - 1, place(request, None, sight.run.seq))
    if first > end:
        raise BadRequest(faults=[Fault("/query/from", "lies behind the end of what is to be replayed")])
    if cursor >= end:
        return Response(status_code=204)
    feed = Feed(sight.view, cursor, upto=end)
    source = ReplaySource(service.reading, sight.run.run_id, feed, pace)
    wire, figures = wire_for(media_type, service.settings), service.figures.stream("replay")
    counted = service.limits.stream(caller)(nullcontext(source))
    return StreamAnswer(counted, wire, service.waits, service.settings, figures)
