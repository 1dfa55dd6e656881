"""Tools of a model over the real log: a person allows them, a stop reaches them, another owner goes on after them."""

import asyncio
from typing import Any

from eventstore.domain.run import fold
from eventstore.domain.transcript import section_text
from tests.carrying import Nothing
from tests.integration.test_asking import answer
from tests.running import until
from tests.staging import Stage
from tests.unit.test_continuing import WHOLE, Continuing, ask
from worker.declare import tool
from worker.llm.model import ToolCallPiece
from worker.run import Run

MADE: list[str] = []


def call(name: str, arguments: str, number: int = 0) -> ToolCallPiece:
    return ToolCallPiece(number, f"id_{number}", name, arguments)


@tool(approve="legal-lead", shown=("to",), effect=True)
async def send(to: str, text: str) -> str:
    """Sends a letter."""
    MADE.append(to)
    return "sent"


async def sending(run: Run, _: Nothing) -> Nothing:
    said = await run.model("agent", ask("send"), section="s", tools=[send])
    return await run.validate(Nothing(text=said.text), [])


def asks_to_send(stage: Stage) -> None:
    MADE.clear()
    stage.model.script = {
        "send": [call("send", '{"to":"ada","text":"hush"}')],
        "sent": ["It is sent."],
        '{"error":"A person did not allow this call."}': ["It is not sent."],
    }
    stage.play(sending)


async def test_a_call_waits_for_a_person_and_holds_no_worker(stage: Stage) -> None:
    asks_to_send(stage)
    for choice, made, text in (("allow", ["ada"], "It is sent."), ("deny", ["ada"], "It is not sent.")):
        run_id = await stage.submit()
        await stage.own(run_id)  # it comes back, for nobody has answered
        state = fold(await stage.runs.facts(run_id))
        assert state.status == "waiting"
        [question] = state.questions.values()
        assert (question["to"], question["question"]) == ("legal-lead", "May send be called with to: ada?")
        [given] = await answer(stage.runs, run_id, choice)
        assert given.verdict == "ok"
        facts = await stage.ended(run_id)
        assert (MADE, facts[-1].data["output"]) == (made, {"text": text})
        assert "hush" not in repr([fact.data for fact in facts if fact.type == "escalation"])


async def test_a_question_about_a_call_can_be_cancelled_and_the_call_is_never_made(stage: Stage) -> None:
    asks_to_send(stage)
    run_id = await stage.submit()
    await stage.own(run_id)
    await stage.runs.cancel(run_id)
    facts = await stage.ended(run_id)
    assert (facts[-1].type, MADE) == ("cancelled", [])


async def test_a_cancel_reaches_a_tool_and_its_effect_is_named_when_nobody_knows_what_came_of_it(stage: Stage) -> None:
    begun = asyncio.Event()

    @tool(effect=True)
    async def post(n: int) -> str:
        begun.set()
        await asyncio.Event().wait()
        return ""

    async def code(run: Run, _: Nothing) -> Nothing:
        await run.model("agent", ask("post"), section="s", tools=[post])
        return await run.validate(Nothing(), [])

    stage.model.script = {"post": [call("post", '{"n":1}'), call("post", '{"n":2}', 1)]}
    stage.play(code)
    run_id = await stage.submit()
    task = stage.own(run_id)
    await begun.wait()
    await stage.runs.cancel(run_id)
    await task
    facts = await stage.runs.ended(run_id)
    assert facts[-1].type == "cancelled"
    assert "whether post took place" in facts[-1].data["missing"]
    assert [fact.data["status"] for fact in facts if fact.type == "step"] == ["intent"], "the second was not begun"


async def test_a_hand_over_keeps_what_is_gone_on_with(stage: Stage) -> None:
    async def code(run: Run, _: Nothing) -> Nothing:
        said = await run.model("tell", ask("tell"), section="s", resume="continue")
        return await run.validate(Nothing(text=said.text), [])

    model: Any = Continuing(again=6)
    model.hang_at = 3
    stage.model = model
    stage.play(code)
    run_id, handover = await stage.submit(), asyncio.Event()
    task = stage.own(run_id, handover)

    async def said() -> bool | None:
        return len(section_text(fold(await stage.runs.facts(run_id)), "s")) >= 12 or None

    await until(said, "half of the text")
    handover.set()
    await task
    [retry] = [fact for fact in await stage.runs.facts(run_id) if fact.type == "retry"]
    assert (retry.data["reason"], retry.data["superseded"]) == ("handover", [])
    before = section_text(fold(await stage.runs.facts(run_id)), "s")
    model.hang_at = None
    facts = await stage.ended(run_id)
    assert facts[-1].data["output"] == {"text": WHOLE}
    assert section_text(fold(facts), "s") == WHOLE
    assert model.requests[-1].messages[1]["content"] == before
