"""What a run makes of each thing that a provider may do, row by row: the same over chat completions and Responses."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
import pytest_asyncio

from eventstore.domain.record import Fact
from eventstore.domain.transcript import section_text
from tests.carrying import Carried, Nothing, declared
from worker.declare import tool
from worker.llm.provider import ProviderModel, create_model
from worker.llm.retrying import RetryPolicy
from worker.llm.scripted_chat import Pace
from worker.llm.scripted_faults import Fault
from worker.llm.scripted_rules import parse_rules
from worker.llm.scripted_server import ScriptedServer
from worker.llm.settings import ModelSettings
from worker.run import Run

APIS = ("chat", "responses")
TEXT = "The cap is two million."
LOOK = [{"name": "look_up", "arguments": {"topic": "cap"}}]
SCRIPT: list[dict[str, Any]] = [
    {"name": "told", "when": ["^The cap is here$"], "last_role": "tool", "say": TEXT},
    {"name": "told it cannot", "when": ["The call was not made"], "last_role": "tool", "say": TEXT},
    {"name": "answer", "when": ["^answer$"], "say": TEXT},
    {"name": "tools", "when": ["^tools$"], "say": "Looking. ", "tool_calls": LOOK},
    {"name": "stop with tools", "when": ["^stop with tools$"], "tool_calls": LOOK, "finish": "stop"},
    {"name": "bad tools", "when": ["^bad tools$"], "tool_calls": [{"name": "look_up", "arguments": {"topic": 1}}]},
    {"name": "no tools", "when": ["^no tools$"], "say": "Looking.", "finish": "tool_calls"},
    {"name": "filtered", "when": ["^filtered$"], "say": "It says", "finish": "content_filter"},
    {"name": "refused", "when": ["^refused$"], "refusal": "I will not do that."},
    {"name": "odd", "when": ["^odd$"], "say": "So", "finish": "handed_over"},
    {"name": "value", "when": ["^value$"], "say": '{"text": "two million euros"}'},
]
SOON = RetryPolicy(attempts_max=3, first_wait_s=0.0, longest_wait_s=0.0, jitter_s=0.0, retry_after_max_s=0.1)


@tool(reads_only=True, shown=("topic",))
async def look_up(topic: str) -> str:
    """Says where something stands."""
    return f"The {topic} is here"


@dataclass(frozen=True)
class Row:
    """What is asked, what the provider does and how often, and what the log and the run's end make of it."""

    what: str
    ask: str = "answer"
    fault: dict[str, Any] | None = None
    retries: tuple[tuple[str, bool], ...] = ()  # the reason of each, and whether something is dead with it
    error: str | None = None
    said: str | None = TEXT  # what stands in the draft at the end, of a failed run in its partial result
    options: dict[str, Any] = field(default_factory=dict)
    text: str | None = TEXT


ROWS = [
    Row("408", fault={"kind": "408"}, retries=(("provider_busy", False),)),
    Row("409", fault={"kind": "409"}, retries=(("provider_busy", False),)),
    Row("429", fault={"kind": "429"}, retries=(("provider_busy", False),)),
    Row("429 with Retry-After", fault={"kind": "429", "retry_after_s": 0.01}, retries=(("provider_busy", False),)),
    Row(
        "429 with a long Retry-After",
        fault={"kind": "429", "retry_after_s": 40},
        retries=(("provider_busy", False),),
        error="provider_busy",
        said="",
    ),
    Row("500", fault={"kind": "500"}, retries=(("provider_busy", False),)),
    Row(
        "503 again and again",
        fault={"kind": "503", "times": 3},
        retries=(("provider_busy", False),) * 3,
        error="provider_busy",
        said="",
    ),
    Row("reset before a byte", fault={"kind": "reset"}, retries=(("connection", False),)),
    *(
        Row(str(more), fault=more, retries=(("provider_refused", False),), error="provider_refused", said="")
        for more in (
            {"kind": "429", "error_code": "insufficient_quota"},
            *({"kind": status} for status in ("400", "401", "403", "404", "422")),
        )
    ),
    Row("cut after pieces", fault={"kind": "cut", "after_pieces": 3}, retries=(("connection", True),)),
    Row("stalled after pieces", fault={"kind": "hang", "after_pieces": 3}, retries=(("limit_between_pieces_s", True),)),
    Row("no first byte", fault={"kind": "slow_first", "delay_s": 30}, retries=(("limit_first_byte_s", False),)),
    Row("bad JSON", fault={"kind": "malformed", "after_pieces": 3}, retries=(("malformed", True),)),
    Row("bad UTF-8", fault={"kind": "bad_utf8", "after_pieces": 3}, retries=(("malformed", True),)),
    Row("error frame", fault={"kind": "error_frame", "after_pieces": 3}, retries=(("provider_busy", True),)),
    Row("no finish", fault={"kind": "early_end", "after_pieces": 3}, retries=(("stream_incomplete", True),)),
    Row("only [DONE]", fault={"kind": "no_finish", "after_pieces": 9}, retries=(("stream_incomplete", True),)),
    Row("JSON with status 200", fault={"kind": "not_a_stream"}, retries=(("malformed", False),)),
    Row("failed", fault={"kind": "failed", "after_pieces": 3}, retries=(("provider_busy", True),)),
    Row(
        "failed for good",
        fault={"kind": "failed", "after_pieces": 3, "error_code": "invalid_prompt"},
        retries=(("provider_refused", True),),
        error="provider_refused",
        said="",
    ),
    Row("stop"),
    Row("stop with whole calls", "stop with tools"),
    Row("tool calls", "tools", said="Looking. " + TEXT),
    Row("bad arguments", "bad tools"),
    Row("length, offered", error="model_length", said="The cap is", options={"room": 3}),
    Row("length, kept", said="The cap is", text="The cap is", options={"room": 3, "on_length": "keep"}),
    Row("length, gone on with", options={"room": 3, "on_length": "continue"}),
    Row("length within a call", "tools", error="model_length", said="Looking. ", options={"room": 3}),
    Row("content filter", "filtered", error="model_content_filter", said="It says"),
    Row("refusal", "refused", error="model_refused", said=""),
    Row(
        "another word for the end",
        "odd",
        retries=(("unknown_finish", True),) * 2,
        error="unknown_finish",
        said="",
    ),
    Row("pieces after a finish", fault={"kind": "talk_on"}),
    Row("cut, gone on with", fault={"kind": "cut", "after_pieces": 3}, retries=(("connection", False),),
        options={"resume": "continue"}),
]  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def running() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer(parse_rules(orjson.dumps(SCRIPT), source="here"), pace=Pace(0)) as server:
        yield server


