"""Calls of tools that a person must allow: this call with these arguments, and a no is read by the model."""

import asyncio
from typing import Any

import pytest

from eventstore.domain import events
from eventstore.domain.events import new_event
from tests.carrying import Carried, Nothing, declared
from tests.tooling import MADE, Answering, ask, call, carried_with, ends, note, output
from tests.writing import NOW_US
from worker.declare import tool
from worker.run import Run


@pytest.fixture(autouse=True)
def _nothing_made() -> None:
    MADE.clear()


@tool(approve=True, shown=("to",), effect=True)
async def pay(to: str, cents: int) -> str:
    """Pays."""
    MADE.append(f"pay {to} {cents}")
    return "paid"


async def paying(run: Run, _: Nothing) -> Nothing:
    said = await run.model("agent", ask("go"), section="s", tools=[pay, note])
    return await ends(run, said.text)


PAYING = Answering(
    [call("pay", '{"to":"ada","cents":5}'), call("note", '{"text":"x"}', 1), call("pay", '{"to":"bob","cents":7}', 2)],
    ["Done."],
)


async def until_it_waits(carried: Carried) -> None:
    """Carry it to where all of it waits; its owner goes away then."""
    task = asyncio.create_task(carried.carry())
    await carried.begun.wait()
    assert carried.work is not None
    await asyncio.wait([asyncio.create_task(carried.work.waits.all_wait()), task], return_when=asyncio.FIRST_COMPLETED)
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def decide(carried: Carried, number: int, choice: str, note: str | None = None) -> None:
    question = carried.of("escalation")[number]
    closing = {name: question.data[name] for name in ("key", "place", "args", "attempt")}
    by = events.Person(subject="rita", role="user")
    carried.add(
        new_event(
            events.Decision(escalation=question.seq, because="answered", by=by, choice=choice, note=note, **closing),
            NOW_US,
        )
    )


async def test_a_person_allows_one_call_and_not_another_and_the_model_reads_both() -> None:
    carried = carried_with(paying, PAYING)
    await until_it_waits(carried)
    first, second = carried.of("escalation")
    assert (first.data["question"], first.data["to"]) == ("May pay be called with to: ada?", "reviewer")
    assert (first.data["choices"], first.data["default"]) == (["allow", "deny"], "deny")
    assert first.data["call_id"] == "agent#1:1/1"
    assert first.data["arguments_digest"] != second.data["arguments_digest"]
    assert not MADE, "nothing of the turn is called before all of it is decided"
    decide(carried, 1, "deny", "Not bob.")
    await until_it_waits(carried)
    decide(carried, 0, "allow")
    assert await carried.carry() is None
    assert MADE == ["pay ada 5", "note x"]
    results = [(fact.data["status"], fact.data["output"]) for fact in carried.of("tool_result")]
    assert results[0] == ("ok", "paid")
    assert results[2] == ("failed", {"error": "A person did not allow this call. They said: Not bob."})
    assert "Not bob." in carried.model.requests[-1].messages[-1]["content"]
    assert carried.closed() == [key for key in carried.closed() if carried.closed().count(key) == 1]


async def test_what_a_person_did_not_allow_is_no_failure_of_the_tool() -> None:
    wanted = [call("pay", f'{{"to":"{to}","cents":5}}', n) for n, to in enumerate(("ada", "bob"))]
    carried = carried_with(paying, Answering(wanted, ["Then not."]))
    carried.facts[0].data["limits"]["tool_failures_max"] = 1
    await until_it_waits(carried)
    decide(carried, 0, "deny")
    decide(carried, 1, "deny")
    assert await carried.carry() is None
    assert output(carried) == "Then not."


async def test_an_approval_is_spent_on_the_arguments_that_were_asked_about_and_on_no_others() -> None:
    def code(cents: int) -> Any:
        async def fn(run: Run, _: Nothing) -> Nothing:
            return await ends(run, str(await run.tool(pay, to="ada", cents=cents)))

        return fn

    carried = carried_with(code(5))
    await until_it_waits(carried)
    decide(carried, 0, "allow")
    changed = declared(code(5_000), code="c2c2")
    assert await carried.carry(workflow=changed) is None
    assert not MADE
    assert (output(carried), carried.of("tool_result")[0].data["summary"]) == ("None", "not allowed")


async def test_a_call_that_does_not_fit_is_asked_of_nobody() -> None:
    carried = carried_with(paying, Answering([call("pay", '{"to":"ada"}')], ["Then not."]))
    assert await carried.carry() is None
    assert not carried.of("escalation")
