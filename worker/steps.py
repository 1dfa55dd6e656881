"""Durable steps: done once, told as done or failed for ever, and effects whose outcome is asked for after a crash."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn

import structlog
from pydantic import TypeAdapter
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception
from tenacity.wait import wait_exponential_jitter

from eventstore.domain import events, intake
from eventstore.domain.errors import EventStoreError, NotStorable
from worker.branches import Branch
from worker.memo import Call
from worker.stops import Misused, StepFailed, WorkflowFailed
from worker.threads import cut_off, in_thread, kept_in, within
from worker.work import Effect, Work

logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class StepContext:
    """What a step's function may know besides its arguments; it is given to one that asks for it first.

    `idempotency_key` is the same for every attempt at the step, in this process and in any other.
    """

    idempotency_key: str
    attempt: int
    time_left_s: float


@dataclass(frozen=True, slots=True)
class Retry:
    """How often something is tried, after which failures, and how long is waited in between."""

    attempts: int = 3
    on: tuple[type[Exception], ...] = (ConnectionError, TimeoutError)
    first_wait_s: float = 0.2
    longest_wait_s: float = 8.0
    jitter_s: float = 0.2

    def covers(self, fault: BaseException) -> bool:
        """Whether another try may help."""
        return isinstance(fault, self.on)


@dataclass(frozen=True, slots=True)
class Happened:
    """What `verify` answers when the effect took place: the output that the step would have had."""

    output: Any = None


class OutOfTime(TimeoutError):
    """A step took longer than it may."""


Verify = Callable[..., Awaitable[Happened | None]]


@dataclass(frozen=True, slots=True)
class StepOrder:
    """What a step shall do."""

    name: str
    fn: Callable[..., Any]
    args: tuple[Any, ...]
    returns: TypeAdapter[Any]
    retry: Retry
    timeout_s: float
    effect: bool
    verify: Verify | None
    deadline: float
    context: bool


def wants_context(fn: Callable[..., Any]) -> bool:
    """Whether the function's first parameter is declared as a StepContext."""
    try:
        first = next(iter(inspect.signature(fn).parameters.values()), None)
    except (TypeError, ValueError):  # some built-ins do not say what they take
        return False
    return first is not None and (
        first.annotation is StepContext or str(first.annotation).rpartition(".")[2] == "StepContext"
    )


def again(
    retry: Retry,
    spent: int,
    covers: Callable[[BaseException], bool],
    announce: Callable[[RetryCallState], Awaitable[None]],
) -> AsyncRetrying:
    """Tries on, with what was spent in earlier processes counted in."""
    return AsyncRetrying(
        retry=retry_if_exception(covers),
        stop=lambda state: spent + state.attempt_number >= retry.attempts,
        wait=wait_exponential_jitter(multiplier=retry.first_wait_s, max=retry.longest_wait_s, jitter=retry.jitter_s),
        before_sleep=announce,
        sleep=asyncio.sleep,
        reraise=True,
    )


def fault_of(state: RetryCallState) -> BaseException:
    """What the attempt that has just failed raised."""
    fault = state.outcome.exception() if state.outcome is not None else None
    assert fault is not None
    return fault


def recall(call: Call, returns: TypeAdapter[Any]) -> Any:
    """The outcome of a step that the log has: its output, or the failure that it had."""
    assert call.before is not None
    data = call.before.data
    if data["status"] == "failed":
        raise _as_failed(data.get("error", ""), data.get("output") or {}).of(call.key)
    return returns.validate_python(data.get("output"))


def _as_failed(message: str, told: dict[str, Any]) -> StepFailed:
    return StepFailed(
        told.get("code", "step_failed"), message, retryable=told.get("retryable", False), raised=told.get("raised", "")
    )


async def take_step(work: Work, branch: Branch, call: Call, order: StepOrder) -> Any:
    """Do it, as often as it may be tried, and store how it ended before anybody learns of it."""
    if order.effect and (above := branch.under()) is not None:
        raise Misused(
            f"the step {order.name} has an effect outside and was called while the stream {above} is read: if the "
            f"stream breaks, what was made of it is taken back, and an effect cannot be"
        )
    await work.outside(branch)
    if order.effect and (known := await _effect_known(work, branch, call, order)) is not None:
        return known.output
    number = call.attempt - 1

    async def once() -> Any:
        nonlocal number
        number += 1
        await work.go_on(branch)
        return await _do(work, call, order, number)

    async def announce(state: RetryCallState) -> None:
        _, why = _told(order, fault_of(state))
        fact = await work.retry("step", call.key, why, [], number, again=True, wait_s=state.upcoming_sleep)
        branch.passed(fact.seq, fact.at_us)

    try:
        told: Any = await again(order.retry, work.history.spent[call.key], order.retry.covers, announce)(once)
    except EventStoreError as fault:
        if not isinstance(fault, NotStorable):
            raise
        await _fail(work, branch, call, order, number, fault)
    except Exception as fault:  # noqa: BLE001 - whatever a step raises is its outcome, the same after a crash
        await _fail(work, branch, call, order, number, fault)
    except asyncio.CancelledError:
        if call.key in work.effects:
            await _learn_outcome(work, branch, call, order, number)
        raise
    return await _succeed(work, branch, call, order, number, told)


