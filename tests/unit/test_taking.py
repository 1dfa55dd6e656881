"""What a run takes over from the one that it continues: all that was finished, nothing else, and each thing once."""

import asyncio
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given

from eventstore.domain import events
from eventstore.domain.record import Fact, Recorded
from eventstore.domain.transcript import section_text
from tests.carrying import Carried, Code, Nothing, Scripted, declared, told
from tests.histories import RUN, facts, histories, recorded, superseded
from tests.unit.test_continuing import WHOLE, Continuing
from tests.unit.test_crash_schedules import SCRIPT, ask, carried_with, failing, length, story
from tests.writing import accepted
from worker.continuing import as_taken
from worker.declare import Check
from worker.run import Run
from worker.steps import StepContext
from worker.stops import Diverged, ValidationFailed, WorkflowFailed
from worker.taking import taken_over

CLOSING = ("step", "model_call", "tool_result", "finding", "validation")


def taken_up(carried: Carried, code: Code | None = None, model: Scripted | None = None) -> Carried:
    """A run that continues this one, about to begin its code."""
    workflow = carried.workflow if code is None else declared(code)
    later = Carried(workflow, model or carried.model, continue_by=carried.continue_by)
    origin = (carried.facts[0].data.get("continues") or {}).get("origin")
    told = {
        "run_id": str(RUN),
        "seq": len(carried.facts),
        "chain": "00",
        "origin": origin or {"run_id": str(RUN), "at_us": carried.facts[0].at_us},
    }
    later.facts[0].data["continues"] = told  # type: ignore[index]
    later.epoch = 1
    body: events.Body = events.Started(attempt=1, worker="test", code="c1c1", workflow_version=1)
    later.add(events.new_event(body, 0))
    copies, placed = taken_over(carried.facts), dict[int, int]()
    for copy in copies:
        body = as_taken(copy, str(RUN), placed.get(copy.replaces or 0), last=copy is copies[-1])
        later.add(events.new_event(body, 0))
        placed[copy.seq] = len(later.facts)
    return later


def upto(carried: Carried, key: str) -> list[Fact]:
    """Its log as it was when the call of this key had just ended."""
    closed = (fact for fact in carried.facts if fact.type in CLOSING and fact.data["key"] == key)
    return carried.facts[: next(closed).seq]


def taken(carried: Carried) -> list[str]:
    """The calls whose ends were taken over."""
    return [
        fact.data["key"]
        for fact in carried.facts
        if "taken" in fact.data and fact.type in CLOSING and fact.data.get("status") != "intent"
    ]


@pytest.mark.parametrize("seed", [None, 1])
async def test_a_run_that_was_stopped_anywhere_is_taken_up_to_the_same_end_and_repeats_nothing(
    seed: int | None,
) -> None:
    whole = carried_with(story)
    await whole.carry()
    expected = told(whole.state)
    assert expected["status"] == "completed"
    saved = 0
    for stopped_at in range(1, len(whole.facts)):
        carried = carried_with(story, seed)
        await carried.carry(die_at=stopped_at)
        if carried.of("result"):
            continue
        later = taken_up(carried)
        done = taken(later)
        assert await later.carry() is None, f"stopped at {stopped_at}"
        assert told(later.state) == expected, f"stopped at {stopped_at}"
        closed = later.closed()
        assert len(closed) == len(set(closed)), f"stopped at {stopped_at}"
        assert set(done) <= set(closed)
        saved += len(done)
    assert saved > 100, "hardly anything was taken over: this proves too little"


async def test_a_run_that_is_taken_up_again_and_again_comes_to_the_same_end() -> None:
    whole = carried_with(story)
    await whole.carry()
    rng = Random(7)
    for _ in range(10):
        carried = carried_with(story)
        await carried.carry(die_at=rng.randrange(3, 20))
        while not carried.of("result"):
            carried = taken_up(carried)
            await carried.carry(die_at=len(carried.facts) + rng.randrange(2, 15))
        assert told(carried.state) == told(whole.state)


async def test_a_failure_that_the_code_has_acted_on_stands_and_one_that_ended_the_run_does_not() -> None:
    carried = carried_with(failing)
    await carried.carry(die_at=100)
    [caught] = [fact.data["output"] for fact in carried.of("step") if fact.data["key"] == "caught#1"]
    carried.facts = [fact for fact in carried.facts if fact.type not in ("result", "validation")]
    later = taken_up(carried)
    assert "caught#1" in taken(later)
    assert await later.carry() is None
    assert later.of("result")[0].data["output"]["text"] == caught

    broken = True

    def fail() -> str:
        if broken:
            raise WorkflowFailed("away", "It is away.")
        return "there"

    async def code(run: Run, _: Nothing) -> Nothing:
        await run.step("before", length, "abc")
        return await run.validate(Nothing(text=await run.step("fail", fail, returns=str)), [])

    carried = Carried(declared(code))
    assert isinstance(await carried.carry(), WorkflowFailed)
    broken = False
    later = taken_up(carried)
    assert taken(later) == ["before#1"]
    assert await later.carry() is None
    assert later.of("result")[0].data["output"]["text"] == "there"


