"""Branches: names and places of their own, results in order, and a failure that the log decides."""

import asyncio
from typing import Any

import pytest

from eventstore.domain.events import Decision, Person, new_event
from tests.carrying import Carried, Nothing, declared
from tests.writing import NOW_US
from worker.run import Run
from worker.steps import Retry
from worker.stops import Misused, WorkflowFailed


def same(value: Any) -> Any:
    return value


async def fail(code: str) -> None:
    raise WorkflowFailed(code, f"It failed: {code}.")


async def ends(run: Run, text: str) -> Nothing:
    return await run.validate(Nothing(text=text), [])


async def test_each_answers_in_the_order_of_its_items_and_names_calls_by_branch() -> None:
    order: list[str] = []

    async def story(run: Run, _: Nothing) -> Nothing:
        async def look(run: Run, word: str) -> str:
            for turn in range({"a": 3, "b": 1, "c": 2}[word]):
                await run.step("look", same, turn)
            order.append(word)
            return word.upper()

        return await ends(run, "".join(await run.each(["a", "b", "c"], look, key=str, milestone="Look")))

    carried = Carried(declared(story))
    assert await carried.carry() is None
    assert carried.of("result")[0].data["output"] == {"text": "ABC"}
    assert order == ["b", "c", "a"]
    assert sorted(carried.closed()) == [
        "a/look#1", "a/look#2", "a/look#3", "b/look#1", "c/look#1", "c/look#2", "validate#1",
    ]  # fmt: skip
    assert [fact.data["place"] for fact in carried.of("step") if fact.data["key"].startswith("a/")] == [1, 2, 3]
    assert [(fact.data["done"], fact.data["of"]) for fact in carried.of("progress")] == [(1, 3), (2, 3), (3, 3)]


async def test_no_more_branches_run_beside_each_other_than_may() -> None:
    under_way, most = 0, 0

    async def count(item: str) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        for _ in range(20):
            await asyncio.sleep(0)
        under_way -= 1

    async def story(run: Run, _: Nothing) -> Nothing:
        await run.each("abcdefgh", lambda run, item: run.step("count", count, item), key=str, parallel=3)
        return await ends(run, "")

    assert await Carried(declared(story)).carry() is None
    assert most == 3


async def test_branches_within_branches_and_keys_that_hold_what_separates() -> None:
    async def story(run: Run, _: Nothing) -> Nothing:
        async def outer(run: Run, name: str) -> dict[str, int]:
            return await run.gather({"x": lambda run: run.step("s", same, 1), "y": lambda run: run.step("s", same, 2)})

        assert await run.each(["4/1", "4~1#2"], outer, key=str) == [{"x": 1, "y": 2}] * 2
        await run.each(["4/1"], outer, key=str)
        await run.branch("alone", lambda run: run.step("s", same, 3))
        return await ends(run, "")

    carried = Carried(declared(story))
    assert await carried.carry() is None
    assert sorted(carried.closed()) == [
        "4~01~22/x/s#1", "4~01~22/y/s#1", "4~11#2/x/s#1", "4~11#2/y/s#1", "4~11/x/s#1", "4~11/y/s#1",
        "alone/s#1", "validate#1",
    ]  # fmt: skip


async def test_two_calls_at_once_in_a_branch_are_refused_at_the_first_run_with_both_lines() -> None:
    async def story(run: Run, _: Nothing) -> Nothing:
        await asyncio.gather(run.step("one", same, 1), run.step("two", same, 2), return_exceptions=True)
        return await ends(run, "")

    fault = await Carried(declared(story)).carry()
    assert isinstance(fault, Misused)
    line = story.__code__.co_firstlineno + 1
    assert str(fault).count(f"unit/test_branches.py:{line}") == 2
    assert "two" in str(fault)


async def test_the_branch_above_is_busy_while_its_branches_run() -> None:
    async def story(run: Run, _: Nothing) -> Nothing:
        async def look(_: Run, word: str) -> None:
            await run.step("look", same, word)  # the wrong run

        await run.each(["a"], look, key=str)
        return await ends(run, "")

    fault = await Carried(declared(story)).carry()
    assert isinstance(fault, Misused)
    assert "each at" in str(fault)


