"""Folded states by run and view, so that a poll folds only what is new."""

from collections import OrderedDict
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from api.fronts.feed import View
from eventstore import log
from eventstore.domain.run import RunState, fold
from eventstore.tail import PAGE_EVENTS_MAX, Entry


class Pages:
    """One run's log as one request reads it; the page read last is kept, because two parts of an answer want it."""

    def __init__(self, connection: AsyncConnection, run_id: UUID) -> None:
        self._connection = connection
        self.run_id = run_id
        self._last: tuple[int, list[Entry]] | None = None

    async def after(self, seq: int) -> list[Entry]:
        """The next events; fewer than PAGE_EVENTS_MAX means that the log ended there."""
        if self._last is None or self._last[0] != seq:
            events = await log.read_after(self._connection, self.run_id, seq, PAGE_EVENTS_MAX)
            self._last = seq, [Entry(event) for event in events]
        return self._last[1]


@dataclass(frozen=True, slots=True)
class Known:
    """A state and the place in the log that it was folded to, withheld events included."""

    seq: int
    state: RunState


NOTHING = Known(0, RunState())


class States:
    """The states used last, bounded in number and in the events that they hold together."""

    def __init__(self, states_max: int, events_max: int) -> None:
        self._states_max = states_max
        self._events_max = events_max
        self._known: OrderedDict[tuple[UUID, View], Known] = OrderedDict()
        self._events = 0

    async def at_end(self, pages: Pages, view: View) -> Known:
        """The state at the end of the run's log."""
        key = (pages.run_id, view)
        known = self._known.get(key, NOTHING)
        while page := await pages.after(known.seq):
            known = Known(page[-1].seq, fold(view.facts(page), known.state))
            if len(page) < PAGE_EVENTS_MAX:
                break
        self._keep(key, known)
        return known

    def _keep(self, key: tuple[UUID, View], known: Known) -> None:
        before = self._known.get(key, NOTHING)
        if known.seq >= before.seq:  # another request may have come further meanwhile
            self._known[key] = known
            self._events += known.seq - before.seq
        self._known.move_to_end(key)
        while len(self._known) > self._states_max or (self._events > self._events_max and len(self._known) > 1):
            _, dropped = self._known.popitem(last=False)
            self._events -= dropped.seq


async def state_at(pages: Pages, view: View, *, seq: int | None = None, at_us: int | None = None) -> Known:
    """The state as it was at a place in the log, or at a moment by the database's clock."""
    known = NOTHING
    while page := await pages.after(known.seq):
        kept = [
            entry
            for entry in page
            if (seq is None or entry.seq <= seq) and (at_us is None or entry.recorded.recorded_us <= at_us)
        ]
        if kept:
            known = Known(kept[-1].seq, fold(view.facts(kept), known.state))
        if len(kept) < PAGE_EVENTS_MAX:
            break
    return known
