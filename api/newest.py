"""The newest events of the runs that are asked for, so that an answer near the end of a run reads only what is new.

A stretch is as good as the log because of its last event's chain hash: it names everything before it. Where the log's
head has that very hash, the stretch is the log's end, and nothing need be read. Where the log has gone on, the last
event is read once more with the new ones and compared; if it is another one now, because an earlier backup was put
back, all that was kept of the run is forgotten.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from api.gathering import Gathered, Held
from eventstore import log
from eventstore.catalogue import RunRow
from eventstore.domain.record import Recorded
from eventstore.log import Page
from eventstore.tail import Entry

STRETCH_EVENTS: Final = 256  # kept of one run
STRETCH_BYTES: Final = 524_288
ALL_BYTES: Final = 33_554_432
ENTRY_BYTES: Final = 1_000  # about what an event takes beside its body and its frames
BACK_EVENTS: Final = 64  # read before the end of a run that is asked for the first time

End = Sequence[Entry]


class _Kept(NamedTuple):
    entries: list[Entry]
    size: int


class Newest:
    """Stretches of entries up to the ends of their runs; those used last, bounded in bytes."""

    def __init__(self, engine: AsyncEngine, bytes_max: int = ALL_BYTES) -> None:
        self._held = Held(engine)
        self._asked: Gathered[tuple[UUID, int], Page] = Gathered(self._ask)
        self._bytes_max = bytes_max
        self._kept: OrderedDict[UUID, _Kept] = OrderedDict()
        self._bytes = 0

    async def upto(self, run: RunRow, chain: bytes) -> End:
        """The run's last events, to where it stands there or further. None when more have come than belong here: then
        the log is read page by page."""
        run_id, seq = run.run_id, run.seq
        if (kept := self._kept.get(run_id)) is not None:
            last = kept.entries[-1].recorded
            if (last.seq, last.chain) == (seq, chain):
                self._kept.move_to_end(run_id)
                return kept.entries
            if seq <= last.seq + STRETCH_EVENTS:
                # Not only when the log has gone on. It may be that another request has seen more of it than this one,
                # or that it was put back; to look once more tells which.
                page = await self._asked.of((run_id, min(seq, last.seq) - 1))
                return self._joined(run_id, page, last.seq)
            self._drop(run_id)
        return self._joined(run_id, await self._asked.of((run_id, max(0, seq - BACK_EVENTS))), 0)

    def _joined(self, run_id: UUID, page: Page | None, came_to: int) -> End:
        """What was kept with what was read, when it came to this seq. Another request may have read the same since
        then, or more; a log that ends before it was put back."""
        if page is None or page.more or not page.events:
            return []
        kept = self._kept.get(run_id)
        if kept is None:
            return self._keep(run_id, [], 0, page.events)
        last = kept.entries[-1].recorded
        if came_to <= page.events[-1].seq < last.seq:
            return kept.entries
        if not any((event.seq, event.chain) == (last.seq, last.chain) for event in page.events):
            self._drop(run_id)
            return []
        fresh = [event for event in page.events if event.seq > last.seq]
        return self._keep(run_id, kept.entries, kept.size, fresh) if fresh else kept.entries

    def _keep(self, run_id: UUID, before: End, size: int, fresh: Iterable[Recorded]) -> End:
        """All of these, of which the last stay."""
        entries = [*before, *map(Entry, fresh)]
        size += sum(map(_size, entries[len(before) :]))
        start = 0
        while len(entries) - start > STRETCH_EVENTS or (size > STRETCH_BYTES and start < len(entries) - 1):
            size -= _size(entries[start])
            start += 1
        self._drop(run_id)
        self._kept[run_id] = _Kept(entries[start:], size)
        self._bytes += size
        while self._bytes > self._bytes_max and len(self._kept) > 1:
            self._drop(next(iter(self._kept)))
        return entries

    def _drop(self, run_id: UUID) -> None:
        if (kept := self._kept.pop(run_id, None)) is not None:
            self._bytes -= kept.size

    async def close(self) -> None:
        """Let go of the connection."""
        await self._asked.close()
        await self._held.close()

    async def _ask(self, keys: Sequence[tuple[UUID, int]]) -> Mapping[tuple[UUID, int], Page]:
        """All in one question, or in as few as their bytes allow."""
        cursors: dict[UUID, int] = {}
        for run_id, after in keys:
            cursors[run_id] = min(after, cursors.get(run_id, after))
        found: dict[UUID, Page] = {}
        while cursors:
            pages = await self._held.ask(_reading(cursors))
            found.update((run_id, page) for run_id, page in pages.items() if page.events)
            cursors = {run_id: cursors[run_id] for run_id, page in pages.items() if page.more and not page.events}
        return {(run_id, after): _since(found[run_id], after) for run_id, after in keys if run_id in found}


def _size(entry: Entry) -> int:
    """About what it takes, with its frames."""
    return ENTRY_BYTES + 3 * len(entry.recorded.body)


def _reading(cursors: Mapping[UUID, int]) -> Callable[[AsyncConnection], Awaitable[Mapping[UUID, Page]]]:
    return lambda connection: log.read_many(connection, cursors)


def _since(page: Page, after: int) -> Page:
    return page if page.events[0].seq > after else Page([one for one in page.events if one.seq > after], page.more)
