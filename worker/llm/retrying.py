"""Trying a model call again: which faults, how often, how long, and telling the caller before each wait."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception
from tenacity.wait import wait_exponential_jitter

from worker.llm.model import FaultCode, ModelFault

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Both bounds hold: no attempt begins past `attempts_max`, and none later than `total_s` after the first."""

    attempts_max: int = 3
    total_s: float = 120.0
    first_wait_s: float = 0.2
    longest_wait_s: float = 8.0
    jitter_s: float = 0.2
    retry_after_max_s: float = 30.0


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """What the caller records: attempt `number` failed; `next_attempt` follows after `wait_s`, or none does."""

    number: int
    fault: ModelFault
    next_attempt: int | None
    wait_s: float


async def with_retries(
    operation: Callable[[int], Awaitable[T]],
    on_failed: Callable[[FailedAttempt], Awaitable[None]],
    *,
    policy: RetryPolicy,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> T:
    """Run `operation(attempt)`, attempt 1, 2, 3 …, until one succeeds or no more may follow; then its fault is raised.

    `on_failed` is awaited after every failed attempt, before the wait, so that the log says what is dead before
    anything new is said. Only a ModelFault that is marked retryable is tried again: whatever else is raised, a cancel
    above all, passes at once. The whole operation is repeated, never a stream that was partly read.
    """
    began = clock()
    number = 0
    met: Counter[FaultCode] = Counter()

    async def attempt() -> T:
        nonlocal number
        number += 1
        try:
            return await operation(number)
        except ModelFault as fault:
            met[fault.code] += 1
            raise

    async def announce(state: RetryCallState) -> None:
        await on_failed(FailedAttempt(number, _fault(state), number + 1, state.upcoming_sleep))

    def no_more(state: RetryCallState) -> bool:
        fault = _fault(state)
        asked, own = fault.retry_after_s, fault.retries_max
        if number >= policy.attempts_max or (asked is not None and asked > policy.retry_after_max_s):
            return True
        if own is not None and met[fault.code] > own:
            return True
        return clock() - began + state.upcoming_sleep > policy.total_s

    retrying = AsyncRetrying(
        retry=retry_if_exception(lambda error: isinstance(error, ModelFault) and error.retryable),
        stop=no_more,
        wait=_wait(policy),
        before_sleep=announce,
        sleep=sleep,
        reraise=True,
    )
    try:
        return await retrying(attempt)
    except ModelFault as fault:
        await on_failed(FailedAttempt(number, fault, None, 0.0))
        raise


def _wait(policy: RetryPolicy) -> Callable[[RetryCallState], float]:
    growing = wait_exponential_jitter(multiplier=policy.first_wait_s, max=policy.longest_wait_s, jitter=policy.jitter_s)

    def wait(state: RetryCallState) -> float:
        """What the provider asked for comes on top: those who were sent away together must not return together."""
        return growing(state) + (_fault(state).retry_after_s or 0.0)

    return wait


def _fault(state: RetryCallState) -> ModelFault:
    error = state.outcome.exception() if state.outcome is not None else None
    assert isinstance(error, ModelFault), "only model faults are tried again"
    return error
