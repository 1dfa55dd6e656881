"""A new run takes up where an earlier one ended: what was finished there is not done again, what was cut goes on."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import orjson
import pytest
import pytest_asyncio

from eventstore import log, recorder
from eventstore.domain.events import Decision, new_event
from eventstore.domain.record import Fact
from eventstore.domain.run import fold
from eventstore.domain.transcript import section_text
from tests.carrying import Nothing
from tests.running import ADA, until
from tests.staging import Stage
from worker.declare import tool
from worker.llm.provider import ProviderModel, create_model
from worker.llm.scripted_chat import Pace
from worker.llm.scripted_rules import parse_rules
from worker.llm.scripted_server import ScriptedServer
from worker.llm.settings import ModelSettings
from worker.run import Run
from worker.steps import Retry, StepContext
from worker.stops import WorkflowFailed
from worker.toolbox import ToolContext

TEXT = "The cap is two million euros and no more than that."
SCRIPT = [
    {"name": "cap", "when": ["^cap$"], "say": TEXT},
    {"name": "told", "last_role": "tool", "say": TEXT},
    {"name": "tools", "when": ["^tools$"], "say": "Looking. ", "tool_calls": [{"name": "look_up", "arguments": {}}]},
]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer(parse_rules(orjson.dumps(SCRIPT), source="here"), pace=Pace(0)) as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def provider(server: ScriptedServer) -> AsyncIterator[ProviderModel]:
    made = create_model(ModelSettings(OPENAI_API_KEY=None, OPENAI_BASE_URL=None, RUNWIRE_SCRIPTED_URL=server.url))
    yield made
    await made.aclose()


@pytest.fixture
def asked(stage: Stage, server: ScriptedServer, provider: ProviderModel) -> ScriptedServer:
    """What the model was asked, of a stage on which it answers."""
    server.journal.clear()
    stage.model = provider  # type: ignore[assignment]
    return server


def rules(server: ScriptedServer) -> list[str]:
    return [str(entry["rule"]) for entry in server.journal.entries()]


def ask(question: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": question}]


def room(tokens: int) -> dict[str, Any]:
    return {"max_completion_tokens": tokens}


def own(facts: list[Fact]) -> list[str]:
    """What a run did itself: the types of what it did not take over."""
    return [fact.type for fact in facts if "taken" not in fact.data]


class Outside:
    """What was done outside, by idempotency key."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    async def send(self, context: StepContext) -> str:
        self.sent.append(context.idempotency_key)
        return "sent"

    def look(self) -> str:
        self.sent.append("looked")
        return "seen"


def letter(outside: Outside, tokens: int = 4) -> Any:
    async def code(run: Run, _: Nothing) -> Nothing:
        await run.milestone("Begin")
        seen = await run.step("look", outside.look, returns=str)
        await run.step("send", outside.send, effect=True, returns=str)
        await run.finding(Nothing(text=seen), item="seen")
        await run.milestone("Look")
        said = await run.model("say", ask("cap"), section="s", parameters=room(tokens))
        return await run.validate(Nothing(text=said.text), [])

    return code


async def test_an_answer_that_was_cut_goes_on_and_nothing_before_it_is_done_again(
    stage: Stage, asked: ScriptedServer
) -> None:
    outside = Outside()
    stage.play(letter(outside))
    first = await stage.submit()
    before = await stage.ended(first)
    assert before[-1].data["code"] == "model_length"
    text = section_text(fold(before), "s")
    assert TEXT.startswith(text)
    assert text != TEXT
    stage.play(letter(outside, tokens=50))
    second = await stage.runs.go_on(first)
    facts = await stage.ended(second)
    assert facts[-1].data["output"] == {"text": TEXT}
    state = fold(facts)
    assert section_text(state, "s") == TEXT
    assert {item: value["text"] for item, (_, value) in state.findings.items()} == {"seen": "seen"}
    assert outside.sent == ["looked", f"{first}/send#1"]
    assert rules(asked) == ["cap", "cap"]
    assert own(facts) == ["accepted", "started", "token", "model_call", "validation", "result"]
    taken = [fact for fact in facts if "taken" in fact.data]
    assert [fact.data["taken"]["run_id"] for fact in taken] == [str(first)] * len(taken)
    there = {fact.seq: fact for fact in before}
    assert [fact.type for fact in taken] == [there[fact.data["taken"]["seq"]].type for fact in taken]
    [spent] = [fact.data["usage"] for fact in facts if fact.type == "model_call"]
    assert state.usage.output_tokens == spent["output_tokens"] > 0


