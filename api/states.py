"""Folded states by run, view, fold, place and chain, so that an answer folds only what is new, and never on sand.

A state is kept under the place in the log that it was folded to and the chain hash that stood there. Whoever goes on
from it reads that event again, with the new ones, and compares: a log that was put back to an earlier backup and went
on differently has another hash there, and then all that is known of the run is thrown away and folded anew.
"""

import asyncio
from bisect import insort
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Final, NamedTuple
from uuid import UUID
from weakref import WeakValueDictionary

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from api.fronts.feed import View
from eventstore import log
from eventstore.domain.run import CASES, FOLD_VERSION, TAKEN_BACK, RunState, fold
from eventstore.tail import Entry

# About what an event takes in a state beside twice its body, once as it came and once joined or merged: measured.
TEXT_BYTES: Final = 250
SAID_BYTES: Final = 1_200
TOLD_BYTES_MAX: Final = 65_536  # of each part of an answer that is kept with a state


class Stretch(NamedTuple):
    """The next events of a run, and whether the log held more behind them."""

    entries: Sequence[Entry]
    more: bool


class Pages:
    """One run's log as one request reads it. The page read last is kept, because two parts of an answer want it; and
    where the run's newest events are at hand (api/newest.py), its end is not read at all."""

    def __init__(self, source: AsyncConnection | AsyncEngine, run_id: UUID, newest: Sequence[Entry] = ()) -> None:
        self._source = source
        self.run_id = run_id
        self._start = newest[0].seq - 1 if newest else 0
        self._last: Stretch | None = Stretch(newest, False) if newest else None

    async def after(self, seq: int) -> Stretch:
        """The next events; none only when the log ended there."""
        last = self._last
        if last is None or not self._reaches(last, seq):
            return await self.anew(seq)
        if seq == self._start:
            return last
        return Stretch(last.entries[seq - self._start :], last.more)

    async def anew(self, seq: int) -> Stretch:
        """The next events as the log has them now, whatever was read before."""
        page = await self._read(seq)
        self._last, self._start = Stretch([Entry(event) for event in page.events], page.more), seq
        return self._last

    async def _read(self, seq: int) -> log.Page:
        if isinstance(self._source, AsyncConnection):
            return await log.read_after(self._source, self.run_id, seq)
        async with self._source.connect() as connection:
            return await log.read_after(connection, self.run_id, seq)

    def _reaches(self, last: Stretch, seq: int) -> bool:
        """Whether what was read last holds what follows this place."""
        return self._start <= seq and (seq == self._start or not last.more or seq < last.entries[-1].seq)


@dataclass(frozen=True, slots=True)
class Known:
    """A state, and the place in the log that it was folded to, withheld events included: its seq, chain and time."""

    seq: int
    state: RunState
    chain: bytes = b""
    at_us: int = 0
    size: int = 0  # about how many bytes it holds
    told: dict[str, bytes] = field(default_factory=dict, compare=False)  # parts of answers that were made of it

    def keep(self, name: str, told: bytes) -> None:
        """Keep a part of an answer for as long as the state is kept, unless it is large."""
        if len(told) <= TOLD_BYTES_MAX:
            self.told[name] = told

    def plus(self, entries: Sequence[Entry], view: View) -> "Known":
        """The state after these too."""
        if not entries:
            return self
        shown = [(entry, fact) for entry in entries if (fact := view.fact(entry)) is not None]
        size = sum(_size(entry) for entry, _ in shown)
        last = entries[-1].recorded
        state = fold((fact for _, fact in shown), self.state)
        return Known(last.seq, state, last.chain, last.recorded_us, self.size + size)


def _size(entry: Entry) -> int:
    if CASES.get(entry.recorded.type) is None:
        return 0
    return 2 * len(entry.recorded.body) + (SAID_BYTES if entry.recorded.type in TAKEN_BACK else TEXT_BYTES)


NOTHING = Known(0, RunState())


class Place(NamedTuple):
    """What a state is kept under."""

    run_id: UUID
    view: View
    fold: int
    seq: int
    chain: bytes


