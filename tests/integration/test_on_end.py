"""What code registers for its run's end is done outside, whatever the end and whoever dies over it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest

from eventstore import log
from eventstore.domain.record import Fact
from eventstore.domain.run import fold
from tests.carrying import Code, Nothing
from tests.running import until
from tests.staging import Stage
from worker.run import Run
from worker.steps import StepContext
from worker.stops import WorkflowFailed

Part = Callable[[Run], Awaitable[object]]


class Outside:
    """What is taken and must be given back."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.given_back: list[str] = []
        self.reached = asyncio.Event()
        self.hang = asyncio.Event()

    async def give_back(self, context: StepContext, name: str) -> None:
        self.keys.append(context.idempotency_key)
        self.given_back.append(name)

    async def never(self) -> None:
        await asyncio.Event().wait()

    async def wait(self) -> None:
        self.reached.set()
        await self.hang.wait()


@pytest.fixture
def outside() -> Outside:
    return Outside()


def story_of(outside: Outside, part: Part) -> Code:
    async def story(run: Run, _: Nothing) -> Nothing:
        await run.on_end(outside.give_back, "room", name="give back the room")
        await run.on_end(outside.give_back, "key", name="give back the key")
        await run.finding(Nothing(text="kept"), item="x")
        await part(run)
        return await run.validate(Nothing(), [])

    return story


def ends_of(facts: list[Fact]) -> list[tuple[str, str]]:
    """What was done at the end: its name and how it went."""
    return [
        (fact.data["name"], fact.data["status"])
        for fact in facts
        if fact.type == "step" and "give back" in fact.data["name"] and fact.data["status"] != "intent"
    ]


BOTH = [("give back the key", "ok"), ("give back the room", "ok")]


async def nothing(run: Run) -> None:
    pass


async def raises(run: Run) -> None:
    raise ValueError("a mistake")


async def fails(run: Run) -> None:
    raise WorkflowFailed("no_luck", "No luck today.")


async def hangs(run: Run) -> None:
    await asyncio.Event().wait()


async def tells_too_much(run: Run) -> None:
    for number in range(100):
        await run.finding(Nothing(text=str(number)), item=str(number))


async def misuses(run: Run) -> None:
    await run.step("a/b", str, 1)


@pytest.mark.parametrize(
    ("part", "limits", "end"),
    [
        (nothing, {}, "result"),
        (raises, {}, "workflow_failed"),
        (fails, {}, "no_luck"),
        (hangs, {"run_s": 0.3}, "limit_run_s"),
        (tells_too_much, {"events_max": 20}, "limit_events_max"),
        (misuses, {}, "workflow_misuse"),
    ],
)
async def test_it_is_done_before_the_last_event_whatever_the_end(
    stage: Stage, outside: Outside, part: Part, limits: dict[str, float], end: str
) -> None:
    stage.play(story_of(outside, part))
    facts = await stage.ended(await stage.submit(**limits))
    assert facts[-1].data.get("code", facts[-1].type) == end
    assert ends_of(facts) == BOTH
    assert outside.given_back == ["key", "room"]
    assert [fact.type for fact in facts[-3:-1]] == ["step", "step"]


async def test_it_is_done_after_a_cancel_and_after_the_models_connection_is_closed(
    stage: Stage, outside: Outside
) -> None:
    async def speak(run: Run) -> None:
        await run.model("tell", [{"role": "user", "content": "a"}], section="a")

    stage.model.hang = asyncio.Event()
    stage.play(story_of(outside, speak))
    run_id = await stage.submit()
    task = stage.own(run_id)
    await stage.runs.has(run_id, "token")
    await stage.runs.cancel(run_id)
    await task
    facts = await stage.runs.ended(run_id)
    assert [fact.type for fact in facts[-4:]] == ["cancel_observed", "step", "step", "cancelled"]
    assert ends_of(facts) == BOTH
    assert stage.model.closed == ["a"]


async def test_it_is_not_done_while_the_run_only_changes_hands_or_waits(stage: Stage, outside: Outside) -> None:
    async def rests(run: Run) -> None:
        await run.step("wait", outside.wait)
        await run.sleep("rest", 3_600)

    stage.play(story_of(outside, rests))
    run_id = await stage.submit()
    handover = asyncio.Event()
    task = stage.own(run_id, handover)
    await outside.reached.wait()
    handover.set()
    await task
    outside.hang.set()
    await stage.own(run_id)
    assert await _parked(stage, run_id)
    facts = await stage.runs.facts(run_id)
    assert "retry" in {fact.type for fact in facts}
    assert not ends_of(facts)
    assert not outside.given_back


