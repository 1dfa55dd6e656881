"""Branches taken one by one: in the log's order, the same for every owner, and all ended when the loop is."""

import asyncio
from random import Random
from typing import Any

import pytest

from tests.carrying import Carried, Nothing, Scripted, declared, told
from worker.run import Run
from worker.stops import StepFailed, WorkflowFailed

WORDS = ["a", "b", "c", "d", "e", "f"]
SCRIPT = {word: [f"{word}{number} " for number in range(1 + WORDS.index(word) * 5 % 4)] for word in WORDS}


def ask(question: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": question}]


async def look(run: Run, word: str) -> str:
    if word == "e":  # makes nothing at all: it has ended as soon as it begins
        return word
    await run.finding(Nothing(text=word), item=word)
    if word in "bd":
        async for _ in run.model("tell", ask(word), section=word).text():
            pass
    else:
        await run.model("tell", ask(word), section=word)
    return word


async def story(run: Run, _: Nothing) -> Nothing:
    arriving = run.as_done(WORDS, look, key=str, parallel=3, milestone="Look")
    taken = [await run.step("take", str, word) async for word in arriving]
    return await run.validate(Nothing(text="".join(taken)), [])


def carried_with(seed: int, code: Any = story) -> Carried:
    rng = Random(seed)
    return Carried(declared(code), Scripted(SCRIPT, rng), rng)


def taken(carried: Carried) -> str:
    return "".join(fact.data["output"] for fact in carried.of("step") if fact.data["name"] == "take")


@pytest.mark.parametrize("seed", range(12))
async def test_values_are_taken_in_the_order_of_the_log_and_by_every_owner_alike(seed: int) -> None:
    whole = carried_with(seed)
    assert await whole.carry() is None
    order = taken(whole)
    assert sorted(order) == WORDS
    ends = [fact.data["key"][0] for fact in whole.of("model_call")]
    assert [word for word in order if word != "e"] == ends
    for die_at in range(2, len(whole.facts), 2):
        carried = carried_with(seed + 100)
        carried.facts = whole.facts[:die_at]  # as the owner that went another way has left it
        assert await carried.carry() is None, f"died at {die_at}"
        before = "".join(
            fact.data["output"] for fact in whole.facts[:die_at] if fact.type == "step" and fact.data["name"] == "take"
        )
        assert taken(carried).startswith(before), f"died at {die_at}"
        assert carried.state.result is not None
        assert sorted(carried.state.result["output"]["text"]) == WORDS
        assert len(set(carried.closed())) == len(carried.closed())


async def test_the_orders_do_differ() -> None:
    orders = set()
    for seed in range(12):
        carried = carried_with(seed)
        await carried.carry()
        orders.add(taken(carried))
    assert len(orders) > 2


@pytest.mark.parametrize("seed", range(6))
async def test_an_owner_that_dies_while_streams_break_leaves_an_order_that_the_next_one_keeps(seed: int) -> None:
    def broken() -> Carried:
        carried = carried_with(seed)
        carried.model.cuts = {"b": [0], "d": [1], "c": [0]}
        return carried

    whole = broken()
    assert await whole.carry() is None
    for die_at in range(2, len(whole.facts), 3):
        carried = broken()
        await carried.carry(die_at=die_at)
        before = taken(carried)
        assert await carried.carry() is None, f"died at {die_at}"
        assert taken(carried).startswith(before)
        assert carried.state.result is not None
        assert told(carried.state)["status"] == "completed"


async def race(run: Run, _: Nothing) -> Nothing:
    first = ""
    async with run.as_done(WORDS, look, key=str) as done:
        async for word in done:
            first = await run.step("take", str, word)
            break
    after = await run.step("after", str, first)
    return await run.validate(Nothing(text=after), [])


@pytest.mark.parametrize("seed", range(6))
async def test_leaving_the_loop_stops_the_others_and_every_owner_leaves_it_there(seed: int) -> None:
    whole = carried_with(seed, race)
    assert await whole.carry() is None
    assert whole.state.result is not None
    first = whole.state.result["output"]["text"]
    assert first == taken(whole)
    assert sorted(whole.model.closed) == sorted(whole.model.asked)
    took = next(fact.seq for fact in whole.of("step"))
    for die_at in range(took, len(whole.facts)):
        carried = carried_with(seed + 50, race)
        carried.facts = whole.facts[:die_at]
        assert await carried.carry() is None, f"died at {die_at}"
        assert carried.state.result is not None
        assert carried.state.result["output"]["text"] == first


@pytest.mark.parametrize("seed", range(6))
async def test_a_failure_is_raised_in_its_turn_and_stops_the_others(seed: int) -> None:
    async def fails(run: Run, word: str) -> str:
        if word == "c":
            await run.step("refuse", refuse)
        return await look(run, word)

    def refuse() -> None:
        raise WorkflowFailed("refused", "It was refused.")

    async def story(run: Run, _: Nothing) -> Nothing:
        taken = ""
        try:
            async for word in run.as_done(WORDS, fails, key=str, parallel=2):
                taken += await run.step("take", str, word)
        except StepFailed as fault:
            taken += fault.code
        return await run.validate(Nothing(text=taken), [])

    whole = carried_with(seed, story)
    assert await whole.carry() is None
    assert whole.state.result is not None
    assert whole.state.result["output"]["text"].endswith("refused")
    for die_at in range(2, len(whole.facts)):
        carried = carried_with(seed + 50, story)
        carried.facts = whole.facts[:die_at]
        assert await carried.carry() is None, f"died at {die_at}"
        assert carried.state.result is not None
        assert carried.state.result["output"]["text"].endswith("refused")


async def test_branches_that_nobody_takes_any_more_end_with_the_branch_that_opened_them() -> None:
    async def quick(run: Run, word: str) -> str:
        return word if word == "a" else await look(run, word)

    async def hanging(run: Run, _: Nothing) -> Nothing:
        async for _word in run.as_done(WORDS, quick, key=str):
            break
        return await run.validate(Nothing(), [])

    carried = carried_with(1, hanging)
    carried.model.hang = asyncio.Event()
    assert await carried.carry() is None
    assert carried.model.asked
    assert sorted(carried.model.closed) == sorted(carried.model.asked)
    assert not carried.state.sections


async def test_a_second_call_while_the_next_value_is_awaited_is_refused() -> None:
    async def story(run: Run, _: Nothing) -> Nothing:
        values = run.as_done(WORDS, look, key=str)
        one = asyncio.ensure_future(anext(values))
        await asyncio.sleep(0)
        await run.step("meanwhile", str, 1)
        await one
        return Nothing()

    carried = carried_with(1, story)
    assert "two calls at once" in str(await carried.carry())


async def test_keys_that_come_twice_are_refused() -> None:
    async def story(run: Run, _: Nothing) -> Nothing:
        async for _word in run.as_done(["a", "a"], look, key=str):
            pass
        return Nothing()

    assert "same key" in str(await carried_with(1, story).carry())
