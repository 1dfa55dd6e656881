"""Stored events in, frames out, without any I/O: what every front gives its reader.

All fronts, live or replayed, take their frames from a `Feed`, so that the same run, view and cursor give the same
bytes on each of them. The cursor moves over events that the view withholds; after the terminal event nothing follows.
"""

from collections.abc import Collection, Iterable, Iterator
from typing import Any, Final, NamedTuple
from uuid import UUID

import orjson

from eventstore.domain.disclosure import DRAFTS, Policy, Role, disclose
from eventstore.domain.lifecycle import FINAL_TYPE, TERMINAL_TYPES
from eventstore.domain.record import Fact, rfc3339
from eventstore.tail import Entry


class Gap(Exception):
    """The events are not the next ones of this log; a reader must never be led past a hole."""


class Frame(NamedTuple):
    """One event as a view shows it: its place, its name and its envelope's bytes. A frame without a place is ephemeral:
    it is said to this reader now, and is not in the log."""

    seq: int | None
    type: str
    data: bytes


CHECKPOINT: Final = "checkpoint"  # a place in the log and no event, for readers who leave most events out
LAGGING: Final = "lagging"
RESET: Final = "reset"
# What streams say of themselves. None of these is ever the name of an event.
OWN_TYPES: Final = (CHECKPOINT, LAGGING, RESET)


def said(run_id: object, type_: str, data: dict[str, Any], seq: int | None = None) -> Frame:
    """A frame of the stream's own. Only one that is a place to go on from has a `seq`."""
    place = {} if seq is None else {"seq": seq}
    envelope = {**place, "run_id": run_id, "type": type_, "final": False, "data": data}
    return Frame(seq, type_, orjson.dumps(envelope))


class View:
    """How one role sees one workflow's events. Each event is encoded once per view, however many readers there are."""

    __slots__ = ("_policy", "_role", "name")

    def __init__(self, policy: Policy, role: Role) -> None:
        self._policy = policy
        self._role = role
        self.name = f"{policy.digest()[:16]}.{role}"

    def fact(self, entry: Entry) -> Fact | None:
        """The event as this view discloses it."""
        return disclose(self._policy, self._role, entry.fact)

    def facts(self, entries: Iterable[Entry]) -> Iterator[Fact]:
        """What this view discloses of these events."""
        return (fact for entry in entries if (fact := self.fact(entry)) is not None)

    def data(self, entry: Entry) -> bytes | None:
        """The envelope's bytes, or None when the view withholds the event."""
        frames = entry.frames
        if self.name not in frames:
            # Not the entry's own fact, which would stay as long as the entry: the frame is all that is wanted again.
            fact = disclose(self._policy, self._role, entry.recorded.fact())
            frames[self.name] = None if fact is None else _envelope(entry, fact)
        return frames[self.name]

    def only(self, types: Collection[str]) -> "View":
        """This view for a reader who wants these types. The end always comes, and whoever is shown what a later attempt
        may take back is told of that too."""
        return _Narrowed(self, types)


class _Narrowed(View):
    """A view that leaves events out because its reader does not want them. What it shows has the very same bytes."""

    __slots__ = ("_types", "_whole")

    def __init__(self, whole: View, types: Collection[str]) -> None:
        self._whole = whole
        self._types = TERMINAL_TYPES.union(types, {"retry"} if DRAFTS.intersection(types) else ())
        self.name = f"{whole.name}.{'+'.join(sorted(self._types))}"

    def fact(self, entry: Entry) -> Fact | None:
        return self._whole.fact(entry) if entry.recorded.type in self._types else None

    def data(self, entry: Entry) -> bytes | None:
        return self._whole.data(entry) if entry.recorded.type in self._types else None

    def only(self, types: Collection[str]) -> View:
        return _Narrowed(self._whole, self._types.intersection(types))


def _envelope(entry: Entry, fact: Fact) -> bytes:
    # A copy, because it is kept: what orjson returns holds 4 KB for 200 bytes, and ten times as much for more.
    return b"%b" % orjson.dumps(
        {
            "seq": fact.seq,
            "run_id": entry.recorded.run_id,
            "type": fact.type,
            "at": rfc3339(fact.at_us),
            "attempt": fact.attempt,
            "final": fact.type == FINAL_TYPE,
            "data": fact.data,
        }
    )


class Feed:
    """One reader's way through one run: from a cursor to the terminal event, or to `upto`.

    A reader of few events would come back with an old cursor and have much of the log read again for nothing. With
    `checkpoint_every` it is given its place whenever it has been given none for so many events.
    """

    __slots__ = ("_checkpoint_every", "_told", "_upto", "_view", "closed", "cursor")

    def __init__(self, view: View, after: int, upto: int | None = None, checkpoint_every: int | None = None) -> None:
        self._view = view
        self._upto = upto
        self._checkpoint_every = checkpoint_every
        self._told = after  # the last place that the reader knows of
        self.cursor = after
        self.closed = upto is not None and after >= upto

    def take(self, page: Iterable[Entry], limit: int | None = None) -> list[Frame]:
        """The frames for these events, at most `limit`. A page may overlap what was taken before."""
        frames: list[Frame] = []
        run_id: UUID | None = None
        for entry in page:
            if self.closed or (limit is not None and len(frames) >= limit):
                break
            if entry.seq <= self.cursor:
                continue
            if entry.seq != self.cursor + 1:
                raise Gap(f"event {entry.seq} came after {self.cursor}")
            data = self._view.data(entry)
            if data is not None:
                frames.append(Frame(entry.seq, entry.recorded.type, data))
                self._told = entry.seq
            self.cursor = entry.seq
            self.closed = entry.recorded.type in TERMINAL_TYPES or entry.seq == self._upto
            run_id = entry.recorded.run_id
        if run_id is not None and self._checkpoint_every is not None:
            frames += self.checkpoint(run_id, self._checkpoint_every)
        return frames

    def checkpoint(self, run_id: UUID, every: int = 1) -> list[Frame]:
        """The reader's place, if it asked to be told and does not know it: so many events beyond what it knows."""
        if self._checkpoint_every is None or self.closed or self.cursor - self._told < every:
            return []
        self._told = self.cursor
        return [said(run_id, CHECKPOINT, {}, self.cursor)]