@pytest.mark.parametrize("key", ["same", ""])
async def test_keys_that_name_two_branches_or_none_are_refused(key: str) -> None:
    async def story(run: Run, _: Nothing) -> Nothing:
        await run.each([1, 2], lambda run, item: run.step("s", same, item), key=lambda _: key)
        return await ends(run, "")

    carried = Carried(declared(story))
    assert isinstance(await carried.carry(), Misused)
    assert not carried.of("step")


@pytest.mark.parametrize("name", ["a/b", "a#1", ""])
async def test_a_name_that_could_be_mistaken_for_a_path_is_refused(name: str) -> None:
    async def story(run: Run, _: Nothing) -> Nothing:
        await run.step(name, same, 1)
        return await ends(run, "")

    assert isinstance(await Carried(declared(story)).carry(), Misused)


async def test_the_first_failure_by_the_log_stops_the_others_and_closes_what_they_had_open() -> None:
    spoken, never = asyncio.Event(), asyncio.Event()

    async def fail_later(code: str) -> None:
        await spoken.wait()
        await fail(code)

    async def story(run: Run, _: Nothing) -> Nothing:
        async def look(run: Run, word: str) -> None:
            if word == "slow":
                await run.draft("speak", speak, section="s")
            await run.step("break", fail_later, word)

        async def speak() -> Any:
            yield "half "
            spoken.set()
            await never.wait()

        await run.each(["slow", "b", "c"], look, key=str)
        return await ends(run, "")

    carried = Carried(declared(story))
    fault = await carried.carry()
    assert isinstance(fault, WorkflowFailed)
    failed = [fact for fact in carried.of("step") if fact.data["status"] == "failed"]
    assert fault.code == failed[0].data["output"]["code"]
    [stopped] = carried.of("retry")
    assert (stopped.data["key"], stopped.data["reason"]) == ("slow/speak#1", "sibling_failed")
    assert "next_attempt" not in stopped.data
    assert not carried.state.sections, "the text of the branch that was stopped lives on"


async def test_all_that_the_log_has_of_a_group_that_failed_is_asked_for_again() -> None:
    """The second branch had said nothing when the first one failed, the third one had: it is begun again as well."""
    never, closed = asyncio.Event(), asyncio.Event()

    async def hang() -> None:
        await never.wait()

    async def fail_last() -> None:
        await closed.wait()
        await fail("a")

    async def story(run: Run, _: Nothing) -> Nothing:
        async def look(run: Run, word: str) -> None:
            if word == "a":
                await run.step("fail", fail_last)
            if word == "b":
                await run.step("hang", hang)
            await run.step("look", same, word)
            closed.set()
            await run.step("hang", hang)

        try:
            await run.each("abc", look, key=str)
        except WorkflowFailed as fault:
            await run.step("caught", same, fault.code)
        return await ends(run, "")

    carried = Carried(declared(story))
    await carried.carry(die_at=5)  # accepted, started, c/look, a/fail, caught
    assert carried.closed() == ["c/look#1", "a/fail#1", "caught#1"]
    assert await carried.carry(workflow=declared(story, parallel=2)) is None
    assert carried.closed() == ["c/look#1", "a/fail#1", "caught#1", "validate#1"]


async def test_collected_failures_stand_where_the_values_would() -> None:
    async def story(run: Run, _: Nothing) -> Nothing:
        async def look(run: Run, word: str) -> str:
            return str(await run.step("look", fail if word == "b" else same, word))

        told = await run.each(["a", "b", "c"], look, key=str, on_error="collect")
        return await ends(run, " ".join(one if isinstance(one, str) else type(one).__name__ for one in told))

    carried = Carried(declared(story))
    assert await carried.carry() is None
    assert carried.of("result")[0].data["output"] == {"text": "a StepFailed c"}


async def test_a_branch_that_is_tried_again_takes_back_what_it_made() -> None:
    async def story(run: Run, _: Nothing) -> Nothing:
        async def part(run: Run) -> str:
            await run.finding(Nothing(text="half"), item="half")
            tries.append(1)
            if len(tries) < 3:
                raise ConnectionError
            return "whole"

        return await ends(run, await run.branch("part", part, retry=Retry(3, first_wait_s=0, jitter_s=0)))

    tries: list[int] = []
    carried = Carried(declared(story))
    assert await carried.carry() is None
    assert [fact.data["next_attempt"] for fact in carried.of("retry")] == [2, 3]
    assert [fact.data["attempt"] for fact in carried.of("finding")] == [1, 2, 3]
    assert carried.closed() == ["part/finding#1", "validate#1"]