class States:
    """The states used last, bounded in number and in bytes; the one used last is kept, however large it is."""

    def __init__(self, states_max: int, bytes_max: int) -> None:
        self._states_max = states_max
        self._bytes_max = bytes_max
        self._known: OrderedDict[Place, Known] = OrderedDict()
        self._places: dict[tuple[UUID, View], list[Place]] = {}  # those of one run, in the order of their seqs
        self._ends: dict[tuple[UUID, View], Place] = {}
        self._turns: WeakValueDictionary[tuple[UUID, View], asyncio.Lock] = WeakValueDictionary()
        self._bytes = 0

    async def at_end(self, pages: Pages, view: View) -> Known:
        """The state at the end of the run's log. It takes the place of the one before it."""
        key = (pages.run_id, view)
        # One at a time: many who come for a long run that nobody has asked for yet would all fold it from the start.
        if (turn := self._turns.get(key)) is None:
            turn = self._turns[key] = asyncio.Lock()
        async with turn:
            known = await self._folded(pages, view, None, None)
            before = self._ends.get(key)
            if known.seq and (before is None or known.seq >= before.seq):
                place = self._ends[key] = self._keep(pages.run_id, view, known)
                if before is not None and before != place:
                    self._drop(before)
        return known

    async def at(self, pages: Pages, view: View, *, seq: int | None = None, at_us: int | None = None) -> Known:
        """The state as it was at a place in the log, or at a moment by the database's clock."""
        known = await self._folded(pages, view, seq, at_us)
        if known.seq:
            self._keep(pages.run_id, view, known)
        return known

    async def _folded(self, pages: Pages, view: View, seq: int | None, at_us: int | None) -> Known:
        """From the nearest place that is known, if the log still goes through it."""
        known = self._nearest(pages.run_id, view, seq, at_us)
        if known.seq:
            there = (await pages.after(known.seq - 1)).entries
            if not there:  # what was at hand may be older than the state, which another request has folded
                there = (await pages.anew(known.seq - 1)).entries
            if not there or (there[0].seq, there[0].recorded.chain) != (known.seq, known.chain):
                self._forget(pages.run_id, view)
                known = NOTHING
        while True:
            page = await pages.after(known.seq)
            wanted = [
                entry
                for entry in page.entries
                if (seq is None or entry.seq <= seq) and (at_us is None or entry.recorded.recorded_us <= at_us)
            ]
            known = known.plus(wanted, view)
            if len(wanted) < len(page.entries) or not page.more or known.seq == seq:
                return known

    def _nearest(self, run_id: UUID, view: View, seq: int | None, at_us: int | None) -> Known:
        for place in reversed(self._places.get((run_id, view), ())):
            known = self._known[place]
            if (
                place.fold == FOLD_VERSION
                and (seq is None or known.seq <= seq)
                and (at_us is None or known.at_us <= at_us)
            ):
                self._known.move_to_end(place)
                return known
        return NOTHING

    def _keep(self, run_id: UUID, view: View, known: Known) -> Place:
        place = Place(run_id, view, FOLD_VERSION, known.seq, known.chain)
        if place not in self._known:
            self._known[place] = known
            self._bytes += known.size
            insort(self._places.setdefault((run_id, view), []), place, key=attrgetter("seq"))
        self._known.move_to_end(place)
        while len(self._known) > self._states_max or (self._bytes > self._bytes_max and len(self._known) > 1):
            self._drop(next(iter(self._known)))
        return place

    def _drop(self, place: Place) -> None:
        known = self._known.pop(place, None)
        if known is None:
            return
        self._bytes -= known.size
        key = (place.run_id, place.view)
        self._places[key].remove(place)
        if not self._places[key]:
            del self._places[key]
        if self._ends.get(key) == place:
            del self._ends[key]

    def _forget(self, run_id: UUID, view: View) -> None:
        for place in list(self._places.get((run_id, view), ())):
            self._drop(place)
