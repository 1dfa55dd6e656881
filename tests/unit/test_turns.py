"""A model call with tools: turns that are there whole or not at all, tools that are called once, one end for all."""

import asyncio
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.carrying import Carried, Nothing, Scripted, declared, told
from tests.tooling import MADE, SCRIPT, Answering, ask, call, carried_with, ends, fail, look_up, note, output, story
from worker.declare import tool
from worker.llm.continuing import GO_ON
from worker.run import Run
from worker.stops import Diverged, WorkflowFailed
from worker.turns import Turn, messages_after


@pytest.fixture(autouse=True)
def _nothing_made() -> None:
    MADE.clear()


async def read(run: Run, _: Nothing) -> Nothing:
    """The same, read while it comes, with something made of each piece."""
    await run.step("before", str, 1)
    text, number = "", 0
    speech = run.model("agent", ask("go"), section="answer", tools=[look_up, note, fail])
    async for piece in speech.text():
        text += piece
        await run.finding(Nothing(text=text), item=str(len(text)))
        number += 1
    assert speech.said is not None
    return await ends(run, f"1 {speech.said.text} {speech.said.turns}")


async def test_a_call_goes_on_in_turns_until_the_model_answers() -> None:
    carried = carried_with()
    assert await carried.carry() is None
    assert output(carried) == "1 It is four. 3"
    assert MADE == ["look_up abcd", "look_up xy", "note four"]
    calls = [(fact.data["key"], fact.data["place"], fact.data["turn"]) for fact in carried.of("model_call")]
    assert calls == [("agent#1", 2, 1), ("agent#1.2", 5, 2), ("agent#1.3", 7, 3)]
    results = [(fact.data["key"], fact.data["place"]) for fact in carried.of("tool_result")]
    assert results == [("agent#1:1", 3), ("agent#1:2", 4), ("agent#1.2:1", 6)]
    assert carried.of("model_call")[0].data["tools_digest"]


async def test_what_a_turn_asks_for_is_stored_whole_before_it_is_closed_and_called_after() -> None:
    carried = carried_with()
    assert await carried.carry() is None
    types = [fact.type for fact in carried.facts if fact.type in ("token", "tool_call", "model_call", "tool_result")]
    first = types[: types.index("tool_result")]
    assert first == [*["token"] * first.count("token"), "tool_call", "tool_call", "model_call"]
    asked = carried.of("tool_call")[0].data
    assert (asked["arguments"], asked["shown"]) == ({"word": "abcd"}, {"word": "abcd"})
    assert (asked["turn"], asked["call_id"], asked["provider_id"]) == ("agent#1", "agent#1:1/1", "id_look_up_0")


async def test_the_next_turn_is_asked_with_all_that_the_log_has_of_those_before() -> None:
    carried = carried_with()
    assert await carried.carry() is None
    assert carried.model.requests[2].messages == (
        *ask("go"),
        {
            "role": "assistant",
            "content": "Let me see. ",
            "tool_calls": [
                {"id": f"id_look_up_{n}", "type": "function", "function": {"name": "look_up", "arguments": said}}
                for n, said in enumerate(['{"word":"abcd"}', '{"word":"xy"}'])
            ],
        },
        {"role": "tool", "tool_call_id": "id_look_up_0", "content": '["a","b","c"]'},
        {"role": "tool", "tool_call_id": "id_look_up_1", "content": '["x","y"]'},
        {
            "role": "assistant",
            "content": "Noting.",
            "tool_calls": [
                {"id": "id_note_0", "type": "function", "function": {"name": "note", "arguments": '{"text":"four"}'}}
            ],
        },
        {"role": "tool", "tool_call_id": "id_note_0", "content": "noted: four"},
    )
    [offered] = {str(request.tools) for request in carried.model.requests}
    assert "Finds as many things" in offered


@pytest.mark.parametrize("code", [story, read])
async def test_an_owner_that_dies_after_any_append_asks_the_next_turn_the_same(code: Any) -> None:
    whole = carried_with(code)
    assert await whole.carry() is None
    last = whole.model.requests[-1].messages
    for die_at in range(2, len(whole.facts)):
        carried = carried_with(code)
        await carried.carry(die_at=die_at)
        stored = len(carried.of("tool_result"))
        MADE.clear()
        assert await carried.carry() is None, f"died at {die_at}"
        assert told(carried.state) == told(whole.state), f"died at {die_at}"
        assert len(carried.closed()) == len(set(carried.closed())), f"died at {die_at}"
        assert len(MADE) == 3 - stored, "a tool whose result is stored is not called again"
        if carried.model.asked[-1] == "noted: four":
            assert carried.model.requests[-1].messages == last