async def test_it_goes_on_as_often_as_it_is_cut_and_all_of_them_know_the_first(
    stage: Stage, asked: ScriptedServer
) -> None:
    outside = Outside()
    stage.play(letter(outside))
    run_id = first = await stage.submit()
    facts, runs = await stage.ended(run_id), 1
    while facts[-1].type == "error":
        said = section_text(fold(facts), "s")
        assert TEXT.startswith(said)
        assert (facts[-1].data["code"], facts[-1].data["call"]) == ("model_length", "say#1")
        run_id = await stage.runs.go_on(run_id)
        facts, runs = await stage.ended(run_id), runs + 1
        assert len(section_text(fold(facts), "s")) > len(said), "it did not go on"
        assert facts[0].data["continues"]["origin"]["run_id"] == str(first)
    assert runs > 2
    assert facts[-1].data["output"] == {"text": TEXT}
    assert section_text(fold(facts), "s") == TEXT
    assert outside.sent == ["looked", f"{first}/send#1"]
    assert sum(fact.data["taken"].get("last", False) for fact in facts if "taken" in fact.data) == 1


async def killed(stage: Stage, run_id: UUID, at_seq: int) -> bool:
    """Let an owner carry it until so much is stored, and die; whether it died of that."""
    task = stage.own(run_id)

    async def reached() -> bool | None:
        async with stage.runs.engine.connect() as connection:
            head = await log.head(connection, run_id)
        return True if task.done() or (head is not None and head.seq >= at_seq) else None

    await until(reached, f"seq {at_seq}")
    died = not task.done()
    await stage.die(run_id)
    return died


async def test_an_owner_that_dies_after_any_append_leaves_a_run_that_took_over_all_of_it_once(
    stage: Stage, asked: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "GROUP_EVENTS_MAX", 1)  # each event is an append of its own
    outside = Outside()
    stage.play(letter(outside))
    first = await stage.submit()
    before = await stage.ended(first)
    done = [*outside.sent]
    stage.play(letter(outside, tokens=50))
    whole = await stage.ended(await stage.runs.go_on(first))
    expected = [(fact.type, fact.data["taken"]) for fact in whole if "taken" in fact.data]
    assert len(expected) == len(before) - 4, "all but accepted, started, the cut end and the run's own"
    deaths = 0
    for at_seq in range(1, len(whole)):
        run_id = await stage.runs.go_on(first)
        deaths += await killed(stage, run_id, at_seq)
        facts = await stage.ended(run_id)
        assert facts[-1].data.get("output") == {"text": TEXT}, f"killed at {at_seq}"
        told = [(fact.type, fact.data["taken"]) for fact in facts if "taken" in fact.data]
        assert told == expected, f"killed at {at_seq}"
        assert section_text(fold(facts), "s") == TEXT, f"killed at {at_seq}"
        assert not [fact for fact in facts if fact.type == "retry" and fact.data["superseded"]], f"killed at {at_seq}"
    assert outside.sent == done
    assert deaths > len(expected), "most owners ended before they could be killed: this proves too little"


async def test_a_run_that_a_person_stopped_is_taken_up_and_asks_only_what_nobody_had_decided(stage: Stage) -> None:
    async def code(run: Run, _: Nothing) -> Nothing:
        kept = await run.ask("keep", "Keep it?", to="reviewer", choices=("keep", "drop"))
        await run.step("after", str, kept.choice, returns=str)
        sent = await run.ask("send", "Send it?", to="reviewer", choices=("yes", "no"))
        return await run.validate(Nothing(text=f"{kept.choice} by {kept.by}: {kept.note}; {sent.choice}"), [])

    stage.play(code)
    first = await stage.submit()
    await stage.once(first)
    await answer(stage, first, "keep", "keep", "as agreed")
    await stage.once(first)
    await stage.runs.has(first, "escalation", name="send")
    await stage.runs.cancel(first)
    await stage.ended(first)

    second = await stage.runs.go_on(first)
    await stage.once(second)
    questions = [fact.data["name"] for fact in await stage.runs.facts(second) if fact.type == "escalation"]
    assert questions == ["send"]
    assert not [fact for fact in await stage.runs.facts(second) if fact.type == "decision"]
    await answer(stage, second, "send", "yes")
    facts = await stage.ended(second)
    assert facts[-1].data["output"]["text"] == "keep by ada: as agreed; yes"
    [decided] = [fact for fact in facts if fact.data.get("decided")]
    there = {fact.seq: fact.type for fact in await stage.runs.facts(first)}
    assert (decided.type, there[decided.data["taken"]["seq"]]) == ("step", "decision")


