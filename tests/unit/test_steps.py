"""Durable steps: one outcome for ever, retries that count over crashes, effects that happen once outside."""

import asyncio
import threading
from typing import Any

import pytest

from tests.carrying import Carried, Nothing, declared
from tests.histories import RUN
from worker.run import Run
from worker.steps import Happened, Retry, StepContext
from worker.stops import Misused, StepFailed, WorkflowFailed


def soon(attempts: int) -> Retry:
    return Retry(attempts, first_wait_s=0.0, longest_wait_s=0.0, jitter_s=0.0)


async def ends(run: Run, text: str = "") -> Nothing:
    return await run.validate(Nothing(text=text), [])


async def test_a_failure_that_was_caught_is_the_same_one_after_a_crash() -> None:
    async def refuse() -> None:
        asked.append(1)
        raise KeyError("a secret that nobody is told")

    async def story(run: Run, _: Nothing) -> Nothing:
        try:
            await run.step("try", refuse)
        except StepFailed as fault:
            seen.append((fault.code, fault.message, fault.retryable, fault.raised))
        await run.step("after", str, 1)
        return await ends(run)

    asked: list[int] = []
    seen: list[Any] = []
    carried = Carried(declared(story))
    await carried.carry(die_at=4)
    assert await carried.carry() is None
    assert seen[0] == seen[-1] == ("step_failed", "The step try failed.", False, "KeyError")
    assert len(asked) == 1
    assert "secret" not in str([fact.data for fact in carried.facts])


async def test_what_a_step_says_of_its_failure_is_kept() -> None:
    async def story(run: Run, _: Nothing) -> Nothing:
        await run.step("parse", refuse)
        return await ends(run)

    def refuse() -> None:
        raise WorkflowFailed("no_clauses", "No clauses were found.", retryable=True)

    carried = Carried(declared(story))
    fault = await carried.carry()
    assert isinstance(fault, StepFailed)
    assert (fault.code, fault.message, fault.retryable) == ("no_clauses", "No clauses were found.", True)


@pytest.mark.parametrize("die_at", [None, 3, 4])
async def test_a_retry_is_recorded_and_what_was_spent_before_a_crash_counts(die_at: int | None) -> None:
    async def flaky() -> str:
        asked.append(1)
        raise ConnectionError

    async def story(run: Run, _: Nothing) -> Nothing:
        await run.step("fetch", flaky, retry=soon(3))
        return await ends(run)

    asked: list[int] = []
    carried = Carried(declared(story))
    if die_at is not None:
        await carried.carry(die_at=die_at)
    fault = await carried.carry()
    assert isinstance(fault, StepFailed)
    assert fault.raised == "ConnectionError"
    assert [(fact.data["attempt"], fact.data["next_attempt"]) for fact in carried.of("retry")] == [(1, 2), (2, 3)]
    [step] = carried.of("step")
    assert (step.data["status"], step.data["attempt"]) == ("failed", 3)


async def test_only_what_retry_lists_is_tried_again() -> None:
    async def flaky() -> str:
        raise ValueError

    async def story(run: Run, _: Nothing) -> Nothing:
        await run.step("fetch", flaky, retry=soon(3))
        return await ends(run)

    carried = Carried(declared(story))
    assert isinstance(await carried.carry(), StepFailed)
    assert not carried.of("retry")


@pytest.mark.parametrize("sync", [True, False])
async def test_a_step_that_takes_too_long_fails_and_its_late_output_is_nowhere(sync: bool) -> None:
    release, never = threading.Event(), asyncio.Event()

    def slow_thread() -> str:
        release.wait(10)
        return "late"

    async def slow() -> str:
        await never.wait()
        return "late"

    async def story(run: Run, _: Nothing) -> Nothing:
        await run.step("slow", slow_thread if sync else slow, timeout_s=0.01)
        return await ends(run)

    carried = Carried(declared(story))
    fault = await carried.carry()
    release.set()
    assert isinstance(fault, StepFailed)
    assert fault.code == "limit_step_s"
    assert "late" not in str([fact.data for fact in carried.facts])


