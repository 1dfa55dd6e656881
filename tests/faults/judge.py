"""What must be true of one run's log and of what was noted of it outside, and every way in which it may not be."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple
from uuid import UUID

from eventstore.domain import chain
from eventstore.domain.lifecycle import TERMINAL_TYPES
from eventstore.domain.record import Recorded
from tests.faults.journal import Stretch, Told, digest

LOST: Final = "lost"  # acknowledged, and not in the log under that seq
CHANGED: Final = "changed"  # another event stands where one was acknowledged
DOUBLED: Final = "doubled"  # the same event twice
GAP: Final = "gap"  # a seq that is not the next one
GHOST: Final = "ghost"  # in the log, and nobody submitted it
BROKEN: Final = "broken chain"
UNENDED: Final = "wrong end"  # not exactly one terminal event, or it is not the last
SUPERSEDED: Final = "superseded epoch"  # an older owner wrote after a newer one
MISREAD: Final = "misread"  # a reader saw something else than the log
FLAWS: Final = (LOST, DOUBLED, GAP, GHOST, CHANGED, BROKEN, UNENDED, SUPERSEDED, MISREAD)
EXAMPLES_MAX: Final = 20


class Flaw(NamedTuple):
    """One thing that is not as it must be."""

    kind: str
    run_id: UUID
    seq: int
    detail: str

    def __str__(self) -> str:
        return f"{self.kind}: run {self.run_id} seq {self.seq}: {self.detail}"


class End(NamedTuple):
    """Where a run's head says that its log ends."""

    tenant_id: UUID
    seq: int
    chain: bytes


@dataclass(slots=True)
class Judgement:
    """What was counted and found, of one run or of many."""

    runs: int = 0
    events: int = 0
    acked: int = 0
    read: int = 0
    taken_over: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    examples: list[Flaw] = field(default_factory=list)

    def add(self, kind: str, run_id: UUID, seq: int, detail: str) -> None:
        self.counts[kind] += 1
        if len(self.examples) < EXAMPLES_MAX:
            self.examples.append(Flaw(kind, run_id, seq, detail))

    def take(self, other: "Judgement") -> None:
        """Add what was found elsewhere."""
        self.runs += other.runs
        self.events += other.events
        self.acked += other.acked
        self.read += other.read
        self.taken_over += other.taken_over
        self.counts.update(other.counts)
        self.examples = [*self.examples, *other.examples][:EXAMPLES_MAX]

    @property
    def ok(self) -> bool:
        return not self.counts


def judge(run_id: UUID, end: End | None, events: Iterable[Recorded], told: Told, readers: int = 0) -> Judgement:
    """Walk once over the run's events, in the order of their seq. `readers` must have seen it whole. No head and no
    event is what a run leaves that was submitted and never accepted."""
    walk = _Walk(run_id, told)
    passing = walk.past(events)
    if end is not None:
        found = chain.verify(run_id, end.tenant_id, passing, end.seq, end.chain)
        if not found.ok:
            walk.said.add(BROKEN, run_id, found.fault_seq or 0, found.fault or "")
    for _ in passing:  # the verifier stops at its first fault, and without a head there is none
        pass
    if end is None and walk.log:
        walk.said.add(GHOST, run_id, 1, f"{len(walk.log)} events without a head")
    elif end is not None:
        walk.said.runs = 1
        walk.ended()
    walk.acknowledged()
    walk.shown(readers if end is not None else 0)
    return walk.said


class _Walk:
    """One run's log as it passes by."""

    def __init__(self, run_id: UUID, told: Told) -> None:
        self.said = Judgement()
        self.log: dict[int, tuple[int, bytes]] = {}
        self._run_id = run_id
        self._told = told
        self._places: dict[bytes, int] = {}
        self._ends: list[int] = []
        self._last = 0

    def _flaw(self, kind: str, seq: int, detail: str) -> None:
        self.said.add(kind, self._run_id, seq, detail)

    def past(self, events: Iterable[Recorded]) -> Iterator[Recorded]:
        """The same events, looked at."""
        newest = 0
        for event in events:
            seq, one = event.seq, digest(event.body)
            if seq != self._last + 1:
                self._flaw(GAP, seq, f"after seq {self._last}")
            self._last = seq
            if (before := self._places.setdefault(one, seq)) != seq or seq in self.log:
                self._flaw(DOUBLED, seq, f"the event of seq {before} again")
            if (event.epoch, one) not in self._told.submitted:
                self._flaw(GHOST, seq, f"nobody submitted this {event.type} in epoch {event.epoch}")
            if event.epoch:  # 0 is the API's
                if event.epoch < newest:
                    self._flaw(SUPERSEDED, seq, f"epoch {event.epoch} after epoch {newest}")
                elif newest and event.epoch > newest:
                    self.said.taken_over += 1
                newest = max(newest, event.epoch)
            if event.type in TERMINAL_TYPES:
                self._ends.append(seq)
            self.log[seq] = (event.epoch, one)
            self.said.events += 1
            yield event

    def ended(self) -> None:
        """Exactly one terminal event, and it is the last."""
        if self._ends != [self._last]:
            self._flaw(UNENDED, self._last, f"terminal events: {self._ends}, the last seq: {self._last}")

    def acknowledged(self) -> None:
        """Every event that the log said to hold is there, where it was said to be, and the same."""
        for stretch in self._told.acked:
            self.said.acked += len(stretch)
            for seq, one in stretch.each():
                held = self.log.get(seq)
                if held is None or (held[1] != one and one in self._places):
                    self._flaw(LOST, seq, f"acknowledged in epoch {stretch.epoch}, now at {self._places.get(one)}")
                elif held != (stretch.epoch, one):
                    self._flaw(CHANGED, seq, f"acknowledged in epoch {stretch.epoch}, the log holds another")

    def shown(self, readers: int) -> None:
        """Each reader saw each event once, in order, as it is."""
        for name, seen in self._told.seen.items():
            self._read_by(name, seen)
        if len(self._told.seen) < readers:
            self._flaw(MISREAD, 0, f"read by {len(self._told.seen)} readers, {readers} should have")

    def _read_by(self, name: str, seen: list[Stretch]) -> None:
        cursor = 0
        for stretch in seen:
            self.said.read += len(stretch)
            for seq, one in stretch.each():
                held = self.log.get(seq)
                if seq != cursor + 1:
                    return self._flaw(MISREAD, seq, f"{name} was given it after seq {cursor}")
                if held is None or held[1] != one:
                    return self._flaw(MISREAD, seq, f"{name} was given another event than the log holds")
                cursor = seq
        if cursor != self._last:
            self._flaw(MISREAD, cursor, f"{name} was given nothing after it, the log ends at {self._last}")
        return None