async def test_a_branch_that_has_had_an_effect_is_not_tried_again() -> None:
    async def story(run: Run, _: Nothing) -> Nothing:
        async def part(run: Run) -> str:
            await run.step("send", same, "x", effect=True)
            raise ConnectionError

        return await ends(run, await run.branch("part", part, retry=Retry(3, first_wait_s=0, jitter_s=0)))

    carried = Carried(declared(story))
    assert isinstance(await carried.carry(), ConnectionError)
    assert not carried.of("retry")


async def test_what_run_gives_beside_the_calls_is_the_same_for_every_owner_and_differs_by_branch() -> None:
    seen: list[Any] = []

    async def story(run: Run, _: Nothing) -> Nothing:
        async def look(run: Run, word: str) -> tuple[Any, ...]:
            await run.step("look", same, word)
            return run.now(), run.uuid("x"), run.random("y").random(), run.uuid("z")

        seen.append(await run.each(["a", "b"], look, key=str))
        seen[-1] = [*seen[-1], (run.now(), run.deadline, run.version)]
        return await ends(run, "")

    carried = Carried(declared(story, version=3))
    await carried.carry(die_at=5)
    assert await carried.carry() is None
    assert seen[-1][0][1] != seen[-1][1][1] != seen[-1][0][3]
    assert seen[-1][2][2] == 3
    again = Carried(declared(story, version=3), facts=carried.facts[:-1], epoch=carried.epoch)
    again.facts = carried.facts[:-1]
    await again.carry()
    assert seen[-1] == seen[-2]


async def test_a_run_rests_when_all_of_its_branches_wait_and_not_before() -> None:
    go = asyncio.Event()

    async def story(run: Run, _: Nothing) -> Nothing:
        async def look(run: Run, word: str) -> str:
            if word == "work":
                await run.step("work", go.wait)
                return word
            answer = await run.ask("sure", f"{word}?", to="reviewer", choices=("yes", "no"))
            return f"{word}:{answer.choice}"

        return await ends(run, " ".join(await run.each(["one", "two", "work"], look, key=str)))

    carried = Carried(declared(story))
    task = asyncio.create_task(carried.carry())
    for _ in range(200):
        await asyncio.sleep(0)
    assert len(carried.of("escalation")) == 2
    assert carried.work is not None
    waits = carried.work.waits
    resting = asyncio.create_task(waits.all_wait())
    for _ in range(200):
        await asyncio.sleep(0)
    assert not resting.done()
    go.set()
    await asyncio.wait_for(resting, 5)
    carried.work.stop("suspend")
    assert carried.own is not None
    carried.own.cancel()
    await asyncio.gather(task, return_exceptions=True)
    for asked in carried.of("escalation"):
        closing = {name: asked.data[name] for name in ("key", "place", "args", "attempt")}
        by = Person(subject="lea", role="operator")
        decision = Decision(escalation=asked.seq, because="answered", choice="yes", by=by, **closing)
        carried.add(new_event(decision, NOW_US))
    assert await carried.carry() is None
    assert carried.of("result")[0].data["output"] == {"text": "one:yes two:yes work"}
    assert len(carried.of("escalation")) == 2


async def test_a_question_under_an_open_stream_is_refused() -> None:
    async def story(run: Run, _: Nothing) -> Nothing:
        async for _piece in run.model("tell", [{"role": "user", "content": "q"}], section="s").text():
            await run.ask("sure", "Sure?", to="reviewer", choices=("yes", "no"))
        return await ends(run, "")

    carried = Carried(declared(story))
    carried.model.script = {"q": ["a ", "b "]}
    assert isinstance(await carried.carry(), Misused)
    assert not carried.of("escalation")


@pytest.mark.parametrize("in_a_branch", [False, True])
async def test_code_that_ends_the_process_ends_its_run_only(in_a_branch: bool) -> None:
    async def leaves(run: Run) -> None:
        raise SystemExit(3)

    async def story(run: Run, _: Nothing) -> Nothing:
        await (run.gather({"a": leaves}) if in_a_branch else leaves(run))
        return Nothing()

    assert isinstance(await Carried(declared(story)).carry(), RuntimeError)
