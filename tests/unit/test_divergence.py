"""Code that does something else than the log says it did: noticed, told with both sides, and never mixed."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.carrying import Carried, Nothing, declared
from worker.run import Run
from worker.stops import Diverged, Halt, WorkflowFailed

Story = Callable[[Run, Nothing], Awaitable[Nothing]]


def same(*values: Any) -> Any:
    return values[0] if values else None


async def ends(run: Run) -> Nothing:
    return await run.validate(Nothing(), [])


async def first(run: Run, _: Nothing) -> Nothing:
    await run.step("one", same, 1)
    await run.finding(Nothing(text="x"), item="x")
    await run.step("two", same, 2)
    return await ends(run)


async def renamed(run: Run, _: Nothing) -> Nothing:
    await run.step("uno", same, 1)
    return await ends(run)


async def inserted(run: Run, _: Nothing) -> Nothing:
    await run.step("one", same, 1)
    await run.step("more", same, 1)
    await run.finding(Nothing(text="x"), item="x")
    await run.step("two", same, 2)
    return await ends(run)


async def removed(run: Run, _: Nothing) -> Nothing:
    await run.step("one", same, 1)
    await run.step("two", same, 2)
    return await ends(run)


async def reordered(run: Run, _: Nothing) -> Nothing:
    await run.step("one", same, 1)
    await run.step("two", same, 2)
    await run.finding(Nothing(text="x"), item="x")
    return await ends(run)


async def cut_short(run: Run, _: Nothing) -> Nothing:
    await run.step("one", same, 1)
    return Nothing()


async def fails_early(run: Run, _: Nothing) -> Nothing:
    await run.step("one", same, 1)
    raise WorkflowFailed("early", "Too early.")


async def another_kind(run: Run, _: Nothing) -> Nothing:
    await run.step("one", same, 1)
    await run.step("finding", same, "x")
    return await ends(run)


async def stopped_before_its_end(story: Story) -> Carried:
    carried = Carried(declared(story))
    await carried.carry(die_at=5)  # accepted, started, one, finding, two
    assert [fact.type for fact in carried.facts[2:]] == ["step", "finding", "step"]
    return carried


@pytest.mark.parametrize(
    ("changed", "history", "code"),
    [
        (renamed, "step     one#1", "step     uno#1"),
        (inserted, "finding  finding#1", "step     more#1"),
        (removed, "finding  finding#1", "step     two#1"),
        (reordered, "finding  finding#1", "step     two#1"),
        (cut_short, "finding  finding#1", "ended"),
        (fails_early, "finding  finding#1", "failed   early"),
        (another_kind, "finding  finding#1", "step     finding#1"),
    ],
)
@pytest.mark.parametrize("digest", ["c1c1", "d2d2"])
async def test_a_call_renamed_inserted_removed_reordered_or_of_another_kind_is_told_with_both_sides(
    changed: Story, history: str, code: str, digest: str
) -> None:
    carried = await stopped_before_its_end(first)
    fault = await carried.carry(workflow=declared(changed, code=digest))
    assert isinstance(fault, Diverged)
    what, of_history, of_code, do = str(fault).splitlines()
    assert "code and history disagree (branch main, place" in what
    assert of_history.startswith(f"  history  {history}  args ")
    assert ", code 1+c1c1" in of_history
    assert " seq " in of_history
    assert of_code.startswith(f"  code     {code}")
    assert of_code.endswith(f", code 1+{digest}")
    if code.startswith("step"):
        assert "unit/test_divergence.py:" in of_code
    assert "version=2 and branch on run.version" in do


async def reworded(run: Run, _: Nothing) -> Nothing:
    await run.step("one", same, 1, "in other words")
    await run.finding(Nothing(text="x"), item="x")
    await run.step("two", same, 2)
    return await ends(run)


async def test_changed_arguments_diverge_under_the_same_code() -> None:
    carried = await stopped_before_its_end(first)
    fault = await carried.carry(workflow=declared(reworded))
    assert isinstance(fault, Diverged)
    assert "restore the arguments" in str(fault)


async def test_changed_arguments_are_answered_from_the_log_under_other_code() -> None:
    carried = await stopped_before_its_end(first)
    assert await carried.carry(workflow=declared(reworded, code="d2d2")) is None
    assert carried.closed() == ["one#1", "finding#1", "two#1", "validate#1"]


async def test_a_call_is_held_against_the_code_that_made_it_not_against_the_last_that_ran() -> None:
    carried = await stopped_before_its_end(first)
    await carried.carry(workflow=declared(reworded, code="d2d2"), die_at=6)
    assert await carried.carry(workflow=declared(reworded, code="d2d2")) is None


async def test_a_branch_knows_its_own_history() -> None:
    def story(*names: str) -> Story:
        async def run_it(run: Run, _: Nothing) -> Nothing:
            async def look(run: Run, word: str) -> None:
                for name in names:
                    await run.step(name, same, word)

            await run.each(["a", "b"], look, key=str)
            return await ends(run)

        return run_it

    carried = Carried(declared(story("x", "y")))
    await carried.carry(die_at=5)
    fault = await carried.carry(workflow=declared(story("y", "x")))
    assert isinstance(fault, Diverged)
    assert "(branch a, place 1)" in str(fault) or "(branch b, place 1)" in str(fault)


def swallowing(kind: type[BaseException]) -> Story:
    async def story(run: Run, _: Nothing) -> Nothing:
        try:
            await run.step("other", same, 1)
        except kind:
            caught.append(kind)
        try:
            await run.step("one", same, 1)
        except kind:
            caught.append(kind)
        return Nothing(text="as if nothing had happened")

    caught: list[type[BaseException]] = []
    return story


@pytest.mark.parametrize("kind", [Exception, BaseException])
async def test_a_divergence_cannot_be_swallowed(kind: type[BaseException]) -> None:
    carried = await stopped_before_its_end(first)
    assert isinstance(await carried.carry(workflow=declared(swallowing(kind))), Diverged)
    assert not carried.of("result")


@pytest.mark.parametrize("kind", [Exception, BaseException])
async def test_a_stop_cannot_be_swallowed(kind: type[BaseException]) -> None:
    async def story(run: Run, _: Nothing) -> Nothing:
        for number in range(50):
            try:
                await run.step("work", same, number)
                if number == 3:
                    assert carried.work is not None
                    carried.work.stop("cancel")
            except kind as fault:
                caught.append(fault)
        return await ends(run)

    caught: list[BaseException] = []
    carried = Carried(declared(story))
    fault = await carried.carry()
    assert isinstance(fault, Halt)
    assert len(carried.of("step")) == 4
    assert len(caught) == (46 if kind is BaseException else 0)


async def test_code_that_calls_on_and_on_after_it_was_left_behind_keeps_nobody_busy() -> None:
    async def story(run: Run, _: Nothing) -> Nothing:
        assert carried.work is not None
        carried.work.stop("cancel")
        while True:
            try:
                await run.step("work", same, 1)
            except BaseException as fault:
                if let_go and isinstance(fault, asyncio.CancelledError):
                    raise
                tries.append(1)
                if len(tries) == 10:
                    carried.work.abandon()

    tries: list[int] = []
    let_go: list[bool] = []
    carried = Carried(declared(story))
    task = asyncio.create_task(carried.carry())
    for _ in range(500):
        await asyncio.sleep(0)
    assert len(tries) == 10
    assert not task.done()
    let_go.append(True)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
