"""Owners that die after any append, streams that break at any piece, and both, under random schedules: the same end."""

from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.carrying import Carried, Nothing, Scripted, declared, told
from worker.declare import tool
from worker.run import Run
from worker.steps import Retry
from worker.stops import WorkflowFailed

SCRIPT = {
    "a": ["Al", "pha."],
    "b": ["Be", "ta", "."],
    "c": ["Gamma."],
    "sum": ["In ", "all: ", "three."],
    "end": ["So ", "it ", "ends."],
}


@tool(shown=("word",))
async def look_up(word: str) -> list[str]:
    """Finds as many things as the word has letters."""
    return list(word)


async def length(word: str) -> int:
    return len(word)


async def refuse(word: str) -> None:
    raise WorkflowFailed("refused", f"{word} was refused.")


def ask(question: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": question}]


async def story(run: Run, _: Nothing) -> Nothing:
    """Branches in branches, streams that are read and such that are not, tools, findings, a failure that is caught."""
    await run.milestone("Begin")
    words = await run.step("words", lambda: ["a", "b", "c"], returns=list[str])

    async def look(run: Run, word: str) -> str:
        found = await run.tool(look_up, word=word)

        async def tell(run: Run) -> str:
            text = ""
            async for piece in run.model("tell", ask(word), section=word).text():
                text += piece
                await run.finding(Nothing(text=text), item=word)
            return text

        async def measure(run: Run) -> int:
            first = await run.step("length", length, word)
            return int(first + await run.step("length", length, word + word))

        parts: dict[str, Any] = await run.gather({"tell": tell, "measure": measure})
        try:
            await run.step("refuse", refuse, word)
        except WorkflowFailed as fault:
            return f"{word}:{parts['tell']}:{parts['measure']}:{len(found)}:{fault.message}"
        return "never"

    told = await run.each(words, look, key=str, parallel=2, milestone="Look")
    failed = await run.each(
        words, lambda run, word: run.step("s", refuse if word == "b" else length, word), key=str, on_error="collect"
    )
    told.append(" ".join(str(one) for one in failed))
    summary = await run.model("sum", ask("sum"), section="sum")
    told.append(await run.branch("last", ending, retry=Retry(2)))
    await run.milestone("End")
    return await run.validate(Nothing(text=" ".join([*told, summary.text])), [])


async def ending(run: Run) -> str:
    return "".join([piece async for piece in run.model("end", ask("end"), section="end").text()])


async def failing(run: Run, _: Nothing) -> Nothing:
    """The first failure by the log decides, and it is caught: whoever comes later must decide the same."""

    async def look(run: Run, word: str) -> str:
        await run.step("length", length, word)
        text = (await run.model("tell", ask(word), section=word)).text
        if word != "a":
            await run.step("refuse", refuse, word)
        await run.finding(Nothing(text=text), item=word)
        return text

    try:
        await run.each(["a", "b", "c"], look, key=str, parallel=3)
    except WorkflowFailed as fault:
        await run.step("caught", str, fault.message)
        return await run.validate(Nothing(text=fault.message), [])
    return Nothing()


def carried_with(code: Any, seed: int | None = None) -> Carried:
    rng = None if seed is None else Random(seed)
    return Carried(declared(code), Scripted(SCRIPT, rng), rng)


def repeated(carried: Carried) -> list[str]:
    closed = carried.closed()
    return [key for key in set(closed) if closed.count(key) > 1]


async def whole() -> Carried:
    carried = carried_with(story)
    assert await carried.carry() is None
    assert told(carried.state)["status"] == "completed"
    return carried


async def test_an_owner_that_dies_after_any_append_leaves_the_same_end() -> None:
    expected = await whole()
    for die_at in range(2, len(expected.facts)):
        carried = carried_with(story)
        await carried.carry(die_at=die_at)
        assert await carried.carry() is None, f"died at {die_at}"
        assert told(carried.state) == told(expected.state), f"died at {die_at}"
        assert not repeated(carried), f"died at {die_at}"


@pytest.mark.parametrize("question", SCRIPT)
async def test_a_stream_that_breaks_at_any_piece_and_an_owner_that_dies_at_any_append_leave_the_same_end(
    question: str,
) -> None:
    expected = await whole()
    for cut in range(len(SCRIPT[question]) + 1):
        broken = carried_with(story)
        broken.model.cuts = {question: [cut]}
        assert await broken.carry() is None
        assert told(broken.state) == told(expected.state), f"cut at {cut}"
        for die_at in range(2, len(broken.facts), 3):
            carried = carried_with(story)
            carried.model.cuts = {question: [cut]}
            await carried.carry(die_at=die_at)
            assert await carried.carry() is None
            assert told(carried.state) == told(expected.state), f"cut at {cut}, died at {die_at}"
            assert not repeated(carried)


@given(
    seed=st.integers(0, 2**32),
    deaths=st.lists(st.integers(0, 60), max_size=4),
    cuts=st.dictionaries(st.sampled_from(sorted(SCRIPT)), st.lists(st.integers(0, 4), max_size=2), max_size=4),
)
@settings(max_examples=150, deadline=None)
async def test_whatever_dies_and_breaks_in_whatever_order_the_end_is_the_same(
    seed: int, deaths: list[int], cuts: dict[str, list[int]]
) -> None:
    expected = await whole()
    carried = carried_with(story, seed)
    carried.model.cuts = {question: [*pieces] for question, pieces in cuts.items()}
    for died_after in deaths:
        if carried.facts[-1].type != "result":
            await carried.carry(die_at=len(carried.facts) + 1 + died_after)
    if carried.facts[-1].type != "result":
        assert await carried.carry() is None
    assert told(carried.state) == told(expected.state)
    assert not repeated(carried)


@given(seed=st.integers(0, 2**32), deaths=st.lists(st.integers(0, 20), max_size=4))
@settings(max_examples=150, deadline=None)
async def test_the_failure_that_was_first_stays_first(seed: int, deaths: list[int]) -> None:
    carried = carried_with(failing, seed)
    for died_after in deaths:
        if carried.facts[-1].type != "result":
            await carried.carry(die_at=len(carried.facts) + 1 + died_after)
    if carried.facts[-1].type != "result":
        assert await carried.carry() is None
    failed = [fact for fact in carried.of("step") if fact.data["status"] == "failed"]
    [caught] = [fact for fact in carried.of("step") if fact.data["name"] == "caught"]
    assert failed[0].data["error"] == caught.data["output"]
    assert carried.of("result")[0].data["output"] == {"text": caught.data["output"]}
    assert not repeated(carried)