def speaking(**options: Any) -> Code:
    async def code(run: Run, _: Nothing) -> Nothing:
        await run.step("before", length, "abc")
        said = await run.model("tell", ask("tell"), section="s", **options)
        await run.step("after", str, 1)
        return await run.validate(Nothing(text=said.text), [])

    return code


async def reading(run: Run, _: Nothing) -> Nothing:
    text = ""
    async for piece in run.model("tell", ask("tell"), section="s").text():
        text += piece
        await run.finding(Nothing(text=text), item=str(len(text)))
    return await run.validate(Nothing(text=text), [])


@pytest.mark.parametrize("code", [speaking(), reading], ids=["awaited", "read"])
@pytest.mark.parametrize("again", [0, 5])
async def test_a_text_that_its_length_cut_goes_on_as_often_as_it_is_cut(code: Code, again: int) -> None:
    model = Continuing(again=again, room=again // 4 + 2)
    carried = Carried(declared(code), model)
    for number in range(20):
        fault = await carried.carry()
        if fault is None:
            break
        assert isinstance(fault, WorkflowFailed)
        assert fault.code == "model_length"
        said = section_text(carried.state, "s")
        carried = taken_up(carried)
        assert section_text(carried.state, "s") == said, f"cut for the {number + 1}th time"
        assert not carried.of("model_call")
    assert number > 1
    assert section_text(carried.state, "s") == WHOLE
    assert carried.of("result")[0].data["output"]["text"] == WHOLE
    assert not [fact for fact in carried.of("retry") if fact.data["superseded"]]
    assert all(len(request.messages) == 3 for request in model.requests[1:])


async def test_a_break_while_it_goes_on_takes_back_nothing_of_what_was_taken_over() -> None:
    carried = Carried(declared(speaking()), Continuing(room=2))
    await carried.carry()
    model = Continuing()
    model.breaks = [1]
    later = taken_up(carried, model=model)
    assert await later.carry() is None
    assert section_text(later.state, "s") == WHOLE
    assert [fact.data["superseded"] for fact in later.of("retry")] == [[], []]
    assert [len(request.messages) for request in model.requests] == [3, 3]


@pytest.mark.parametrize("code", [speaking(), reading], ids=["awaited", "read"])
async def test_the_next_owner_goes_on_with_it_as_well(code: Code) -> None:
    carried = Carried(declared(code), Continuing(room=2))
    await carried.carry()
    whole = taken_up(carried, model=Continuing())
    assert await whole.carry() is None
    for die_at in range(len(taken_up(carried).facts) + 1, len(whole.facts)):
        later = taken_up(carried, model=Continuing())
        await later.carry(die_at=die_at)
        assert await later.carry() is None, f"died at {die_at}"
        assert section_text(later.state, "s") == WHOLE, f"died at {die_at}"
        assert not [fact for fact in later.of("retry") if fact.data["superseded"]]


async def test_a_text_that_the_code_wanted_as_far_as_it_went_stays_as_it_was() -> None:
    model = Continuing(room=2)
    carried = Carried(declared(speaking(on_length="keep")), model)
    await carried.carry()
    carried.facts = upto(carried, "tell#1")
    later = taken_up(carried)
    assert taken(later) == ["before#1", "tell#1"]
    assert await later.carry() is None
    assert len(model.requests) == 1


async def test_a_failed_length_that_the_code_has_acted_on_stays_as_it_was() -> None:
    async def code(run: Run, _: Nothing) -> Nothing:
        try:
            await run.model("tell", ask("tell"), section="s")
        except WorkflowFailed:
            await run.step("instead", length, "abc")
        await run.step("more", length, "ab")
        return await run.validate(Nothing(), [])

    model = Continuing(room=2)
    carried = Carried(declared(code), model)
    await carried.carry()
    carried.facts = upto(carried, "instead#1")
    later = taken_up(carried)
    assert taken(later) == ["tell#1", "instead#1"]
    assert await later.carry() is None
    assert len(model.requests) == 1


async def test_a_value_that_was_cut_is_asked_for_with_more_room_than_it_had() -> None:
    async def code(run: Run, _: Nothing) -> Nothing:
        return await run.validate(await run.value("tell", ask("tell"), Nothing), [])

    model = Continuing('{"text": "%s"}' % ("ab " * 20), room=3)
    carried = Carried(declared(code), model)
    assert isinstance(await carried.carry(), WorkflowFailed)
    assert model.rooms == [None, 4]
    later = taken_up(carried)
    assert [fact.type for fact in later.facts] == ["accepted", "started", "retry"]
    assert later.facts[-1].data["cut_tokens"] == 2
    assert later.facts[-1].data.get("usage") is None
    model.rooms.clear()
    await later.carry()
    assert model.rooms[0] == 4, "the model says here that it has said two tokens, however many it had"


async def test_of_branches_those_that_were_cut_go_on_and_those_that_were_done_are_done() -> None:
    class Words(Scripted):
        """Has too little room for one of its answers at first."""

        async def stream(self, request: Any) -> Any:
            if len(request.messages) == 3:
                request = type(request)(**{**vars_of(request), "messages": [{"role": "user", "content": "rest"}]})
            async for piece in super().stream(request):
                yield piece

    def vars_of(request: Any) -> dict[str, Any]:
        return {name: getattr(request, name) for name in request.__slots__}

    async def code(run: Run, _: Nothing) -> Nothing:
        async def one(run: Run, word: str) -> str:
            said = (await run.model("tell", ask(word), section=word)).text
            await run.finding(Nothing(text=said), item=word)
            return said

        texts = await run.each(["a", "b", "c"], one, key=str, parallel=1)
        return await run.validate(Nothing(text=" ".join(texts)), [])

    model = Words({**SCRIPT, "rest": ["and the rest."]})
    model.finish["b"] = "length"
    carried = Carried(declared(code), model)
    assert isinstance(await carried.carry(), WorkflowFailed)
    later = taken_up(carried)
    assert taken(later) == ["a/tell#1", "a/finding#1"]
    before = len(model.asked)
    assert await later.carry() is None
    assert model.asked[before:] == ["rest", "c"]
    assert later.of("result")[0].data["output"]["text"] == "Alpha. Beta.and the rest. Gamma."


async def test_what_was_read_when_something_else_failed_is_read_again_with_all_that_was_made_of_it() -> None:
    broken = True

    def check(text: str) -> str:
        if broken and text == "So it ":
            raise WorkflowFailed("away", "It is away.")
        return text

    async def code(run: Run, _: Nothing) -> Nothing:
        text = ""
        async for piece in run.model("tell", ask("end"), section="s").text():
            text += piece
            await run.finding(Nothing(text=text), item=str(len(text)))
            await run.step("check", check, text, returns=str)
        return await run.validate(Nothing(text=text), [])

    model = Scripted(SCRIPT)
    model.hang = asyncio.Event()  # the stream is still open when it fails
    carried = Carried(declared(code), model)
    assert isinstance(await carried.carry(), WorkflowFailed)
    assert "left" in [fact.data["finish"] for fact in carried.of("model_call")]
    broken, model.hang = False, None
    later = taken_up(carried)
    assert not taken(later)
    assert await later.carry() is None
    assert section_text(later.state, "s") == "So it ends."
    assert later.of("result")[0].data["output"]["text"] == "So it ends."


async def test_an_effect_that_was_done_is_not_done_again_and_one_under_way_keeps_its_name() -> None:
    done: list[str] = []
    hang = asyncio.Event()

    async def send(context: StepContext, to: str) -> str:
        done.append(context.idempotency_key)
        if to == "b" and len(done) == 2:
            await hang.wait()
        return to

    async def code(run: Run, _: Nothing) -> Nothing:
        for to in ("a", "b", "c"):
            await run.step("send", send, to, effect=True, returns=str)
        return await run.validate(Nothing(), [])

    carried = Carried(declared(code))
    await carried.carry(die_at=5)
    assert [fact.data["status"] for fact in carried.of("step")] == ["intent", "ok", "intent"]
    if len(done) == 1:
        done.append(f"{RUN}/send#2")
    hang.set()
    carried.facts[-1].data["output"]["idempotency_key"] = "first/send#2"  # here all runs have one id
    later = taken_up(carried)
    assert await later.carry() is None
    assert done == [f"{RUN}/send#1", f"{RUN}/send#2", "first/send#2", f"{RUN}/send#3"]


async def test_chance_and_time_fall_the_same_way_in_all_runs_that_continue_each_other() -> None:
    seen: list[list[Any]] = []

    async def code(run: Run, _: Nothing) -> Nothing:
        now = [run.now()]
        await run.step("one", length, "abc")
        now.append(run.now())
        seen.append([*now, run.uuid("u"), run.random("r").random()])
        await run.step("two", length, "ab")
        return await run.validate(Nothing(), [])

    carried = Carried(declared(code))
    await carried.carry(die_at=4)
    later = taken_up(carried)
    later.facts = [replace(fact, at_us=fact.at_us + 10**9) for fact in later.facts]
    assert await later.carry() is None
    assert len(seen) == 2
    assert seen[0] == seen[1]


async def test_a_verdict_on_one_value_is_none_on_another() -> None:
    def giving(text: str, *, more: bool) -> Code:
        async def code(run: Run, _: Nothing) -> Nothing:
            value = await run.validate(Nothing(text=text), [Check("short", lambda value: len(value.text) < 9)])
            if more:
                await run.step("more", length, "ab")
            return value

        return code

    for more in (False, True):
        carried = Carried(declared(giving("short", more=more)))
        await carried.carry()
        carried.facts = carried.facts[:-1]
        later = taken_up(carried, giving("much too long", more=more))
        fault = await later.carry()
        assert isinstance(fault, Diverged if more else ValidationFailed)
        assert not later.of("result")


def test_a_child_that_went_on_is_waited_for_again_and_no_other() -> None:
    def step(place: int, child: str, on_cancel: Any, status: Any = "intent") -> events.Step:
        asked = events.ChildRun(run_id=child, workflow="part", on_cancel=on_cancel)
        return events.Step(name=child, status=status, child=asked, key=f"{child}#1", place=place, args="00")

    begun: list[events.Body] = [accepted(), events.Started(attempt=1, worker="w", code="c", workflow_version=1)]
    asked = [step(1, "kept", "keep"), step(1, "stopped", "cancel"), step(1, "failed", "keep")]
    history = recorded([*begun, *asked, step(1, "failed", "keep", "failed")])
    assert [copy.data["name"] for copy in taken_over(facts(history))] == ["kept"]


@given(histories())
def test_of_any_run_each_event_is_taken_over_at_most_once_and_none_that_was_taken_back(history: list[Recorded]) -> None:
    copies = taken_over(facts(history))
    seqs = [copy.seq for copy in copies]
    assert seqs == sorted(set(seqs))
    assert not set(seqs) & superseded(facts(history))
    for copy in copies:
        as_taken(copy, str(RUN), None, last=copy is copies[-1])


async def test_a_value_of_the_wrong_form_is_asked_for_again() -> None:
    async def code(run: Run, _: Nothing) -> Nothing:
        return await run.validate(await run.value("tell", ask("tell"), Nothing), [])

    carried = Carried(declared(code), Scripted({"tell": ["[1]"]}))
    fault = await carried.carry()
    assert isinstance(fault, WorkflowFailed)
    assert (fault.code, fault.call) == ("malformed", "tell#1")
    later = taken_up(carried, model=Scripted({"tell": ['{"text": "so"}']}))
    assert await later.carry() is None
    assert later.of("result")[0].data["output"]["text"] == "so"


async def test_a_failure_that_ended_the_run_is_made_good_whatever_went_on_beside_it() -> None:
    broken, waiting = True, asyncio.Event()

    async def fail() -> str:
        if broken:
            raise WorkflowFailed("away", "It is away.")
        return "there"

    async def code(run: Run, _: Nothing) -> Nothing:
        async def one(run: Run, word: str) -> str:
            if word == "b":
                await run.step("wait", waiting.wait)
            return str(await run.step("length", length, word))

        said = []
        async with run.as_done(["a", "b"], one, key=str) as values:
            async for value in values:
                said.append(value)
                if len(said) == 1:
                    said.append(await run.step("fail", fail, returns=str))
        return await run.validate(Nothing(text=" ".join(said)), [])

    carried = Carried(declared(code))
    fault = await carried.carry()
    assert isinstance(fault, WorkflowFailed)
    assert fault.call == "fail#1"
    # What a branch beside it may have begun before it was stopped.
    beside = events.Step(name="more", status="ok", key="b/more#1", place=3, args="00")
    carried.add(events.new_event(beside, 0))
    carried.facts[-2:] = [
        replace(fact, seq=seq) for seq, fact in enumerate(carried.facts[:-3:-1], len(carried.facts) - 1)
    ]
    broken = False
    waiting.set()
    assert "fail#1" not in taken(taken_up(carried))


async def test_what_was_called_otherwise_stands_as_it_was() -> None:
    def saying(word: str) -> Code:
        async def code(run: Run, _: Nothing) -> Nothing:
            size = await run.step("length", length, word, returns=int)
            said = await run.model("tell", ask("tell"), section="s")
            return await run.validate(Nothing(text=f"{size}: {said.text}"), [])

        return code

    carried = Carried(declared(saying("abc")), Continuing(room=2))
    await carried.carry()
    later = taken_up(carried, saying("abcde"), Continuing())
    assert await later.carry() is None
    assert later.of("result")[0].data["output"]["text"] == f"3: {WHOLE}"