@pytest.fixture
def server(running: ScriptedServer) -> ScriptedServer:
    running.faults.clear()
    running.journal.clear()
    return running


@pytest_asyncio.fixture(scope="module", loop_scope="session", params=APIS)
async def model(running: ScriptedServer, request: pytest.FixtureRequest) -> AsyncIterator[ProviderModel]:
    names = "*" if request.param == "responses" else ""
    settings = ModelSettings(
        OPENAI_API_KEY=None, OPENAI_BASE_URL=None, RUNWIRE_SCRIPTED_URL=running.url, responses_models=names
    )
    made = create_model(settings)
    yield made
    await made.aclose()


def code_of(row: Row) -> Any:
    options = {name: value for name, value in row.options.items() if name != "room"}
    parameters = {"max_completion_tokens": row.options["room"]} if "room" in row.options else None

    async def code(run: Run, _: Nothing) -> Nothing:
        messages = [{"role": "user", "content": row.ask}]
        said = await run.model("ask", messages, section="s", tools=[look_up], parameters=parameters, **options)
        return await run.validate(Nothing(text=said.text), [])

    return code


def carried_with(code: Any, model: ProviderModel) -> Carried:
    return Carried(declared(code), model, retries=SOON)  # type: ignore[arg-type]


def names(told: list[Fact]) -> list[str]:
    return [fact.data["key"] for fact in told]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.what)
async def test_each_row_of_what_a_provider_may_do_ends_as_the_design_says(
    model: ProviderModel, server: ScriptedServer, row: Row
) -> None:
    carried = carried_with(code_of(row), model)
    if row.fault is not None:
        server.faults.add(Fault.model_validate(row.fault))
        if row.fault["kind"] in ("hang", "slow_first"):
            carried.facts[0].data["limits"].update(first_byte_s=1.0, between_pieces_s=1.0)
    await carried.carry()
    end = carried.facts[-1]
    assert (end.type, end.data.get("code")) == ("result" if row.error is None else "error", row.error)
    told = [(fact.data["reason"], bool(fact.data["superseded"])) for fact in carried.of("retry")]
    assert told == [*row.retries]
    assert section_text(carried.state, "s") == (row.said or "")
    if row.error is None:
        assert end.data["output"] == {"text": row.text}
    assert "scripted provider text" not in repr(carried.facts)


async def test_an_answer_with_whole_calls_is_taken_as_one_whatever_its_finish_says_and_the_word_is_kept(
    model: ProviderModel, server: ScriptedServer
) -> None:
    carried = carried_with(code_of(Row("", "stop with tools")), model)
    await carried.carry()
    first = carried.of("model_call")[0].data
    assert (first["finish"], first["finish_raw"] in ("stop", "completed")) == ("tool_calls", True)
    assert names(carried.of("tool_result")) == ["ask#1:1"]


async def test_arguments_that_the_length_cut_short_never_run(model: ProviderModel, server: ScriptedServer) -> None:
    for room in (3, 4):
        carried = carried_with(code_of(Row("", "tools", options={"room": room})), model)
        await carried.carry()
        assert not carried.of("tool_call")
        assert not carried.of("tool_result")


async def test_a_finish_for_tool_calls_without_one_is_malformed(model: ProviderModel, server: ScriptedServer) -> None:
    carried = carried_with(code_of(Row("", "no tools")), model)
    await carried.carry()
    over_chat = server.journal.entries()[-1]["api"] == "chat"  # Responses does not speak of calls at the end
    assert {fact.data["reason"] for fact in carried.of("retry")} == ({"malformed"} if over_chat else set())


async def test_a_value_that_its_length_cut_short_is_asked_for_once_more_with_more_room(
    model: ProviderModel, server: ScriptedServer
) -> None:
    async def code(run: Run, _: Nothing) -> Nothing:
        messages = [{"role": "user", "content": "value"}]
        return await run.validate(
            await run.value("ask", messages, Nothing, parameters={"max_completion_tokens": 2}), []
        )

    carried = carried_with(code, model)
    await carried.carry()
    assert [fact.data["reason"] for fact in carried.of("retry")] == ["model_length"]
    assert carried.facts[-1].data["output"] == {"text": "two million euros"}


async def test_what_a_tool_answered_reaches_the_model_whichever_api_is_spoken(
    model: ProviderModel, server: ScriptedServer
) -> None:
    carried = carried_with(code_of(Row("", "tools")), model)
    await carried.carry()
    assert [entry["rule"] for entry in server.journal.entries()] == ["tools", "told"]
    assert len({entry["api"] for entry in server.journal.entries()}) == 1
