"""Which faults are tried again, how often, and what the caller learns before each wait."""

import asyncio

import pytest

from worker.llm.model import ModelFault
from worker.llm.retrying import FailedAttempt, RetryPolicy, with_retries


def busy(retry_after_s: float | None = None) -> ModelFault:
    return ModelFault("provider_busy", "busy", retryable=True, retry_after_s=retry_after_s)


REFUSED = ModelFault("provider_refused", "refused", retryable=False)


class Stage:
    """Plays outcomes one after the other and writes down all that happens, on a clock of its own."""

    def __init__(self, *outcomes: BaseException | str, takes_s: float = 0.0) -> None:
        self.outcomes = list(outcomes)
        self.happened: list[str] = []
        self.failed: list[FailedAttempt] = []
        self.waits: list[float] = []
        self.now = 100.0
        self.takes_s = takes_s

    async def operation(self, attempt: int) -> str:
        self.happened.append(f"attempt {attempt}")
        self.now += self.takes_s
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    async def on_failed(self, failed: FailedAttempt) -> None:
        self.happened.append(f"failed {failed.number}")
        self.failed.append(failed)

    async def sleep(self, seconds: float) -> None:
        self.happened.append("wait")
        self.waits.append(seconds)
        self.now += seconds

    async def play(self, policy: RetryPolicy | None = None) -> str:
        return await with_retries(
            self.operation, self.on_failed, policy=policy or RetryPolicy(), sleep=self.sleep, clock=lambda: self.now
        )


async def test_a_first_success_is_given_without_a_word() -> None:
    stage = Stage("done")
    assert await stage.play() == "done"
    assert stage.happened == ["attempt 1"]


async def test_the_caller_learns_of_a_failure_before_the_wait_and_the_next_attempt() -> None:
    first, second = busy(), busy()
    stage = Stage(first, second, "done")
    assert await stage.play() == "done"
    assert stage.happened == ["attempt 1", "failed 1", "wait", "attempt 2", "failed 2", "wait", "attempt 3"]
    assert [(failed.fault, failed.next_attempt) for failed in stage.failed] == [(first, 2), (second, 3)]
    assert [failed.wait_s for failed in stage.failed] == stage.waits


async def test_the_last_failure_is_told_too_and_its_own_fault_is_raised() -> None:
    last = busy()
    stage = Stage(busy(), busy(), last)
    with pytest.raises(ModelFault) as caught:
        await stage.play()
    assert caught.value is last
    assert stage.happened[-2:] == ["attempt 3", "failed 3"]
    assert stage.failed[-1] == FailedAttempt(3, last, None, 0.0)


async def test_a_fault_that_will_be_refused_again_is_not_tried_again() -> None:
    stage = Stage(REFUSED)
    with pytest.raises(ModelFault) as caught:
        await stage.play()
    assert caught.value is REFUSED
    assert stage.happened == ["attempt 1", "failed 1"]
    assert stage.failed[0].next_attempt is None


@pytest.mark.parametrize(
    "error", [ValueError("a fault of ours"), KeyError("x"), TimeoutError(), asyncio.CancelledError()]
)
async def test_what_is_no_model_fault_passes_at_once(error: BaseException) -> None:
    stage = Stage(error)
    with pytest.raises(type(error)):
        await stage.play()
    assert stage.happened == ["attempt 1"]


async def test_waits_grow_from_a_fifth_of_a_second_with_jitter_up_to_a_bound() -> None:
    stage = Stage(*[busy() for _ in range(8)], "done")
    await stage.play(RetryPolicy(attempts_max=9, longest_wait_s=2.0))
    for number, wait in enumerate(stage.waits):
        assert min(0.2 * 2**number, 2.0) <= wait <= min(0.2 * 2**number + 0.2, 2.0)


async def test_retry_after_is_honoured_and_not_by_all_at_the_same_moment() -> None:
    waits = set()
    for _ in range(5):
        stage = Stage(busy(retry_after_s=7.0), "done")
        await stage.play()
        assert 7.0 <= stage.waits[0] <= 7.5
        waits.add(stage.waits[0])
    assert len(waits) > 1


async def test_a_retry_after_of_half_a_minute_is_the_most_that_is_waited_for() -> None:
    stage = Stage(busy(retry_after_s=30.0), "done")
    assert await stage.play() == "done"
    stage = Stage(busy(retry_after_s=30.5), "never asked")
    with pytest.raises(ModelFault):
        await stage.play()
    assert stage.happened == ["attempt 1", "failed 1"]
    assert stage.failed[0].next_attempt is None


async def test_no_attempt_begins_after_the_total_time_whatever_attempts_are_left() -> None:
    stage = Stage(busy(), busy(), busy(), takes_s=50.0)
    with pytest.raises(ModelFault):
        await stage.play(RetryPolicy(attempts_max=10, total_s=60.0))
    assert [entry for entry in stage.happened if entry.startswith("attempt")] == ["attempt 1", "attempt 2"]


async def test_a_wait_that_would_pass_the_total_time_is_not_begun() -> None:
    stage = Stage(busy(retry_after_s=20.0))
    with pytest.raises(ModelFault):
        await stage.play(RetryPolicy(total_s=10.0))
    assert stage.waits == []


async def test_attempts_are_bounded_whatever_time_is_left() -> None:
    stage = Stage(busy(), busy())
    with pytest.raises(ModelFault):
        await stage.play(RetryPolicy(attempts_max=2, total_s=1e9))
    assert len(stage.failed) == 2


async def test_a_cancel_ends_the_wait_at_once_and_nothing_follows() -> None:
    stage = Stage(busy(), "never asked")
    waiting = asyncio.Event()

    async def endless(_seconds: float) -> None:
        waiting.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(
        with_retries(stage.operation, stage.on_failed, policy=RetryPolicy(), sleep=endless, clock=lambda: stage.now)
    )
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stage.happened == ["attempt 1", "failed 1"]


async def test_a_caller_that_cannot_record_the_failure_is_heard_and_no_attempt_follows() -> None:
    stage = Stage(busy(), "never asked")

    async def lost(_failed: FailedAttempt) -> None:
        raise ConnectionError("the log is away")

    with pytest.raises(ConnectionError):
        await with_retries(stage.operation, lost, policy=RetryPolicy(), sleep=stage.sleep)
    assert stage.happened == ["attempt 1"]


def odd() -> ModelFault:
    return ModelFault("unknown_finish", "odd", retryable=True, retries_max=1)


async def test_a_fault_with_a_bound_of_its_own_is_not_tried_as_often_as_others() -> None:
    last = odd()
    stage = Stage(odd(), last, "never")
    with pytest.raises(ModelFault) as caught:
        await stage.play(RetryPolicy(attempts_max=5))
    assert caught.value is last
    assert [failed.next_attempt for failed in stage.failed] == [2, None]


async def test_such_a_bound_counts_only_faults_of_its_own_kind() -> None:
    stage = Stage(busy(), odd(), busy(), "done")
    assert await stage.play(RetryPolicy(attempts_max=5)) == "done"
