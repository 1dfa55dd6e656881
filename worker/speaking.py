"""Calls that speak: what is asked, how often it is tried, how it ended, and how the log answers for it later."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any, Final, TypeVar

from eventstore.domain import events
from worker.branches import Branch
from worker.digests import digest
from worker.hearing import FINISH_MESSAGES, hear, let_go
from worker.history import SIBLING
from worker.llm.model import ModelEnd, ModelFault
from worker.llm.retrying import FailedAttempt, with_retries
from worker.memo import Call
from worker.provenance import dead_usage, estimated, provenance, usage_of
from worker.questions import OnLength, Question, Spoken
from worker.speech import Attempt, Shape
from worker.stops import WorkflowFailed
from worker.work import Work

T = TypeVar("T")

# Faults that another run may not meet; a failure is read from the log, which tells its code only.
WORTH_ANOTHER_RUN: Final = frozenset(
    {"connection", "timeout", "limit_first_byte_s", "limit_between_pieces_s", "provider_busy"}
    | {"stream_incomplete", "malformed", "unknown_finish", "model_length"}
)
STOPPED: Final = (SIBLING, "Another part of the run failed; this one was stopped.")


def asking(work: Work, branch: Branch, question: Question) -> AbstractAsyncContextManager[Call]:
    """The call that a question makes."""
    request = question.request
    told: list[Any] = [[dict(message) for message in request.messages], request.model, dict(request.parameters)]
    if request.tools:
        told.append([dict(tool) for tool in request.tools])
    return work.calling(branch, "model_call", question.name, question.site, *told, key=question.key)


def recalled(work: Work, branch: Branch, call: Call) -> Spoken | None:
    """How the call went before: what it said, or the failure after which no attempt followed."""
    if call.before is not None:
        work.usage = work.usage + events.Usage.model_validate(call.before.data["usage"])
        return Spoken("".join(work.memo.pieces(call.key)), call.before.data["finish"])
    failed = work.history.failed.get(call.key)
    if failed is not None:
        branch.passed(failed.seq, failed.at_us)
        reason = failed.data["reason"]
        raise WorkflowFailed(reason, failed.data["message"], retryable=reason in WORTH_ANOTHER_RUN).of(call.key)
    return None


async def say_turn(work: Work, branch: Branch, question: Question) -> tuple[str, Spoken]:
    """One turn that is awaited as a whole, and its name: a broken attempt is dead, and the turn is made again."""
    async with asking(work, branch, question) as call:
        if (known := recalled(work, branch, call)) is not None:
            return call.key, known
        await work.outside(branch)
        await let_go(work, question, call)

        async def speak(attempt: Attempt) -> Spoken:
            end = await hear(work, question, attempt)
            body = model_call(work, call, attempt, question, end)
            await work.close(branch, body, said=attempt.said, pieces=lambda: (attempt.text,), calls=attempt.asked)
            return Spoken(attempt.text, end.finish)

        return call.key, await attempts(work, branch, call, (question.section, question.shape), speak)


class Speaking:
    """An attempt that has said something: what to say of it when it is stopped from beside."""

    def __init__(self, work: Work, key: str, attempt: Attempt) -> None:
        self._work = work
        self._key = key
        self._attempt = attempt

    async def taken_back(self) -> None:
        """No attempt follows."""
        dead = await self._attempt.said()
        if dead:
            usage = estimated(self._attempt.heard, self._attempt.prompt_chars)
            await self._work.retry("model", self._key, STOPPED, dead, self._attempt.number, again=False, usage=usage)


async def attempts(
    work: Work, branch: Branch, call: Call, where: tuple[str, Shape], speak: Callable[[Attempt], Awaitable[T]]
) -> T:
    """Let it speak until an attempt succeeds or none may follow; what was spent before a crash counts."""
    spent = work.history.spent[call.key]
    policy = replace(work.provider.retries, attempts_max=max(1, work.provider.retries.attempts_max - spent))
    speaking: Attempt | None = None

    async def once(number: int) -> T:
        nonlocal speaking
        await work.go_on(branch)
        kept = work.history.open.get(call.key) if number == 1 else None
        speaking = Attempt(work.writer, call.key, *where, call.attempt + number - 1, kept)
        branch.open = Speaking(work, call.key, speaking)
        work.speaking.add(speaking)
        said = await speak(speaking)
        work.speaking.discard(speaking)
        return said

    async def failed(told: FailedAttempt) -> None:
        assert speaking is not None
        work.speaking.discard(speaking)
        dead = await speaking.said()
        more = told.next_attempt is not None
        why = (told.fault.code, told.fault.message_safe)
        usage = dead_usage(told.fault, speaking.heard, speaking.prompt_chars)
        fact = await work.retry(
            "model", call.key, why, dead, speaking.number, again=more, wait_s=told.wait_s, usage=usage, branch=branch
        )
        branch.open = None
        branch.passed(fact.seq, fact.at_us)

    try:
        return await with_retries(once, failed, policy=policy)
    except ModelFault as fault:
        failure = WorkflowFailed(fault.code, fault.message_safe, retryable=fault.code in WORTH_ANOTHER_RUN)
        raise failure.of(call.key) from fault


def finished(key: str, said: Spoken, on_length: OnLength = "offer") -> Spoken:
    """What was said in a call, if it was said to its end, or as far as the code wants to have it."""
    if said.finish != "stop" and (said.finish, on_length) != ("length", "keep"):
        message = FINISH_MESSAGES.get(said.finish, "The model ended its answer for a reason that is not known here.")
        raise WorkflowFailed(f"model_{said.finish}"[:64], message, retryable=said.finish == "length").of(key)
    return said


def model_call(work: Work, call: Call, attempt: Attempt, question: Question, end: ModelEnd) -> events.ModelCall:
    """How a call ended, and what it has cost; the run has spent that from here on."""
    usage = work.priced(usage_of(end, attempt.heard, attempt.prompt_chars), end.model_served)
    work.usage = work.usage + usage
    request, first_ms = question.request, end.first_piece_ms
    spoken_ms = end.total_ms - (first_ms or 0.0)
    return events.ModelCall(
        name=question.name,
        section=question.section,
        model=request.model,
        model_served=end.model_served,
        parameters=dict(request.parameters),
        prompt_digest=digest([dict(message) for message in request.messages]),
        finish=end.finish,
        usage=usage,
        first_piece_ms=round(first_ms) if first_ms is not None else None,
        per_piece_ms=round(spoken_ms / end.pieces, 2) if end.pieces else None,
        pieces=end.pieces,
        request_id=end.request_id,
        turn=question.turn if question.tools else None,
        on_length=question.on_length if end.finish == "length" else None,
        **provenance(request, end, attempt.text),
        **{**call.closing(), "attempt": attempt.number},
    )