async def _parked(stage: Stage, run_id: UUID) -> bool:
    async with stage.runs.engine.connect() as connection:
        head = await log.head(connection, run_id)
    return head is not None and head.status == "running"


async def test_what_takes_too_long_at_the_end_does_not_hold_it_up(stage: Stage, outside: Outside) -> None:
    async def story(run: Run, _: Nothing) -> Nothing:
        await run.on_end(outside.give_back, "room", name="give back the room")
        await run.on_end(outside.never, name="give back what nobody wants")
        return await run.validate(Nothing(text="done"), [])

    stage.play(story)
    async with asyncio.timeout(10):
        facts = await stage.ended(await stage.submit(on_end_s=0.2))
    assert ends_of(facts) == [("give back what nobody wants", "failed"), ("give back the room", "failed")]
    assert all(fact.data["error"].startswith("limit_on_end_s") for fact in facts[-3:-1])
    assert (facts[-1].type, facts[-1].data["output"]) == ("result", {"text": "done"})


async def test_an_owner_that_dies_anywhere_leaves_it_to_be_done_with_the_same_key(
    stage: Stage, outside: Outside
) -> None:
    stage.play(story_of(outside, nothing))
    whole = await stage.ended(await stage.submit())
    for at_seq in range(2, len(whole)):
        outside.keys.clear()
        run_id = await stage.submit(attempts_max=5)
        task = stage.own(run_id)

        async def reached(run_id: UUID = run_id, task: Any = task, at_seq: int = at_seq) -> bool | None:
            async with stage.runs.engine.connect() as connection:
                head = await log.head(connection, run_id)
            return True if task.done() or (head is not None and head.seq >= at_seq) else None

        await until(reached, f"seq {at_seq}")
        await stage.die(run_id)
        facts = await stage.ended(run_id)
        assert facts[-1].type == "result", f"died at {at_seq}"
        assert set(ends_of(facts)) == set(BOTH), f"died at {at_seq}"
        assert len(ends_of(facts)) == 2, f"died at {at_seq}"
        assert set(outside.keys) == {f"{run_id}/give back the {name}#1" for name in ("room", "key")}


async def test_a_run_that_nobody_works_on_is_cleaned_up_when_it_is_cancelled_and_nothing_else_is_begun(
    stage: Stage, outside: Outside
) -> None:
    async def waits(run: Run) -> None:
        await run.step("wait", outside.wait)
        await run.step("after", outside.wait)

    stage.play(story_of(outside, waits))
    run_id = await stage.submit()
    stage.own(run_id)
    await outside.reached.wait()
    await stage.die(run_id)
    outside.reached.clear()
    await stage.runs.cancel(run_id)
    facts = await stage.ended(run_id)
    assert facts[-1].type == "cancelled"
    assert ends_of(facts) == BOTH
    assert not outside.reached.is_set()
    assert len([fact for fact in facts if fact.type == "step" and fact.data["status"] == "intent"]) == 2


async def test_a_run_that_was_given_up_says_what_was_left_undone(stage: Stage, outside: Outside) -> None:
    async def waits(run: Run) -> None:
        await run.step("wait", outside.wait)

    stage.play(story_of(outside, waits))
    run_id = await stage.submit(attempts_max=1)
    stage.own(run_id)
    await outside.reached.wait()
    await stage.die(run_id)
    facts = await stage.ended(run_id)
    assert facts[-1].data["code"] == "attempts_exhausted"
    assert ends_of(facts) == [("give back the room", "failed"), ("give back the key", "failed")]
    assert facts[-2].data["error"] == "give back the key was left undone."
    assert outside.given_back == []


async def test_a_run_that_has_begun_to_clean_up_goes_no_further(stage: Stage, outside: Outside) -> None:
    lucky = False

    async def luck(run: Run) -> None:
        if not lucky:
            raise WorkflowFailed("no_luck", "No luck today.")
        await run.step("go on", str, 1)

    async def story(run: Run, _: Nothing) -> Nothing:
        await run.on_end(outside.wait, name="give back what takes long")
        return await story_of(outside, luck)(run, Nothing())  # type: ignore[return-value]

    stage.play(story)
    run_id = await stage.submit()
    stage.own(run_id)
    await outside.reached.wait()
    await stage.die(run_id)
    lucky = True
    outside.hang.set()
    facts = await stage.ended(run_id)
    assert ends_of(facts) == [*BOTH, ("give back what takes long", "ok")]
    assert facts[-1].data["code"] == "no_luck"
    assert "go on" not in {fact.data.get("name") for fact in facts}
    assert fold(facts).status == "failed"