async def answer(stage: Stage, run_id: UUID, name: str, choice: str, note: str | None = None) -> None:
    asked = await stage.runs.has(run_id, "escalation", name=name)
    closing = {field: asked.data[field] for field in ("key", "place", "args", "attempt")}
    body = Decision(escalation=asked.seq, because="answered", by=ADA, choice=choice, note=note, **closing)
    async with stage.runs.engine.begin() as connection:
        assert (await log.control(connection, run_id, new_event(body, 0))).verdict == "ok"


async def test_a_yes_of_which_nothing_was_made_is_asked_for_again_and_one_that_was_used_is_not(stage: Stage) -> None:
    called: list[str] = []

    @tool(approve="reviewer", effect=True)
    async def send(ctx: ToolContext, to: str) -> str:
        """Sends it."""
        called.append(ctx.idempotency_key)
        return to

    async def code(run: Run, _: Nothing) -> Nothing:
        await run.tool(send, to="a")
        await run.tool(send, to="b")
        return await run.validate(Nothing(), [])

    stage.play(code)
    first = await stage.submit()
    await stage.once(first)
    await answer(stage, first, "allow send", "allow")
    await stage.once(first)
    facts = await stage.runs.facts(first)
    assert [fact.data["call_id"] for fact in facts if fact.type == "escalation"] == ["send#1", "send#2"]
    body = {field: facts[-1].data[field] for field in ("key", "place", "args", "attempt")}
    said = Decision(escalation=facts[-1].seq, because="answered", by=ADA, choice="allow", **body)
    async with stage.runs.engine.begin() as connection:
        assert (await log.control(connection, first, new_event(said, 0))).verdict == "ok"
    await stage.runs.cancel(first)
    await stage.ended(first)
    assert called == [f"{first}/send#1"]

    second = await stage.runs.go_on(first)
    await stage.once(second)
    facts = await stage.runs.facts(second)
    assert [fact.data["call_id"] for fact in facts if fact.type == "escalation"] == ["send#2"]
    await answer(stage, second, "allow send", "allow")
    await stage.ended(second)
    assert called == [f"{first}/send#1", f"{second}/send#2"]


async def test_what_was_replaced_is_replaced_in_the_new_log_as_well(stage: Stage) -> None:
    flaws: list[Exception] = [ConnectionError("away")]
    fails: list[Exception] = [WorkflowFailed("away", "It is away.")]

    def flaky(left: list[Exception]) -> None:
        if left:
            raise left.pop()

    async def code(run: Run, _: Nothing) -> Nothing:
        await run.step("flaky", lambda: flaky(flaws), retry=Retry(2, first_wait_s=0.001, jitter_s=0.0))
        for text in ("one", "two", "three"):
            await run.finding(Nothing(text=text), item="it")
        await run.step("check", lambda: flaky(fails))
        return await run.validate(Nothing(), [])

    stage.play(code)
    first = await stage.submit()
    await stage.ended(first)
    second = await stage.runs.go_on(first)
    facts = [fact for fact in await stage.ended(second) if fact.type == "finding"]
    assert [fact.data.get("replaces") for fact in facts] == [None, facts[0].seq, facts[1].seq]
    moved = [fact.data["taken"]["seq"] - fact.seq for fact in facts]
    assert moved == [1, 1, 1], "the retry before them is not taken over, so they stand elsewhere"


