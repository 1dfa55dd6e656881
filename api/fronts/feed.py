"""Stored events in, frames out, without any I/O: what every front gives its reader.

All fronts, live or replayed, take their frames from a `Feed`, so that the same run, view and cursor give the same
bytes on each of them. The cursor moves over events that the view withholds; after the terminal event nothing follows.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import orjson

from eventstore.domain.disclosure import Policy, Role, disclose
from eventstore.domain.lifecycle import FINAL_TYPE, TERMINAL_TYPES
from eventstore.domain.record import Fact, rfc3339
from eventstore.tail import Entry


class Gap(Exception):
    """The events are not the next ones of this log; a reader must never be led past a hole."""


class Frame(NamedTuple):
    """One event as a view shows it: its place, its name and its envelope's bytes."""

    seq: int
    type: str
    data: bytes


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
    """One reader's way through one run: from a cursor to the terminal event, or to `upto`."""

    __slots__ = ("_upto", "_view", "closed", "cursor")

    def __init__(self, view: View, after: int, upto: int | None = None) -> None:
        self._view = view
        self._upto = upto
        self.cursor = after
        self.closed = upto is not None and after >= upto

    def take(self, page: Iterable[Entry], limit: int | None = None) -> list[Frame]:
        """The frames for these events, at most `limit`. A page may overlap what was taken before."""
        frames: list[Frame] = []
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
            self.cursor = entry.seq
            self.closed = entry.recorded.type in TERMINAL_TYPES or entry.seq == self._upto
        return frames
