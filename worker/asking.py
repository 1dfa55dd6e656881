"""Waits that hold no worker: a question to a person, and a sleep. All that is known of them is in the log.

A run of which all waits is suspended: the runner gives it back, and the database wakes it when it is due or when the
API has written to it. The next owner runs the code from the top; the call that waited finds its answer in the log, or
waits on. A wait's end is the time that the database recorded its beginning at, and its length: no clock of a worker.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn
from uuid import UUID

from pydantic import BaseModel, ValidationError
from sqlalchemy.ext.asyncio import AsyncEngine

from eventstore import log
from eventstore.domain import events
from eventstore.domain.record import Fact
from eventstore.recorder import RunWriter
from worker.digests import plain
from worker.memo import Call, Memo
from worker.stops import WorkflowFailed

ASK_S: Final = 7 * 86_400.0
WAIT_S_MAX: Final = 366 * 86_400.0
DOZE_S: Final = 1.0  # a sleep this short costs less than giving the run back and taking it up again
NOBODY: Final = events.Person(subject="runwire", role="service")


@dataclass(frozen=True, slots=True)
class Answer:
    """What was decided. `by` is None when nobody answered in time and this is the default."""

    choice: str | None
    value: Any
    by: str | None
    note: str | None


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
    return asked


class Waits:
    """What a run waits for at the moment, over all its branches."""

    def __init__(self) -> None:
        self.branches = 1  # how many are under way, those that wait included
        self.asked: set[int] = set()  # seqs of the questions
        self._due: dict[str, int] = {}
        self._quiet = asyncio.Event()

    async def wait(self, key: str, due_us: int, asked: int | None = None) -> NoReturn:
        """Wait here for good: once all branches do, the run is suspended, and this task ends with it."""
        self._due[key] = due_us
        if asked is not None:
            self.asked.add(asked)
        self.look()
        while True:
            await asyncio.Event().wait()

    def look(self) -> None:
        """Whoever changes `branches` says so here."""
        if len(self._due) >= self.branches:
            self._quiet.set()

    async def all_wait(self) -> None:
        """Until nothing of the run is under way."""
        await self._quiet.wait()

    def due_us(self, deadline_us: int) -> int:
        """When to look again: at the first wait's end. The run's own time goes on unless a person is asked."""
        return min([*self._due.values(), *([] if self.asked else [deadline_us])])


class Asking:
    """The waiting calls of one owner of one run."""

    def __init__(self, writer: RunWriter, memo: Memo, asked: Asked, go_on: Callable[[], None]) -> None:
        self.waits = Waits()
        self._writer = writer
        self._memo = memo
        self._asked = asked
        self._go_on = go_on

    async def ask(
        self,
        name: str,
        question: str,
        to: str,
        choices: Sequence[str],
        answer: type[BaseModel] | None,
        wait_s: float,
        default: Any,
    ) -> Answer:
        """What a person decides, or the default when the time is over."""
        self._go_on()
        _check(name, choices, answer, wait_s, default)
        schema = answer.model_json_schema() if answer is not None else None
        call = self._memo.call("escalation", name, question, to, list(choices), schema)
        if call.before is None:
            body = events.Escalation(
                name=name,
                question=question,
                choices=list(choices),
                answer_schema=schema,
                to=to,
                wait_s=wait_s,
                default=plain(default),
                **call.closing(),
            )
            entry = await self._writer.record(body)
            assert entry.seq is not None
            assert entry.recorded_us is not None
            await self.waits.wait(call.key, entry.recorded_us + _us(wait_s), entry.seq)
        decision = self._asked.decisions.get(call.before.seq)
        if decision is None:
            await self.waits.wait(call.key, due_us(call.before), call.before.seq)
        return _answer(decision, answer)

    async def sleep(self, name: str, seconds: float) -> None:
        """Be away for so long."""
        self._go_on()
        if not 0 <= seconds <= WAIT_S_MAX:
            raise ValueError(f"sleep {name}: {seconds} is no number of seconds from 0 to {WAIT_S_MAX:g}")
        call = self._memo.call("step", name, seconds)
        if call.before is not None:
            return
        await self._until(call, await self._lies_down(call, name, seconds))
        await self._writer.record(events.Step(name=name, status="ok", **call.closing()))

    async def _lies_down(self, call: Call, name: str, seconds: float) -> int:
        """When the sleep is over; in the log before it begins."""
        if (intent := self._asked.asleep.get(call.key)) is not None:
            return due_us(intent)
        entry = await self._writer.record(events.Step(name=name, status="intent", wait_s=seconds, **call.closing()))
        assert entry.recorded_us is not None
        return entry.recorded_us + _us(seconds)

    async def _until(self, call: Call, over_us: int) -> None:
        left_s = (over_us - self._writer.last_us) / 1e6
        if left_s > DOZE_S:
            await self.waits.wait(call.key, over_us)
        await asyncio.sleep(max(0.0, left_s))


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


async def lapse(engine: AsyncEngine, run_id: UUID, asked: Asked, clock_us: Callable[[], int]) -> bool:
    """Decide what nobody decided in time, each question by its default. Whether it is time, the database says."""
    told = False
    for seq, question in asked.questions.items():
        if seq not in asked.decisions:
            async with engine.begin() as connection:
                answer = await log.lapse(connection, run_id, events.new_event(_default(seq, question), clock_us()))
            told = told or answer.verdict in ("ok", "answered")
    return told


def _default(seq: int, question: Fact) -> events.Decision:
    default = question.data.get("default")
    said: dict[str, Any] = {"choice": default} if question.data.get("choices") else {"answer": default}
    closing = {
        name: question.data[name] for name in ("key", "place", "args", "under", "attempt") if name in question.data
    }
    return events.Decision(escalation=seq, because="wait_over", by=NOBODY, **said, **closing)


def _answer(decision: Fact, model: type[BaseModel] | None) -> Answer:
    told = decision.data
    choice, value = told.get("choice"), told.get("answer")
    in_time = told["because"] == "answered"
    if choice is None and value is None:
        raise WorkflowFailed("not_answered", "Nobody answered the question in time.", retryable=True)
    if model is not None:
        try:
            value = model.model_validate(value)
        except ValidationError as fault:
            raise WorkflowFailed("answer_refused", "The answer does not have the form that was asked for.") from fault
    return Answer(choice, value, told["by"]["subject"] if in_time else None, told.get("note"))


def _check(name: str, choices: Sequence[str], answer: type[BaseModel] | None, wait_s: float, default: Any) -> None:
    """What an author can get wrong, before anybody is asked."""
    if bool(choices) == (answer is not None):
        raise ValueError(f"ask {name}: give either choices or the answer's model")
    if choices and (len(set(choices)) != len(choices) or not all(choices)):
        raise ValueError(f"ask {name}: choices must be texts, each once")
    if not 0 < wait_s <= WAIT_S_MAX:
        raise ValueError(f"ask {name}: wait_s must be more than 0 and at most {WAIT_S_MAX:g}")
    if default is not None and not (default in choices if answer is None else isinstance(default, answer)):
        raise ValueError(f"ask {name}: the default is no answer that could be given")


def _us(seconds: float) -> int:
    return round(seconds * 1e6)