async def test_an_earlier_log_that_is_not_as_it_ended_is_not_taken_over(stage: Stage) -> None:
    async def code(run: Run, _: Nothing) -> Nothing:
        raise WorkflowFailed("away", "It is away.")

    stage.play(code)
    first = await stage.submit()
    await stage.ended(first)
    for wrong in ({"chain": "00" * 32}, {"seq": 2}, {"run_id": str(UUID(int=1))}):
        second = await stage.runs.go_on(first, continues=wrong)
        facts = await stage.ended(second)
        assert facts[-1].data["code"] == "continued_gone"
        assert not [fact for fact in facts if "taken" in fact.data]


async def test_a_run_that_is_stopped_before_it_took_anything_over_ends_as_any_other(stage: Stage) -> None:
    async def code(run: Run, _: Nothing) -> Nothing:
        await run.step("one", str, 1)
        raise WorkflowFailed("away", "It is away.")

    stage.play(code)
    first = await stage.submit()
    await stage.ended(first)
    second = await stage.runs.go_on(first)
    await stage.runs.cancel(second)
    facts = await stage.ended(second)
    assert [fact.type for fact in facts] == ["accepted", "cancel_requested", "cancelled"]


async def test_a_tool_that_has_answered_is_not_asked_again_when_its_turn_was_cut(
    stage: Stage, asked: ScriptedServer
) -> None:
    called: list[str] = []

    @tool(effect=True)
    async def look_up(ctx: ToolContext) -> str:
        """Says where something stands."""
        called.append(ctx.idempotency_key)
        return "here"

    async def code(run: Run, _: Nothing) -> Nothing:
        said = await run.model("say", ask("tools"), section="s", tools=[look_up], parameters=room(8))
        return await run.validate(Nothing(text=said.text), [])

    stage.play(code)
    first = await stage.submit()
    before = await stage.ended(first)
    assert (before[-1].data["code"], before[-1].data["call"]) == ("model_length", "say#1.2")
    second = await stage.runs.go_on(first)
    facts = await stage.ended(second)
    assert facts[-1].data["output"] == {"text": TEXT}
    assert section_text(fold(facts), "s") == "Looking. " + TEXT
    assert called == [f"{first}/say#1:1"]
    [before_it, own_turn] = [fact.data for fact in facts if fact.type == "model_call"]
    assert "taken" in before_it
    assert before_it["usage"]["output_tokens"] == 0, "what the earlier run paid for is told there"
    assert fold(facts).usage.output_tokens == own_turn["usage"]["output_tokens"] > 0
    assert rules(asked) == ["tools", "told", "told"]


async def test_what_the_code_draws_by_itself_falls_the_same_in_all_runs_of_a_chain(stage: Stage) -> None:
    seen: list[tuple[Any, ...]] = []

    async def code(run: Run, _: Nothing) -> Nothing:
        begun = run.now()
        await run.step("one", str, 1)
        seen.append((begun, run.now(), run.uuid("order"), run.random("dice").random()))
        raise WorkflowFailed("away", "It is away.")

    stage.play(code)
    run_id = await stage.submit()
    for _ in range(3):
        await stage.ended(run_id)
        run_id = await stage.runs.go_on(run_id)
    assert len(seen) == 3
    assert len(set(seen)) == 1


async def test_an_effect_that_was_under_way_is_done_with_the_name_that_it_had(stage: Stage) -> None:
    sent: list[str] = []
    hang = asyncio.Event()

    async def send(context: StepContext) -> str:
        sent.append(context.idempotency_key)
        if len(sent) == 1:
            await hang.wait()
        return "sent"

    async def code(run: Run, _: Nothing) -> Nothing:
        return await run.validate(Nothing(text=await run.step("send", send, effect=True, returns=str)), [])

    stage.play(code)
    first = await stage.submit()
    stage.own(first)
    await stage.runs.has(first, "step", status="intent")
    await stage.runs.cancel(first)
    await stage.die(first)
    facts = await stage.ended(first)
    assert [fact.data["status"] for fact in facts if fact.type == "step"] == ["intent"]
    second = await stage.runs.go_on(first)
    third = await stage.runs.go_on(first)
    for run_id in (second, third):
        assert (await stage.ended(run_id))[-1].type == "result"
    assert sent[-2:] == [f"{first}/send#1"] * 2
