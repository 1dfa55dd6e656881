"""Waits: when a run may rest, until when, and how long somebody was asked."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from pydantic import BaseModel

from eventstore.domain.record import Fact
from worker.asking import Question
from worker.branches import Branch
from worker.waits import Asked, Waits, asked_us, due_us, has_news

S = 1_000_000


class Fee(BaseModel):
    eur: int


class Below:
    """The branches below another one."""

    def __init__(self, living: list[Branch]) -> None:
        self.living = living

    def at_rest(self) -> bool:
        return all(branch.at_rest() for branch in self.living)

    def branches(self) -> Iterator[Branch]:
        return iter(self.living)

    async def shut(self) -> None:
        self.living.clear()


def question(seq: int, at_s: float, wait_s: float = 60) -> Fact:
    return Fact(seq, "escalation", round(at_s * S), 1, {"wait_s": wait_s})


def asked(questions: list[Fact], decided_s: dict[int, float]) -> Asked:
    decisions = {seq: Fact(90 + seq, "decision", round(at * S), 1, {}) for seq, at in decided_s.items()}
    return Asked(questions={fact.seq: fact for fact in questions}, decisions=decisions)


@pytest.mark.parametrize(
    ("asked_at", "decided", "seconds"),
    [
        ([], {}, 0),
        ([10], {2: 15}, 5),
        ([10], {}, 90),  # still open at 100
        ([10, 12], {2: 15, 3: 20}, 10),  # together
        ([10, 12], {2: 20, 3: 15}, 10),  # one within the other
        ([10, 30], {2: 15, 3: 31}, 6),  # one after the other
    ],
)
def test_the_time_in_which_anybody_was_asked_counts_once(
    asked_at: list[float], decided: dict[int, float], seconds: float
) -> None:
    questions = [question(seq, at) for seq, at in enumerate(asked_at, start=2)]
    assert asked_us(asked(questions, decided), 100 * S) == seconds * S


def test_a_wait_is_over_by_what_the_log_says_of_its_beginning() -> None:
    assert due_us(question(2, 10, wait_s=2.5)) == 12_500_000


async def test_a_run_rests_only_when_all_its_branches_wait_and_until_the_first_is_due() -> None:
    root = Branch("", None, 0)
    one, other, third = (Branch(name, root, 0) for name in ("a", "b", "c"))
    below = Below([one, other, third])
    root.groups, root.joining = [below], True
    waits = Waits(root)
    quiet = asyncio.create_task(waits.all_wait())
    tasks = [asyncio.create_task(waits.wait(one, "a/ask", 50 * S, 7))]
    await asyncio.sleep(0)
    assert not quiet.done()
    tasks.append(asyncio.create_task(waits.wait(other, "b/sleep", 30 * S)))
    await asyncio.sleep(0)
    third.ended = True  # what comes of that is still to be seen
    waits.look()
    await asyncio.sleep(0)
    assert not quiet.done()
    below.living.remove(third)
    waits.look()
    await asyncio.wait_for(quiet, 5)
    assert waits.due_us(10 * S) == 30 * S  # the run's own time stands still: somebody is asked
    assert has_news(waits, asked([], {7: 3}))
    assert not has_news(waits, asked([], {8: 3}))
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_a_sleeping_run_is_looked_at_when_its_own_time_is_over() -> None:
    root = Branch("", None, 0)
    waits = Waits(root)
    task = asyncio.create_task(waits.wait(root, "a", 50 * S))
    await asyncio.sleep(0)
    assert waits.due_us(10 * S) == 10 * S
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(
    "wrong",
    [
        {"choices": ()},
        {"choices": ("a",), "answer": Fee},
        {"choices": ("a", "a")},
        {"choices": ("a", "")},
        {"wait_s": 0},
        {"wait_s": float("nan")},
        {"wait_s": 1e12},
        {"default": "c"},
        {"choices": (), "answer": Fee, "default": 3},
    ],
)
def test_a_question_that_cannot_be_answered_is_not_asked(wrong: dict[str, Any]) -> None:
    given: dict[str, Any] = {"choices": ("a", "b"), "answer": None, "wait_s": 5.0, "default": None}
    told = {"name": "fee", "question": "How much?", "to": "user", **given}
    Question(**told).check()
    with pytest.raises(ValueError, match=r"^ask fee: "):
        Question(**told | wrong).check()