@pytest.mark.parametrize("code", [story, read])
@pytest.mark.parametrize("question", SCRIPT)
async def test_a_turn_that_breaks_at_any_piece_is_made_again_and_the_tools_before_it_are_not(
    code: Any, question: str
) -> None:
    whole = carried_with(code)
    assert await whole.carry() is None
    for cut in range(len(SCRIPT[question]) + 1):
        MADE.clear()
        carried = carried_with(code)
        carried.model.cuts = {question: [cut]}
        assert await carried.carry() is None
        assert told(carried.state) == told(whole.state), f"cut at {cut}"
        assert sorted(MADE) == ["look_up abcd", "look_up xy", "note four"]
        assert len(carried.of("retry")) == 1
        for die_at in range(3, len(carried.facts), 3):
            both = carried_with(code)
            both.model.cuts = {question: [cut]}
            await both.carry(die_at=die_at)
            assert await both.carry() is None
            assert told(both.state) == told(whole.state), f"cut at {cut}, died at {die_at}"


@given(
    seed=st.integers(0, 2**32),
    deaths=st.lists(st.integers(0, 25), max_size=4),
    cuts=st.dictionaries(st.sampled_from(sorted(SCRIPT)), st.lists(st.integers(0, 4), max_size=2), max_size=3),
    code=st.sampled_from([story, read]),
)
@settings(max_examples=60, deadline=None)
async def test_whatever_dies_and_breaks_the_end_is_the_same(
    seed: int, deaths: list[int], cuts: dict[str, list[int]], code: Any
) -> None:
    carried = carried_with(code, seed=seed)
    carried.model.cuts = {question: [*pieces] for question, pieces in cuts.items()}
    for died_after in deaths:
        if carried.facts[-1].type != "result":
            await carried.carry(die_at=len(carried.facts) + 1 + died_after)
    if carried.facts[-1].type != "result":
        assert await carried.carry() is None
    state = told(carried.state)
    assert (state["result"], state["sections"]) == (
        {"text": "1 It is four. 3"},
        {"answer": "Let me see. Noting.It is four."},
    )
    assert state["tools"] == ["agent#1.2:1", "agent#1:1", "agent#1:2"]
    assert len(carried.closed()) == len(set(carried.closed()))


LIMITS = {
    "turns_max": (2, [call("note", '{"text":"again"}')], 1),
    "tool_calls_max": (2, [call("note", '{"text":"again"}')], 2),
    "tool_failures_max": (2, [call("fail", '{"why":"no"}')], 3),
}


@pytest.mark.parametrize("name", LIMITS)
async def test_a_limit_ends_the_call_by_its_name_and_the_same_after_a_crash(name: str) -> None:
    most, said, made = LIMITS[name]

    def limited() -> Carried:
        carried = carried_with(script=Answering(said, said))
        carried.facts[0].data["limits"][name] = most
        return carried

    whole = limited()
    assert isinstance(await whole.carry(), WorkflowFailed)
    assert whole.of("error")[0].data["code"] == f"limit_{name}"
    assert len(MADE) == made
    for die_at in range(2, len(whole.facts)):
        carried = limited()
        await carried.carry(die_at=die_at)
        assert isinstance(await carried.carry(), WorkflowFailed)
        assert told(carried.state) == told(whole.state), f"died at {die_at}"


async def test_only_failures_one_after_the_other_count() -> None:
    bad, good = call("fail", '{"why":"no"}'), call("note", '{"text":"x"}')
    model = Scripted({"go": [bad], '{"error":"no"}': [good], "noted: x": ["Done."]})
    model.before = {"go": [[bad, good, bad]], "noted: x": [[bad, good]]}
    carried = Carried(declared(story), model)
    carried.facts[0].data["limits"]["tool_failures_max"] = 1
    assert await carried.carry() is None
    assert [fact.data["status"] for fact in carried.of("tool_result")] == ["failed", "ok"] * 3


async def test_a_value_is_what_the_last_turn_says() -> None:
    async def code(run: Run, _: Nothing) -> Nothing:
        value = await run.value("agent", ask("go"), Nothing, tools=[note])
        return await ends(run, value.text)

    carried = carried_with(code, Answering([call("note", '{"text":"x"}')], ['{"text":', '"it"}']))
    assert await carried.carry() is None
    assert output(carried) == "it"


async def test_another_call_of_the_same_name_has_names_of_its_own() -> None:
    async def code(run: Run, _: Nothing) -> Nothing:
        for _round in range(2):
            await run.model("agent", ask("go"), section="s", tools=[note])
        return await ends(run, "")

    model = Scripted({"go": [call("note", '{"text":"x"}')], "noted: x": ["Done."]})
    carried = Carried(declared(code), model)
    assert await carried.carry() is None
    assert [key for key in carried.closed() if key.startswith("agent")] == [
        *("agent#1", "agent#1:1", "agent#1.2"),
        *("agent#2", "agent#2:1", "agent#2.2"),
    ]