async def _effect_known(work: Work, branch: Branch, call: Call, order: StepOrder) -> Happened | None:
    """The intent comes first. If there is one already, somebody died over it: ask whether it happened."""
    if call.key not in work.history.intents:
        told = {**call.closing(), "output": {"idempotency_key": _idempotency_key(work, call)}}
        await work.intend(branch, events.Step(name=order.name, status="intent", **told))
        return None
    if order.verify is None:
        return None
    happened = await order.verify(_context(work, order, call, call.attempt), *order.args)
    if happened is None:
        return None
    told = _plain(order, happened.output)
    return Happened(await _succeed(work, branch, call, order, call.attempt, told))


async def _do(work: Work, call: Call, order: StepOrder, number: int) -> Any:
    """One attempt; answers the output as JSON says it."""
    args = (_context(work, order, call, number), *order.args) if order.context else order.args
    doing = asyncio.ensure_future(_run(order.fn, args))
    if order.effect:
        # An effect goes on for a while when the run is stopped: somebody must learn what came of it.
        work.effects[call.key] = Effect(order.name, doing)
        await asyncio.wait([doing], timeout=order.timeout_s)
        if not doing.done():
            await cut_off(doing, work.graces.clean_up_s)
            raise OutOfTime(f"{order.name} took longer than {order.timeout_s:g} s")
    elif not await within(doing, order.timeout_s, work.graces.clean_up_s):
        raise OutOfTime(f"{order.name} took longer than {order.timeout_s:g} s")
    if doing.cancelled():
        raise RuntimeError(f"{order.name} was cancelled by itself")
    return _plain(order, doing.result())


async def _run(fn: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    return await (kept_in(fn(*args)) if inspect.iscoroutinefunction(fn) else in_thread(fn, *args))


async def _learn_outcome(work: Work, branch: Branch, call: Call, order: StepOrder, number: int) -> None:
    """The run was stopped over an effect: what came of it is stored if it is known in time, else it stays unknown."""
    doing = work.effects[call.key].doing
    await asyncio.wait([doing], timeout=work.graces.effect_s)
    if not doing.done():
        doing.cancel()
        return
    if doing.cancelled():
        return
    if (fault := doing.exception()) is None:
        await _succeed(work, branch, call, order, number, _plain(order, doing.result()))
    else:
        with suppress(StepFailed):
            await _fail(work, branch, call, order, number, fault)


async def _succeed(work: Work, branch: Branch, call: Call, order: StepOrder, number: int, told: Any) -> Any:
    closing = {**call.closing(), "attempt": number}
    await work.close(branch, events.Step(name=order.name, status="ok", output=told, **closing))
    work.effects.pop(call.key, None)
    return order.returns.validate_python(told)


async def _fail(
    work: Work, branch: Branch, call: Call, order: StepOrder, number: int, fault: BaseException
) -> NoReturn:
    if not isinstance(fault, WorkflowFailed):
        logger.error("a step failed", run_id=str(work.run_id), step=call.key, exc_info=fault)
    output, (_, message) = _told(order, fault)
    closing = {**call.closing(), "attempt": number}
    body = events.Step(name=order.name, status="failed", error=message, output=output, **closing)
    await work.close(branch, body)
    work.effects.pop(call.key, None)
    raise _as_failed(message, output).of(call.key) from fault


def _told(order: StepOrder, fault: BaseException) -> tuple[dict[str, Any], tuple[str, str]]:
    """A failure as it is stored, and in our words: what others raise may say anything."""
    raised, retryable = type(fault).__name__, order.retry.covers(fault)
    if isinstance(fault, WorkflowFailed):
        code, message, retryable = fault.code, fault.message, fault.retryable
    elif isinstance(fault, OutOfTime):
        code, message = "limit_step_s", f"The step {order.name} took longer than it may."
    elif isinstance(fault, NotStorable):
        code, message = "not_storable", f"The output of {order.name} cannot be stored: {fault}"
    else:
        code, message = "step_failed", f"The step {order.name} failed."
    return {"code": code, "retryable": retryable, "raised": raised}, (code, message)


def _plain(order: StepOrder, output: Any) -> Any:
    told = order.returns.dump_python(output, mode="json")
    intake.check(told)
    return told


def _context(work: Work, order: StepOrder, call: Call, number: int) -> StepContext:
    return StepContext(_idempotency_key(work, call), number, max(0.0, order.deadline - time.monotonic()))


def _idempotency_key(work: Work, call: Call) -> str:
    return work.outside_name(call.key)
