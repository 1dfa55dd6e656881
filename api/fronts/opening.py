"""How a stream of a run begins: with the caller's right to see it, at a place in its log, perhaps with a snapshot.

An EventSource that is answered 503 never comes back. So a reader who was known a short while ago is answered 200 while
the database is away, and the stream waits, with keep-alives, until it can begin. Nothing is shown on the strength of
memory: the key, the run and the cursor are looked at then, as ever. Whoever must be refused then is let go, cleanly and
without an event; it comes back and is told.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from api.access import Sight, see
from api.callers import Caller
from api.errors import DATABASE_AWAY, Refusal
from api.figures import StreamFigures
from api.fronts.feed import RESET, Frame, View, said
from api.fronts.sources import AWAY_S, LiveSource, Source, live
from api.fronts.waits import Wait
from api.negotiation import in_log
from api.service import Service
from api.shapes import is_done
from api.states import Known, Pages
from eventstore.domain.errors import EventStoreError
from eventstore.domain.run import RunState
from eventstore.domain.transcript import public


@dataclass(frozen=True, slots=True)
class Wish:
    """What a reader asks for. Without a cursor it is all of the run or, with a snapshot, what is still to come."""

    run_id: str
    cursor: int | None
    types: frozenset[str] | None
    snapshot: bool

    def view(self, sight: Sight) -> View:
        """What it will be shown."""
        return sight.view if self.types is None else sight.view.only(self.types)


@dataclass(frozen=True, slots=True)
class Start:
    """Where a stream begins, and the frames that come before the first event."""

    run_id: UUID
    view: View
    cursor: int
    ended: bool  # the run, when we looked
    over: bool  # nothing will ever come after this cursor
    first: Sequence[Frame] = ()


async def start(service: Service, caller: Caller, wish: Wish) -> Start:
    """Look at the run now; raises what a request is refused with."""
    async with service.reading.connect() as connection:
        sight = await see(connection, service, caller, wish.run_id)
        run, view = sight.run, wish.view(sight)
        cursor = in_log(wish.cursor or 0, run.seq)
        over = sight.ended and cursor == run.seq
        if over or not wish.snapshot:
            return Start(run.run_id, view, cursor, sight.ended, over)
        known = await _known(connection, service, sight, wish.cursor)
    first = [said(run.run_id, RESET, _snapshot(known))]
    return Start(run.run_id, view, known.seq, sight.ended, False, first)


async def _known(connection: AsyncConnection, service: Service, sight: Sight, cursor: int | None) -> Known:
    """The state at the reader's place. Without one that is the end; but of an ended run its terminal event still
    comes, so the state is that before it."""
    pages = Pages(connection, sight.run.run_id)
    if cursor is not None:
        return await service.states.at(pages, sight.view, seq=cursor)
    known = await service.states.at_end(pages, sight.view)
    if is_done(known.state.status):
        known = await service.states.at(pages, sight.view, seq=known.seq - 1)
    return known


def _snapshot(known: Known) -> dict[str, Any]:
    seen = {"seq": known.seq, "chain": known.chain.hex()}
    return {**public(known.state), "seen": seen, "drafts": drafts_of(known.state)}


def drafts_of(state: RunState) -> list[dict[str, Any]]:
    """The state's text piece by piece with its places, so that a later `retry` can take back any part of it."""
    told = [("token", {"section": name}, pieces) for name, pieces in state.sections.items()]
    told += [("reasoning", {}, state.reasoning)] if state.reasoning else []
    return [
        {"type": type_, "shared": shared, "pieces": [[piece.seq, piece.text] for piece in pieces]}
        for type_, shared, pieces in told
    ]


def streamed(service: Service, begun: Start, wish: Wish, figures: StreamFigures) -> AbstractContextManager[LiveSource]:
    """The source of a stream that begins here."""
    return live(
        service,
        begun.run_id,
        begun.view,
        begun.cursor,
        figures,
        first=begun.first,
        lags=not begun.ended,
        checkpoints=wish.types is not None,
    )


class LateSource:
    """A stream that could not begin, because the database was away when its reader came."""

    def __init__(self, service: Service, key: str, wish: Wish, figures: StreamFigures, held: ExitStack) -> None:
        self._service = service
        self._key = key
        self._wish = wish
        self._figures = figures
        self._held = held
        self._source: Source | None = None
        self._let_go = False

    @property
    def closed(self) -> bool:
        return self._let_go or (self._source is not None and self._source.closed)

    @property
    def outcome(self) -> Literal["ended", "rotated"]:
        return self._source.outcome if self._source is not None else "rotated"

    async def frames(self, wait: Wait, patience_s: float) -> list[Frame]:
        if self._source is not None:
            return await self._source.frames(wait, patience_s)
        try:
            caller = await self._service.keys.caller(self._key)
            begun = await start(self._service, caller, self._wish)
        except DATABASE_AWAY as fault:
            self._service.figures.database.met(fault)
            await wait.pause(min(AWAY_S, patience_s))
        except (Refusal, EventStoreError):
            self._let_go = True
        else:
            self._let_go = begun.over
            self._source = self._held.enter_context(streamed(self._service, begun, self._wish, self._figures))
        return []


@contextmanager
def late(service: Service, key: str, wish: Wish, figures: StreamFigures) -> Iterator[LateSource]:
    """A stream that begins when the database is back."""
    with ExitStack() as held:
        yield LateSource(service, key, wish, figures, held)