async def test_code_that_asks_with_other_words_diverges_at_the_turn_and_other_code_takes_what_the_log_has() -> None:
    def other(word: str) -> Any:
        async def code(run: Run, _: Nothing) -> Nothing:
            said = await run.model("agent", ask(word), section="answer", tools=[look_up, note, fail])
            return await ends(run, said.text)

        return code

    script = {**SCRIPT, "went": SCRIPT["go"]}
    carried = carried_with(other("go"), script)
    await carried.carry(die_at=10)
    assert len(carried.of("model_call")) == 1
    facts = [*carried.facts]
    assert isinstance(await carried.carry(workflow=declared(other("went"))), Diverged)
    carried.facts[:] = facts
    assert await carried.carry(workflow=declared(other("went"), code="c2c2")) is None
    assert output(carried) == "It is four."


@pytest.mark.parametrize("stubborn", [False, True])
async def test_a_stop_starts_no_further_tool(stubborn: bool) -> None:
    begun = asyncio.Event()

    @tool()
    async def wait(n: int) -> str:
        MADE.append(f"wait {n}")
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if not stubborn:
                raise
        return ""

    async def code(run: Run, _: Nothing) -> Nothing:
        try:
            await run.model("agent", ask("go"), section="s", tools=[wait])
        except BaseException:  # noqa: BLE001 - a stop cannot be caught for good
            await run.tool(wait, n=9)
        return await ends(run, "")

    carried = carried_with(code, Answering([call("wait", '{"n":1}'), call("wait", '{"n":2}', 1)], ["Done."]))
    task = asyncio.create_task(carried.carry())
    await begun.wait()
    assert carried.work is not None
    assert carried.own is not None
    carried.work.stop("cancel")
    carried.own.cancel()
    await asyncio.wait([carried.own])
    assert MADE == ["wait 1"]
    await asyncio.gather(task, return_exceptions=True)


def test_messages_are_made_of_what_the_log_has_and_of_nothing_else() -> None:
    call_data = {"tool": "t", "call_id": "a#1:1/1", "arguments": {"n": 1.5}}
    [asked, answer] = messages_after([], [Turn("", (call_data,), ({"summary": "done"},))])
    assert asked["content"] is None
    assert asked["tool_calls"][0]["id"] == answer["tool_call_id"] == "a#1:1/1"
    assert answer["content"] == "done"


async def beside(run: Run, _: Nothing) -> Nothing:
    """Parts beside each other, each with turns; one fails after them, and that is caught."""

    async def look(run: Run, word: str) -> str:
        said = await run.model("agent", ask(word), section=word, tools=[look_up, note], resume="continue")
        if word == "b":
            raise WorkflowFailed("refused", f"{word} was refused.")
        return said.text

    try:
        await run.each(["a", "b", "c"], look, key=str)
    except WorkflowFailed as fault:
        await run.step("caught", str, fault.message)
        return await ends(run, fault.message)
    return Nothing()


@given(seed=st.integers(0, 2**32), deaths=st.lists(st.integers(0, 25), max_size=4), cut=st.integers(0, 3))
@settings(max_examples=60, deadline=None)
async def test_parts_with_turns_end_the_same_when_one_fails_beside_them(seed: int, deaths: list[int], cut: int) -> None:
    script: dict[str, Any] = {
        word: ["Look ", "here. ", call("look_up", f'{{"word":"{word * 2}"}}'), call("note", f'{{"text":"{word}"}}', 1)]
        for word in "abc"
    }
    script |= {f"noted: {word}": ["So ", "it ", "is."] for word in "abc"}
    carried = Carried(declared(beside), Scripted(script, Random(seed)), Random(seed))
    carried.model.cuts = {"a": [cut], "noted: b": [cut]}
    carried.model.script = {**script, GO_ON: ["so on."]}
    for died_after in deaths:
        if carried.facts[-1].type != "result":
            await carried.carry(die_at=len(carried.facts) + 1 + died_after)
    if carried.facts[-1].type != "result":
        assert await carried.carry() is None
    assert output(carried) == "b was refused."
    assert len(carried.closed()) == len(set(carried.closed()))
    dead = {seq for fact in carried.of("retry") for first, last in fact.data["superseded"] for seq in (first, last)}
    closed = {fact.data["key"]: fact.seq for fact in carried.of("model_call")}
    assert not dead & set(closed.values())
