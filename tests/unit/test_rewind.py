"""Streams that a workflow reads: what was made of a broken one is nowhere, and the branch tells it again, whole."""

import asyncio
from typing import Any

import pytest

from tests.carrying import SOON, Carried, Nothing, Scripted, declared, told
from worker.run import Run
from worker.stops import WorkflowFailed

WORDS = ["One. ", "Two and ", "more. ", "Three. "]


def ask(question: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": question}]


async def ends(run: Run, text: str = "") -> Nothing:
    return await run.validate(Nothing(text=text), [])


async def sentences(run: Run, _: Nothing) -> Nothing:
    """A finding for each sentence, made while the model speaks."""
    await run.milestone("Begin")
    await run.step("before", str, 1)
    whole, made = "", 0
    speech = run.model("tell", ask("tell"), section="story")
    async for piece in speech.text():
        whole += piece
        while whole.count(". ") > made:
            made += 1
            await run.milestone("Look", done=made)
            await run.finding(Nothing(text=whole.split(". ")[made - 1]), item=str(made))
    assert speech.said is not None
    assert speech.said.text == whole
    return await ends(run, whole)


def carried_with(cuts: list[int]) -> Carried:
    model = Scripted({"tell": WORDS})
    model.cuts = {"tell": cuts}
    return Carried(declared(sentences), model)


async def test_a_stream_that_is_read_makes_its_calls_under_it() -> None:
    carried = carried_with([])
    assert await carried.carry() is None
    assert carried.of("result")[0].data["output"] == {"text": "".join(WORDS)}
    closing = carried.of("model_call")[0]
    for finding in carried.of("finding"):
        assert finding.data.get("under") == ("tell#1" if finding.seq < closing.seq else finding.data.get("under"))
    assert carried.of("finding")[0].data["under"] == "tell#1"


@pytest.mark.parametrize("cut", range(len(WORDS) + 1))
async def test_a_stream_cut_at_any_piece_leaves_no_trace_in_the_state(cut: int) -> None:
    whole = carried_with([])
    assert await whole.carry() is None
    carried = carried_with([cut])
    assert await carried.carry() is None
    assert told(carried.state) == told(whole.state)
    assert carried.closed() == whole.closed()
    [retry] = carried.of("retry")
    assert (retry.data["key"], retry.data["reason"], retry.data["next_attempt"]) == ("tell#1", "stream_incomplete", 2)
    assert carried.closed().count("before#1") == 1
    assert len([fact for fact in carried.of("step") if fact.data["key"] == "before#1"]) == 1


async def test_what_was_made_of_a_broken_stream_is_not_made_again_by_what_follows_it() -> None:
    carried = carried_with([3])
    carried.model.before = {"tell": [["Wrong. ", "Worse. ", "Worst. ", "Never said."]]}
    assert await carried.carry() is None
    said = [value["text"] for value in told(carried.state)["findings"].values()]
    assert said == ["One", "Two and more", "Three"]
    assert told(carried.state)["sections"] == {"story": "".join(WORDS)}
    [retry] = carried.of("retry")
    dead = {seq for first, last in retry.data["superseded"] for seq in range(first, last + 1)}
    assert dead >= {fact.seq for fact in carried.facts if fact.type in ("token", "finding") and fact.seq < retry.seq}
    assert {fact.seq for fact in carried.of("progress") if 3 < fact.seq < retry.seq} <= dead


async def test_a_stream_read_before_the_one_that_broke_is_read_again_piece_by_piece() -> None:
    async def story(run: Run, _: Nothing) -> Nothing:
        number, text = 0, ""
        async for piece in run.model("first", ask("first"), section="first").text():
            number += 1
            await run.finding(Nothing(text=piece), item=str(number))
        async for piece in run.model("tell", ask("tell"), section="story").text():
            text += piece
        return await ends(run, f"{number} {text}")

    carried = Carried(declared(story), Scripted({"first": ["1", "2", "3", "4", "5", "6"], "tell": WORDS}))
    carried.model.cuts = {"tell": [2]}
    assert await carried.carry() is None
    assert carried.model.asked == ["first", "tell", "tell"]
    number = len([fact for fact in carried.of("token") if fact.data["section"] == "first"])
    assert number > 1
    assert carried.of("result")[0].data["output"] == {"text": f"{number} " + "".join(WORDS)}


async def test_a_stream_that_nobody_reads_is_called_again_alone() -> None:
    async def story(run: Run, _: Nothing) -> Nothing:
        begun.append(1)
        return await ends(run, (await run.model("tell", ask("tell"), section="story")).text)

    begun: list[int] = []
    carried = Carried(declared(story), Scripted({"tell": WORDS}))
    carried.model.cuts = {"tell": [2]}
    assert await carried.carry() is None
    assert len(begun) == 1
    assert len(carried.of("retry")) == 1


async def test_only_the_innermost_branch_runs_again() -> None:
    async def story(run: Run, _: Nothing) -> Nothing:
        begun.append("main")

        async def look(run: Run, word: str) -> str:
            begun.append(word)
            text = ""
            async for piece in run.model("tell", ask(word), section=word).text():
                text += piece
            return text

        return await ends(run, "".join(await run.each(["a", "b"], look, key=str)))

    begun: list[str] = []
    carried = Carried(declared(story), Scripted({"a": ["A1", "A2"], "b": ["B1", "B2"]}))
    carried.model.cuts = {"b": [1]}
    assert await carried.carry() is None
    assert sorted(begun) == ["a", "b", "b", "main"]
    assert carried.of("result")[0].data["output"] == {"text": "A1A2B1B2"}


@pytest.mark.parametrize("die_at", [None, *range(4, 14)])
async def test_a_stream_that_breaks_for_good_fails_the_same_way_live_and_after_a_crash(die_at: int | None) -> None:
    async def story(run: Run, _: Nothing) -> Nothing:
        read = 0
        try:
            async for _piece in run.model("tell", ask("tell"), section="story").text():
                read += 1
                await run.finding(Nothing(), item=str(read))
        except WorkflowFailed as fault:
            seen.append((fault.code, fault.retryable, read))
        return await ends(run)

    seen: list[Any] = []
    carried = Carried(declared(story), Scripted({"tell": WORDS}))
    carried.model.cuts = {"tell": [2, 2, 2, 2, 2, 2]}
    if die_at is not None:
        await carried.carry(die_at=die_at)
    assert await carried.carry() is None
    assert set(seen) == {("stream_incomplete", True, 0)}
    assert not carried.state.sections
    assert not carried.state.findings
    failures = [fact for fact in carried.of("retry") if fact.data["what"] == "model"]
    assert len(failures) == SOON.attempts_max
    assert failures[-1].data.get("next_attempt") is None


@pytest.mark.parametrize("die_at", range(3, 16))
async def test_pieces_are_read_as_the_log_has_them_by_whoever_reads_them(die_at: int) -> None:
    """One that counts pieces makes the same calls after a crash, however the log has joined them."""

    async def story(run: Run, _: Nothing) -> Nothing:
        number = 0
        async for piece in run.model("tell", ask("tell"), section="story").text():
            number += 1
            await run.finding(Nothing(text=piece), item=str(number))
        await run.step("after", str, number)
        return await ends(run)

    carried = Carried(declared(story), Scripted({"tell": WORDS}))
    await carried.carry(die_at=die_at)
    assert await carried.carry() is None
    assert told(carried.state)["sections"] == {"story": "".join(WORDS)}
    assert "".join(value["text"] for value in told(carried.state)["findings"].values()) == "".join(WORDS)


@pytest.mark.parametrize("way", ["break", "aclose"])
@pytest.mark.parametrize("die_at", [None, *range(4, 11)])
async def test_a_stream_that_is_left_early_is_closed_and_what_it_said_stays(way: str, die_at: int | None) -> None:
    async def story(run: Run, _: Nothing) -> Nothing:
        async def look(run: Run) -> str:
            pieces = run.model("tell", ask("tell"), section="story").text()
            async for piece in pieces:
                if way == "break":
                    return piece
                await pieces.aclose()
                return piece
            return ""

        return await ends(run, await run.branch("part", look))

    carried = Carried(declared(story), Scripted({"tell": WORDS}))
    carried.model.hang = asyncio.Event()
    if die_at is not None:
        await carried.carry(die_at=die_at)
    assert await carried.carry() is None
    [call] = carried.of("model_call")
    assert call.data["finish"] == "left"
    assert carried.model.closed
    assert carried.of("result")[0].data["output"]["text"]


async def test_a_break_under_another_stream_takes_both_back() -> None:
    async def story(run: Run, _: Nothing) -> Nothing:
        told: list[str] = []
        async for piece in run.model("outer", ask("outer"), section="outer").text():
            told.append(piece)
            told += [inner async for inner in run.model("inner", ask("inner"), section="inner").text()]
        return await ends(run, "".join(told))

    carried = Carried(declared(story), Scripted({"outer": ["a", "b"], "inner": ["1", "2"]}))
    carried.model.cuts = {"inner": [1]}
    assert await carried.carry() is None
    text = carried.of("result")[0].data["output"]["text"]
    assert text.replace("12", "") in ("ab",)
    assert told(carried.state)["sections"]["outer"] == "ab"
    assert set(told(carried.state)["sections"]["inner"]) == {"1", "2"}


async def test_a_rewind_that_is_swallowed_happens_all_the_same() -> None:
    async def story(run: Run, _: Nothing) -> Nothing:
        text = ""
        try:
            async for piece in run.model("tell", ask("tell"), section="story").text():
                text += piece
        except BaseException:  # noqa: BLE001 - that is the point
            return Nothing(text="half")
        return await ends(run, text)

    carried = Carried(declared(story), Scripted({"tell": WORDS}))
    carried.model.cuts = {"tell": [2]}
    assert await carried.carry() is None
    assert carried.of("result")[0].data["output"] == {"text": "".join(WORDS)}


async def test_a_stop_closes_the_connection_of_a_stream_that_is_read() -> None:
    async def story(run: Run, _: Nothing) -> Nothing:
        text = ""
        async for piece in run.model("tell", ask("tell"), section="story").text():
            text += piece
            if text == "".join(WORDS):
                reading.set()
        return await ends(run)

    reading = asyncio.Event()
    carried = Carried(declared(story), Scripted({"tell": WORDS}))
    carried.model.hang = asyncio.Event()
    task = asyncio.create_task(carried.carry())
    await reading.wait()
    for _ in range(20):  # now the code waits for a piece that never comes
        await asyncio.sleep(0)
    assert carried.work is not None
    carried.work.stop("cancel")
    for _ in range(20):
        await asyncio.sleep(0)
    assert carried.model.closed == ["tell"]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("read", [True, False])
async def test_a_draft_that_was_held_back_for_good_fails_the_same_way_after_a_crash(read: bool) -> None:
    async def story(run: Run, _: Nothing) -> Nothing:
        speech = run.model("tell", ask("tell"), section="story", hold=lambda text, ended: 0)
        try:
            if read:
                async for _piece in speech.text():
                    pass
            else:
                await speech
        except WorkflowFailed as fault:
            seen.append(fault.code)
        await run.step("after", str, 1)
        return await ends(run)

    seen: list[str] = []
    carried = Carried(declared(story), Scripted({"tell": ["word " * 500] * 3}))
    await carried.carry(die_at=4)
    assert await carried.carry() is None
    assert set(seen) == {"limit_hold_chars_max"}
    assert carried.model.asked == ["tell"]
    assert not carried.of("token")
