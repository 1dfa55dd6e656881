"""Calls that wait and hold no worker: a question to a person, and a sleep. All that is known of them is in the log."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from pydantic import BaseModel, ValidationError
from sqlalchemy.ext.asyncio import AsyncEngine

from eventstore import log
from eventstore.domain import events
from eventstore.domain.record import Fact
from worker.branches import Branch
from worker.digests import plain
from worker.stops import Misused, Site, WorkflowFailed
from worker.waits import Asked, decision_on, due_us
from worker.work import Work

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


@dataclass(frozen=True, slots=True)
class Question:
    """What an author asks of a person."""

    name: str
    question: str
    to: str
    choices: Sequence[str]
    answer: type[BaseModel] | None
    wait_s: float
    default: Any

    def check(self) -> None:
        """What an author can get wrong, before anybody is asked."""
        name, choices, answer, default = self.name, self.choices, self.answer, self.default
        if bool(choices) == (answer is not None):
            raise ValueError(f"ask {name}: give either choices or the answer's model")
        if choices and (len(set(choices)) != len(choices) or not all(choices)):
            raise ValueError(f"ask {name}: choices must be texts, each once")
        if not 0 < self.wait_s <= WAIT_S_MAX:
            raise ValueError(f"ask {name}: wait_s must be more than 0 and at most {WAIT_S_MAX:g}")
        if default is not None and not (default in choices if answer is None else isinstance(default, answer)):
            raise ValueError(f"ask {name}: the default is no answer that could be given")


async def ask(work: Work, branch: Branch, site: Site, asked: Question) -> Answer:
    """What a person decides, or the default when the time is over."""
    asked.check()
    schema = asked.answer.model_json_schema() if asked.answer is not None else None
    told = (asked.question, asked.to, list(asked.choices), schema)
    async with work.calling(branch, "escalation", asked.name, site, *told) as call:
        refuse_under_stream(branch, asked.name, site)
        question = call.before
        if question is None:
            await work.outside(branch)
            body = events.Escalation(
                name=asked.name,
                question=asked.question,
                choices=list(asked.choices),
                answer_schema=schema,
                to=asked.to,
                wait_s=asked.wait_s,
                default=plain(asked.default),
                **call.closing(),
            )
            question = await work.close(branch, body)
        decision = decision_on(work.asked, question)
        if decision is None:
            await work.waits.wait(branch, call.key, due_us(question), question.seq)
        branch.passed(decision.seq, decision.at_us)
        try:
            return _answer(decision, asked.answer)
        except WorkflowFailed as fault:
            raise fault.of(call.key)  # noqa: B904 - the same one


async def sleep(work: Work, branch: Branch, site: Site, name: str, seconds: float) -> None:
    """Be away for so long."""
    if not 0 <= seconds <= WAIT_S_MAX:
        raise ValueError(f"sleep {name}: {seconds} is no number of seconds from 0 to {WAIT_S_MAX:g}")
    async with work.calling(branch, "step", name, site, seconds) as call:
        if call.before is not None:
            return
        refuse_under_stream(branch, name, site)
        await work.outside(branch)
        intent = work.asked.asleep.get(call.key)
        if intent is None:  # in the log before it begins
            body = events.Step(name=name, status="intent", wait_s=seconds, **call.closing())
            intent = await work.intend(branch, body)
        left_s = (due_us(intent) - work.writer.last_us) / 1e6
        if left_s > DOZE_S:
            await work.waits.wait(branch, call.key, due_us(intent))
        await asyncio.sleep(max(0.0, left_s))
        await work.close(branch, events.Step(name=name, status="ok", **call.closing()))


def refuse_under_stream(branch: Branch, name: str, site: Site) -> None:
    """A wait is no part of what a stream says: it may outlast the connection by days."""
    if (above := branch.under()) is not None:
        raise Misused(f"{site}: {name} may wait for days and was called while the stream {above} is read")


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
