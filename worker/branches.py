"""The branches of a run: each does one thing after the other, and names what it does for itself.

A branch that is read as a tree from the root tells when all of a run has come to rest: every branch waits for something
outside. Nothing new is begun outside before that. So after a crash all branches have first been answered as far as the
log goes, and which of them failed first is known before any of them goes on.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol

from eventstore.run_writer import Entry
from worker.history import Range
from worker.stops import Halt, Misused, Site

TICKS_MAX: Final = 1_000  # of the loop; a branch that is not at rest by then waits for something that is not ours

_ESCAPES: Final = str.maketrans({"~": "~0", "/": "~1", "#": "~2"})


class OpenCall(Protocol):
    """A call that has said something and is not closed yet."""

    async def taken_back(self) -> None:
        """Say in the log that no attempt follows, because another part of the run failed."""
        ...


class Reading(Protocol):
    """A stream that the branch's code reads."""

    @property
    def key(self) -> str:
        """The call's name in the log."""
        ...

    @property
    def ended(self) -> bool:
        """Whether the stream is closed in the log; the code may still be reading it."""
        ...

    @property
    def has_news(self) -> bool:
        """Whether the log has something of it that its reader has not been given yet."""
        ...

    async def leave(self) -> None:
        """The code is done with it, read to its end or not."""
        ...

    def cut(self) -> None:
        """Close its connection now."""
        ...

    async def break_off(self) -> list[Range]:
        """Stop it; answers where its pieces are."""
        ...

    async def taken_back(self) -> None:
        """Say in the log that no attempt follows, because another part of the run failed."""
        ...

    async def rewound(self, broken: "Broken", later: list[Range]) -> None:
        """Say in the log that it starts again, and what is dead with it."""
        ...


@dataclass(frozen=True, slots=True)
class Broken:
    """A stream that broke while it was read: why, and whether another attempt follows, after how long."""

    reading: Reading
    attempt: int
    why: tuple[str, str]
    again: bool
    wait_s: float


class Children(Protocol):
    """What runs below a branch."""

    def at_rest(self) -> bool:
        """Whether all of them wait for something outside."""
        ...

    def branches(self) -> Iterator["Branch"]:
        """Those that have not ended."""
        ...

    async def shut(self) -> None:
        """The code that opened them has ended: they end as well."""
        ...


class Branch:
    """One line of a run's code."""

    def __init__(self, path: str, parent: "Branch | None", now_us: int) -> None:
        self.path = path
        self.parent = parent
        self.now_us = self._began_us = now_us
        self.last_seq = 0
        self.place = 0
        self.occurrences: Counter[str] = Counter()
        self.halt: Halt | None = None
        self.open: OpenCall | None = None
        self.readings: list[Reading] = []
        self.reads: Reading | None = None  # the one of which it waits for the next piece
        self.broken: Broken | None = None
        self.groups: list[Children] = []
        self.joining = False  # whether it waits for branches that it has opened
        self.at_edge = False
        self.waiting = False  # for a person or a time, not for anything that is under way
        self.waits_for: Entry | None = None
        self.ended = False
        self._paths: Counter[str] = Counter()
        self._doing: tuple[str, Site] | None = None

    def begin_again(self) -> None:
        """The branch's code is about to run again from its beginning."""
        self.place, self.now_us = 0, self._began_us
        self.occurrences, self._paths = Counter(), Counter()
        self.halt, self.broken, self.open = None, None, None
        self.readings, self.reads, self.groups = [], None, []
        self.joining, self.at_edge, self.waits_for = False, False, None

    def named(self, name: str) -> str:
        """The name of something in this branch."""
        return f"{self.path}/{name}" if self.path else name

    def below(self, key: str) -> str:
        """The path of a new branch below this one; a key that comes again is counted."""
        self._paths[key] += 1
        name = key.translate(_ESCAPES)
        return self.named(name if self._paths[key] == 1 else f"{name}#{self._paths[key]}")

    def under(self) -> str | None:
        """The innermost open stream that is read here or above."""
        for reading in reversed(self.readings):
            if not reading.ended:
                return reading.key
        return self.parent.under() if self.parent is not None else None

    def halted(self) -> Halt | None:
        """Why nothing may be called here any more, if so."""
        return self.halt or (self.parent.halted() if self.parent is not None else None)

    def passed(self, seq: int, at_us: int) -> None:
        """A call was answered by this event, now or long ago."""
        self.now_us = max(self.now_us, at_us)
        branch: Branch | None = self
        while branch is not None:
            branch.last_seq = max(branch.last_seq, seq)
            branch = branch.parent

    @contextmanager
    def doing(self, name: str, site: Site) -> Iterator[None]:
        """One thing at a time: a second call while one is under way could come back in another order."""
        if self._doing is not None:
            other, where = self._doing
            raise Misused(
                f"two calls at once in branch {self.path or 'main'}: {name} at {site}, while {other} at {where} is "
                f"under way; use run.each or run.gather, which give each its own branch"
            )
        self._doing = (name, site)
        try:
            yield
        finally:
            self._doing, self.at_edge, self.waits_for, self.reads = None, False, None, None

    def at_rest(self) -> bool:
        """Whether this branch waits for something outside, itself or in all that runs below it."""
        there = (self.waits_for is not None and self.waits_for.seq is not None) or (
            self.reads is not None and self.reads.has_news
        )
        own = not there if self.at_edge else self.joining
        return own and all(group.at_rest() for group in self.groups)

    def all_wait(self) -> bool:
        """Whether nothing is under way here or below: all of it waits for a person or a time."""
        if any(not reading.ended for reading in self.readings):
            return False
        below = [branch for group in self.groups for branch in group.branches()]
        if self.waiting:  # what has ended below changes nothing before the wait is over
            return all(each.ended or each.all_wait() for each in below)
        return self.joining and bool(below) and all(not each.ended and each.all_wait() for each in below)

    def all_below(self) -> "Iterator[Branch]":
        """This branch and every living one below it."""
        yield self
        for group in self.groups:
            for child in group.branches():
                yield from child.all_below()


async def come_to_rest(*branches: Branch) -> None:
    """Wait until all of these wait for something outside, or have ended."""
    for _ in range(TICKS_MAX):
        if all(branch.ended or branch.at_rest() for branch in branches):
            return
        await asyncio.sleep(0)