async def test_a_step_that_asks_for_it_is_told_its_key_its_attempt_and_its_time() -> None:
    async def send(context: StepContext, text: str) -> str:
        seen.append(context)
        if len(seen) == 1:
            raise TimeoutError
        return text

    async def story(run: Run, _: Nothing) -> Nothing:
        return await ends(run, await run.step("send", send, "x", retry=soon(2)))

    seen: list[StepContext] = []
    carried = Carried(declared(story))
    assert await carried.carry() is None
    assert [context.attempt for context in seen] == [1, 2]
    assert {context.idempotency_key for context in seen} == {f"{RUN}/send#1"}
    assert 0 < seen[0].time_left_s <= 180


@pytest.mark.parametrize("verified", [None, True, False])
@pytest.mark.parametrize("die_at", [3, 4])
async def test_an_effect_has_one_key_outside_whoever_dies_over_it(verified: bool | None, die_at: int) -> None:
    async def send(context: StepContext, text: str) -> str:
        sent.append(context.idempotency_key)
        return text

    async def happened(context: StepContext, text: str) -> Happened | None:
        return Happened(text) if context.idempotency_key in sent and verified else None

    async def story(run: Run, _: Nothing) -> Nothing:
        verify = happened if verified is not None else None
        return await ends(run, await run.step("send", send, "x", effect=True, verify=verify))

    sent: list[str] = []
    carried = Carried(declared(story))
    await carried.carry(die_at=die_at)  # 3: the intent is stored, 4: its outcome as well, unknown to its owner
    assert await carried.carry() is None
    assert carried.of("result")[0].data["output"] == {"text": "x"}
    assert len(set(sent)) == 1
    assert [fact.data["status"] for fact in carried.of("step")] == ["intent", "ok"]
    if die_at == 4:
        assert len(sent) == 1


async def test_an_effect_that_verify_knows_of_is_not_done_again() -> None:
    async def send(context: StepContext) -> str:
        sent.append(context.idempotency_key)
        if carried.epoch == 1:
            await asyncio.Event().wait()
        return "sent"

    async def happened(context: StepContext) -> Happened | None:
        return Happened("known") if context.idempotency_key in sent else None

    async def story(run: Run, _: Nothing) -> Nothing:
        return await ends(run, await run.step("send", send, verify=happened))

    sent: list[str] = []
    carried = Carried(declared(story))
    await carried.carry(die_at=3)
    sent[:] = [f"{RUN}/send#1"]  # it had begun when its owner died
    assert await carried.carry() is None
    assert carried.of("result")[0].data["output"] == {"text": "known"}
    assert len(sent) == 1


async def test_an_effect_goes_on_while_the_run_stops_until_its_outcome_is_known() -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def send() -> str:
        begun.set()
        await go.wait()
        return "sent"

    async def story(run: Run, _: Nothing) -> Nothing:
        await run.step("send", send, effect=True)
        return await ends(run)

    carried = Carried(declared(story))
    task = asyncio.create_task(carried.carry())
    await begun.wait()
    assert carried.work is not None
    carried.work.stop("cancel")
    assert carried.own is not None
    carried.own.cancel()
    await asyncio.sleep(0)
    go.set()
    await asyncio.gather(task, return_exceptions=True)
    assert [fact.data["status"] for fact in carried.of("step")] == ["intent", "ok"]
    assert not carried.work.effects


async def test_an_effect_under_an_open_stream_is_refused() -> None:
    async def story(run: Run, _: Nothing) -> Nothing:
        async for _piece in run.model("tell", [{"role": "user", "content": "q"}], section="s").text():
            await run.step("send", str, 1, effect=True)
        return await ends(run)

    carried = Carried(declared(story))
    carried.model.script = {"q": ["a ", "b "]}
    fault = await carried.carry()
    assert isinstance(fault, Misused)
    assert "tell#1" in str(fault)
    assert not carried.of("step")
