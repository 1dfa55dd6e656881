"""What a run waits for, over all its branches, and what the log tells of questions and sleeps.

A run of which all waits is suspended: the runner gives it back, and the database wakes it when it is due or when the
API has written to it. The next owner runs the code from the top; the call that waited finds its answer in the log, or
waits on. A wait's end is the time that the database recorded its beginning at, and its length: no clock of a worker.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import NoReturn, TypeVar

from eventstore.domain.record import Fact
from worker.branches import Branch

T = TypeVar("T")


@dataclass(slots=True)
class Asked:
    """What the log tells of questions, their decisions by the seq of the question, and sleeps that were begun."""

    questions: dict[int, Fact] = field(default_factory=dict)
    decisions: dict[int, Fact] = field(default_factory=dict)
    asleep: dict[str, Fact] = field(default_factory=dict)


def read_asked(facts: Iterable[Fact]) -> Asked:
    """Walk the log once."""
    asked = Asked()
    for fact in facts:
        if fact.type == "escalation":
            asked.questions[fact.seq] = fact
        elif fact.type == "decision":
            asked.decisions[fact.data["escalation"]] = fact
        elif fact.type == "step" and fact.data.get("wait_s") is not None:
            asked.asleep[fact.data["key"]] = fact
        elif fact.type == "retry" and fact.data.get("version") is not None:
            asked = Asked()  # the run begins anew
    return asked


def decision_on(asked: Asked, question: Fact) -> Fact | None:
    """What was decided on a question: in this run, or in an earlier one that this one continues."""
    if (decided := question.data.get("decided")) is not None:
        return replace(question, type="decision", data=decided)
    return asked.decisions.get(question.seq)


class Waits:
    """What a run waits for at the moment."""

    def __init__(self, root: Branch) -> None:
        self.asked: set[int] = set()  # seqs of the questions
        self._root = root
        self._due: dict[str, int] = {}
        self._quiet = asyncio.Event()

    async def wait(self, branch: Branch, key: str, due_us: int, *asked: int) -> NoReturn:
        """Wait here for good, for a time or for the answers to these questions: once all branches do, the run is
        suspended, and this task ends with it."""
        self._due[key] = due_us
        self.asked.update(asked)
        branch.at_edge = branch.waiting = True
        branch.waits_for = None
        try:
            self.look()
            while True:
                await asyncio.Event().wait()
        finally:
            branch.waiting = False
            if not self._quiet.is_set():  # another part of the run has failed, and this one was stopped
                self._due.pop(key, None)
                self.asked.difference_update(asked)

    async def until(
        self, branch: Branch, key: str, due_us: int, ask: Callable[[], Awaitable[T | None]], every_s: float
    ) -> T:
        """Wait here as `wait` does, and while other branches work on, ask this often whether the wait is over."""
        self._due[key] = due_us
        branch.at_edge = branch.waiting = True
        try:
            while True:
                self.look()
                await asyncio.sleep(every_s)
                if (found := await ask()) is not None and not self._quiet.is_set():
                    return found
        finally:
            branch.waiting = False
            if not self._quiet.is_set():
                self._due.pop(key, None)

    def look(self) -> None:
        """Whoever ends something in a branch says so here."""
        if self._root.all_wait():
            self._quiet.set()

    async def all_wait(self) -> None:
        """Until nothing of the run is under way."""
        await self._quiet.wait()

    def due_us(self, deadline_us: int) -> int:
        """When to look again: at the first wait's end. The run's own time goes on unless a person is asked."""
        return min([*self._due.values(), *([] if self.asked else [deadline_us])])


def due_us(begun: Fact) -> int:
    """When the wait that this event began is over, by the database's clock."""
    return begun.at_us + _us(float(begun.data["wait_s"]))


def asked_us(asked: Asked, now_us: int) -> int:
    """For how long somebody was being asked: questions that were open together count once."""
    total, upto = 0, 0
    for seq, question in sorted(asked.questions.items()):
        decision = asked.decisions.get(seq)
        end = decision.at_us if decision is not None else now_us
        total += max(0, end - max(upto, question.at_us))
        upto = max(upto, end)
    return total


def has_news(waits: Waits, asked: Asked) -> bool:
    """Whether the log holds an answer that this owner has not seen."""
    return bool(waits.asked & asked.decisions.keys())


def _us(seconds: float) -> int:
    return round(seconds * 1e6)
