"""Each limit of a run, reached: the run ends with `limit_<name>`, with the best partial result, and within its time."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

import orjson
import pytest

from eventstore.domain.run import fold
from eventstore.domain.transcript import public
from tests.carrying import Code, Nothing
from tests.staging import Stage
from tests.tooling import call, fail, look_up
from worker.declare import Check
from worker.limits import REACHED
from worker.llm.chat import create_chat_model
from worker.llm.prices import Price, Prices
from worker.llm.scripted_chat import Pace
from worker.llm.scripted_faults import Fault
from worker.llm.scripted_rules import parse_rules
from worker.llm.scripted_server import ScriptedServer
from worker.llm.settings import ModelSettings
from worker.run import Run

Begun = Callable[[Run], Awaitable[object]]


@dataclass(frozen=True)
class Row:
    """A limit, how low it is, and code that reaches it."""

    limit: str
    value: float
    code: Begun
    more: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.limit}-{self.code.__name__}"


def ask(question: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": question}]


async def hangs() -> None:
    await asyncio.Event().wait()


async def hangs_although_it_is_cancelled() -> None:
    try:
        await hangs()
    except asyncio.CancelledError:
        await hangs()


def hangs_in_a_thread() -> None:
    RELEASED.wait(30)


DEAR: Final = Prices("test", {"scripted-1": Price(input=Decimal(1), output=Decimal(2))})
RELEASED: Final = threading.Event()


async def step(run: Run) -> None:
    await run.step("wait", hangs)


async def deaf_step(run: Run) -> None:
    await run.step("wait", hangs_although_it_is_cancelled)


async def blocking_step(run: Run) -> None:
    await run.step("wait", hangs_in_a_thread)


async def longer_step(run: Run) -> None:
    await run.step("wait", hangs, timeout_s=60.0)


async def blocking_check(run: Run) -> None:
    await run.validate(Nothing(), [Check("never answers", lambda value: RELEASED.wait(30))])


async def code_itself(run: Run) -> None:
    await hangs()


async def branches(run: Run) -> None:
    async def look(run: Run, word: str) -> None:
        await run.step("wait", hangs)

    await run.each(["a", "b"], look, key=str)


async def long_result(run: Run) -> Nothing:
    return await run.validate(Nothing(text="x" * 200), [])


async def many_findings(run: Run) -> None:
    for number in range(100):
        await run.finding(Nothing(text=str(number)), item=str(number))


async def endless_draft(run: Run) -> None:
    async def speak() -> AsyncIterator[str]:
        while True:
            await asyncio.sleep(0)
            yield "and on "

    await run.draft("speak", speak, section="a")


async def held_text(run: Run) -> None:
    await run.model("tell", ask("held"), section="a", hold=lambda text, ended: 0)


async def calls(run: Run) -> None:
    for _ in range(20):
        await run.model("tell", ask("a"), section="a")


async def one_long_call(run: Run) -> None:
    await run.model("tell", ask("endless"), section="a")


async def read_long_call(run: Run) -> None:
    async for _ in run.model("tell", ask("endless"), section="a").text():
        pass


async def asks_for_tools(run: Run) -> None:
    await run.model("agent", ask("go"), section="a", tools=[look_up])


async def asks_for_tools_that_fail(run: Run) -> None:
    await run.model("agent", ask("go on"), section="a", tools=[fail])


async def calls_tools(run: Run) -> None:
    for number in range(5):
        await run.tool(look_up, word="a" * number)


class Insisting(dict[str, Any]):
    """A script of a model that never has enough of its tools."""

    def __missing__(self, question: str) -> Any:
        return [call("fail", '{"why":"no"}') if "failed" in question or question == "go on" else self.look]

    look = call("look_up", '{"word":"abc"}')


TABLE: Final = (
    Row("run_s", 0.3, code_itself),
    Row("run_s", 0.3, blocking_step),
    Row("run_s", 0.3, branches),
    Row("step_s", 0.2, step),
    Row("step_s", 0.2, deaf_step),
    Row("step_s", 0.2, blocking_step),
    Row("step_s", 0.2, longer_step),
    Row("step_s", 0.2, blocking_check),
    Row("step_s", 0.2, branches),
    Row("output_bytes_max", 100, long_result),
    Row("events_max", 20, many_findings),
    Row("events_max", 20, endless_draft),
    Row("hold_chars_max", 130, held_text),
    Row("turns_max", 2, asks_for_tools),
    Row("tool_calls_max", 3, asks_for_tools),
    Row("tool_calls_max", 3, calls_tools),
    Row("tool_failures_max", 1, asks_for_tools_that_fail),
    Row("tokens_max", 10, calls),
    Row("tokens_max", 300, one_long_call),
    Row("tokens_max", 300, read_long_call),
    Row("cost_micro_usd", 20, calls),
    Row("cost_micro_usd", 600, one_long_call),
    Row("cost_micro_usd", 600, read_long_call),
)


def caught(row: Row) -> Code:
    """Code that makes something to hand over, reaches the limit and goes on as if nothing had happened."""

    async def story(run: Run, _: Nothing) -> Nothing:
        await run.finding(Nothing(text="kept"), item="kept")
        made = await row.code(run)
        return made if isinstance(made, Nothing) else await run.validate(Nothing(), [])

    return story


@pytest.mark.parametrize("row", TABLE, ids=str)
async def test_each_limit_reached_is_named_and_leaves_a_partial_result(stage: Stage, row: Row) -> None:
    script = {**stage.model.script, "held": ["long "] * 60, "endless": ["word after word "] * 10_000}
    stage.model.script = Insisting(script)
    stage.prices = DEAR
    stage.play(caught(row))
    run_id = await stage.submit(**{row.limit: row.value}, **row.more)
    try:
        async with asyncio.timeout(15):
            facts = await stage.ended(run_id)
    finally:
        RELEASED.set()
        RELEASED.clear()
    end = facts[-1]
    assert (end.type, end.data["code"], end.data["message"]) == ("error", f"limit_{row.limit}", _said(row.limit, end))
    assert end.data["partial"]["findings"][0] == {"text": "kept"}
    assert len(facts) < 400


def _said(limit: str, end: Any) -> str:
    """A step says its name as well, and what was held back how much it was."""
    return str(end.data["message"]) if limit in ("step_s", "hold_chars_max") else REACHED[limit]


async def test_a_bound_of_cost_cannot_be_kept_for_a_model_without_a_price(stage: Stage) -> None:
    stage.prices = Prices("test", {})
    stage.play(caught(Row("cost_micro_usd", 100, calls)))
    facts = await stage.ended(await stage.submit(cost_micro_usd=100))
    assert (facts[-1].type, facts[-1].data["code"]) == ("error", "price_unknown")
    assert stage.model.asked == []


async def test_what_dead_attempts_cost_is_in_their_retries_and_all_attempts_sum_to_the_cost(stage: Stage) -> None:
    stage.prices = DEAR
    long, other = "a" * 4_000, "b" * 4_000
    stage.model.script = {long: ["A1 ", "A2 "], other: ["B1 ", "B2 "]}
    stage.model.cuts = {long: [1, 2]}

    async def story(run: Run, _: Nothing) -> Nothing:
        said = await run.model("tell", ask(long), section="a")
        async for _piece in run.model("tell", ask(other), section="b").text():
            pass
        return await run.validate(Nothing(text=said.text), [])

    stage.play(story)
    facts = await stage.ended(await stage.submit())
    told = [fact.data["usage"] for fact in facts if fact.type in ("model_call", "retry")]
    assert [each["source"] for each in told] == ["estimated"] * 4
    prompt = len(long) // 4
    assert [each["input_tokens"] for each in told] == [prompt] * 4
    assert all(each["cost_micro_usd"] == prompt + 2 * each["output_tokens"] for each in told)
    assert {each["prices"] for each in told} == {"test"}
    result = facts[-1].data["usage"]
    assert result["cost_micro_usd"] == sum(each["cost_micro_usd"] for each in told) > 0
    assert public(fold(facts))["usage"] == result


async def test_tokens_without_a_price_are_told_as_such_and_never_as_a_cost_of_nothing(stage: Stage) -> None:
    stage.prices = Prices("test", {})
    stage.play(caught(Row("tokens_max", 0, calls)))
    facts = await stage.ended(await stage.submit())
    usage = facts[-1].data["usage"]
    assert "cost_micro_usd" not in usage
    assert usage["unpriced_tokens"] == usage["output_tokens"] == 20


@pytest.mark.parametrize(
    ("limit", "fault"),
    [
        ("first_byte_s", {"kind": "slow_first", "delay_s": 30.0, "times": 3}),
        ("between_pieces_s", {"kind": "hang", "after_pieces": 2, "times": 3}),
    ],
)
async def test_a_model_that_falls_silent_is_asked_again_and_then_the_limit_is_named(
    stage: Stage, limit: str, fault: dict[str, Any]
) -> None:
    rule = {"name": "any", "when": ["endless"], "say": "word after word after word"}
    async with ScriptedServer(parse_rules(orjson.dumps([rule]), source="here"), pace=Pace(0)) as server:
        server.faults.add(Fault.model_validate(fault))
        model = create_chat_model(ModelSettings.model_construct(scripted_url=server.url))
        stage.model = model  # type: ignore[assignment]
        stage.play(caught(Row(limit, 0.2, one_long_call)))
        async with asyncio.timeout(15):
            facts = await stage.ended(await stage.submit(**{limit: 0.2}))
        await model.aclose()
    assert [fact.data["reason"] for fact in facts if fact.type == "retry"] == [f"limit_{limit}"] * 3
    assert (facts[-1].data["code"], facts[-1].data["retryable"]) == (f"limit_{limit}", True)
    assert facts[-1].data["partial"]["findings"] == [{"text": "kept"}]
