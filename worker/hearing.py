"""One answer of a model on its way into the log, gone on with after a cut or at its length where that is wanted."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final, cast

from worker.llm.continuing import Joint, continued, with_room
from worker.llm.model import FaultCode, ModelEnd, ModelFault, Usage
from worker.llm.retrying import FailedAttempt, with_retries
from worker.memo import Call
from worker.orders import tool_call
from worker.provenance import CHARS_PER_TOKEN, dead_usage
from worker.questions import Question
from worker.speech import Attempt, listen
from worker.stops import WorkflowFailed
from worker.work import Work

FINISH_MESSAGES: Final[Mapping[str, str]] = {
    "length": "The model reached its length limit before it was done.",
    "content_filter": "The model's provider withheld the answer because of what it says.",
    "refused": "The model declined to answer.",
}
LENGTHS_MAX: Final = 8  # how often an answer is gone on with at its length limit


async def hear(work: Work, question: Question, attempt: Attempt) -> ModelEnd:
    """Let one attempt be spoken into the log. What ends it for good on our side is a fault like any other: told in the
    log, and the same after a crash."""
    try:
        end = await _hear(work, question, attempt)
        if question.tools and end.finish == "tool_calls":
            for number, piece in enumerate(attempt.calls, start=1):
                attempt.ask(tool_call(question.tools, question.guard, attempt.key, attempt.number, number, piece))
        return end
    except WorkflowFailed as fault:
        raise ModelFault(cast("FaultCode", fault.code), fault.message, retryable=False) from fault
    finally:
        work.model_closed_us = work.clock_us()


def goes_on(work: Work, question: Question, key: str) -> bool:
    """Whether a cut answer is gone on with: where the code wants that, and one that an earlier run left at its length.
    A value is only where the provider promises not to begin anew."""
    if question.shape != "text":
        return question.resume == "continue" and work.provider.continue_by != "ask"
    return question.resume == "continue" or key in work.history.cut


async def let_go(work: Work, question: Question, call: Call) -> None:
    """What an earlier owner left to be gone on with is dead when the code does not want that any more."""
    kept = work.history.open.get(call.key)
    if kept is not None and not goes_on(work, question, call.key):
        await work.start_again(call.key, kept)


async def _hear(work: Work, question: Question, attempt: Attempt) -> ModelEnd:
    end = await _after_cuts(work, question, attempt)
    if question.shape == "json":
        _refuse_cut_value(work, question, attempt, end)
        return end
    for _ in range(LENGTHS_MAX if question.on_length == "continue" else 0):
        said = len(attempt.text)
        if end.finish != "length":
            break
        end = _both(end, await _after_cuts(work, question, attempt))
        if len(attempt.text) == said:
            break
    return end


async def _after_cuts(work: Work, question: Question, attempt: Attempt) -> ModelEnd:
    """One answer, gone on with after each cut as often as it may be tried; nothing that was said is dead."""
    if not goes_on(work, question, attempt.key):
        return await _once(work, question, attempt)
    attempt.resume = "continue"
    spent = work.history.spent[attempt.key]
    policy = replace(work.provider.retries, attempts_max=max(1, work.provider.retries.attempts_max - spent))

    async def once(_: int) -> ModelEnd:
        attempt.heard = 0
        return await _once(work, question, attempt)

    async def cut(told: FailedAttempt) -> None:
        if told.next_attempt is None:
            return  # whoever makes the attempts tells of the last one, with all that is dead then
        why = (told.fault.code, told.fault.message_safe)
        usage = dead_usage(told.fault, attempt.heard, attempt.prompt_chars)
        wait_s = told.wait_s
        await work.retry("model", attempt.key, why, [], attempt.number, again=True, wait_s=wait_s, usage=usage)
        attempt.number += 1

    try:
        return await with_retries(once, cut, policy=policy)
    except ModelFault as fault:
        fault.retryable = False  # it was tried as often as it may be
        raise


async def _once(work: Work, question: Question, attempt: Attempt) -> ModelEnd:
    """One request: for all of the answer, or for what follows what was said of it."""
    request, joint, by = question.request, None, work.provider.continue_by
    if attempt.key in work.cut_short:
        request = with_room(request, work.cut_short[attempt.key])
    if attempt.text:
        request, joint = continued(request, attempt.text, by), Joint(attempt.text, by)
    return await listen(work.provider.model, request, attempt, question.guard, joint)


def _refuse_cut_value(work: Work, question: Question, attempt: Attempt, end: ModelEnd) -> None:
    """Half a value is none: it is asked for once more with more room."""
    if end.finish != "length" or question.on_length == "keep":
        return
    spoken = end.usage.output_tokens if end.usage is not None else attempt.heard // CHARS_PER_TOKEN
    work.cut_short[attempt.key] = max(1, spoken)
    fault = ModelFault("model_length", FINISH_MESSAGES["length"], retryable=True, retries_max=1)
    fault.usage = end.usage
    raise fault


def _both(end: ModelEnd, more: ModelEnd) -> ModelEnd:
    """Two answers that are one."""
    usage = _sum(end.usage, more.usage) if end.usage is not None and more.usage is not None else None
    return replace(
        more,
        usage=usage,
        first_piece_ms=end.first_piece_ms,
        total_ms=end.total_ms + more.total_ms,
        pieces=end.pieces + more.pieces,
    )


def _sum(one: Usage, other: Usage) -> Usage:
    return Usage(
        one.input_tokens + other.input_tokens,
        one.output_tokens + other.output_tokens,
        one.cached_tokens + other.cached_tokens,
        one.reasoning_tokens + other.reasoning_tokens,
    )
