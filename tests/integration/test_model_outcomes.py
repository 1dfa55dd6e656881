"""What each thing that a provider may do becomes, row by row: the same over chat completions and over Responses."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
import pytest_asyncio

from worker.llm.model import ModelEnd, ModelFault, ModelRequest, Piece, ReasoningPiece, TextPiece, ToolCallPiece, Usage
from worker.llm.provider import ProviderModel, create_model
from worker.llm.scripted_chat import Pace
from worker.llm.scripted_faults import Fault
from worker.llm.scripted_rules import parse_rules
from worker.llm.scripted_server import ScriptedServer
from worker.llm.settings import ModelSettings

APIS = ("chat", "responses")
CALLS: list[dict[str, Any]] = [
    {"name": "lookup", "arguments": {"topic": "cap", "notes": [1, None]}},
    {"name": "count", "arguments": {}},
]
SCRIPT: list[dict[str, Any]] = [
    {"name": "answer", "when": ["^answer$"], "reasoning": "Let me think.", "say": "The cap is two million."},
    {"name": "tools", "when": ["^tools$"], "say": "Looking.", "tool_calls": CALLS},
    {"name": "quiet tools", "when": ["^quiet tools$"], "tool_calls": CALLS[:1]},
    {"name": "stop with tools", "when": ["^stop with tools$"], "tool_calls": CALLS, "finish": "stop"},
    {"name": "no tools", "when": ["^no tools$"], "say": "Looking.", "finish": "tool_calls"},
    {"name": "filtered", "when": ["^filtered$"], "say": "It says", "finish": "content_filter"},
    {"name": "refused", "when": ["^refused$"], "refusal": "I will not do that."},
    {"name": "odd", "when": ["^odd$"], "say": "So", "finish": "handed_over"},
    {"name": "odd tools", "when": ["^odd tools$"], "tool_calls": CALLS, "finish": "handed_over"},
    {"name": "nothing", "when": ["^nothing$"], "say": ""},
]
ANSWER = [
    *(ReasoningPiece(word) for word in ("Let", " me", " think.")),
    *(TextPiece(word) for word in ("The", " cap", " is", " two", " million.")),
]


@dataclass(frozen=True)
class Row:
    """What is asked, what the provider does, and what must become of it."""

    ask: str
    outcome: tuple[object, ...]  # the finish, or the fault's code and whether it is worth another try
    fault: dict[str, Any] | None = None
    pieces: int | None = None  # how many of ANSWER were given before a fault; all of it where None
    parameters: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        kind = self.fault["kind"] if self.fault else "fine"
        code = self.fault.get("error_code") if self.fault else None
        return " ".join(str(part) for part in (self.ask, kind, code, self.pieces) if part is not None)


BUSY, FINAL = ("provider_busy", True), ("provider_refused", False)
ROWS = [
    Row("answer", ("stop",)),
    Row("nothing", ("stop",)),
    Row("tools", ("tool_calls",)),
    Row("quiet tools", ("tool_calls",)),
    Row("stop with tools", ("tool_calls",)),
    Row("filtered", ("content_filter",)),
    Row("refused", ("refused",)),
    Row("odd", ("unknown_finish", True)),
    Row("odd tools", ("unknown_finish", True)),
    Row("answer", ("length",), parameters={"max_completion_tokens": 5}),
    Row("tools", ("length",), parameters={"max_completion_tokens": 3}),
    Row("answer", ("stop",), {"kind": "talk_on"}),
    *(
        Row("answer", BUSY, {"kind": status}, 0)
        for status in ("408", "409", "425", "429", "500", "502", "503", "504", "529")
    ),
    *(Row("answer", FINAL, {"kind": status}, 0) for status in ("400", "401", "403", "404", "413", "422")),
    Row("answer", FINAL, {"kind": "429", "error_code": "insufficient_quota"}, 0),
    Row("answer", ("content_filter", False), {"kind": "400", "error_code": "content_filter"}, 0),
    Row("answer", ("malformed", True), {"kind": "not_a_stream"}, 0),
    Row("answer", ("limit_first_byte_s", True), {"kind": "slow_first", "delay_s": 30}, 0),
    *(
        Row("answer", outcome, {"kind": kind, "after_pieces": pieces, **more}, pieces)
        for pieces in (0, 1, 5, len(ANSWER))
        for kind, outcome, more in (
            ("cut", ("connection", True), {}),
            ("hang", ("limit_between_pieces_s", True), {}),
            ("malformed", ("malformed", True), {}),
            ("bad_utf8", ("malformed", True), {}),
            ("early_end", ("stream_incomplete", True), {}),
            ("no_finish", ("stream_incomplete", True), {}),
            ("error_frame", BUSY, {}),
            ("error_frame", BUSY, {"error_code": "rate_limit_exceeded"}),
            ("error_frame", FINAL, {"error_code": "insufficient_quota"}),
            ("failed", BUSY, {}),
            ("failed", FINAL, {"error_code": "invalid_prompt"}),
            ("failed", ("content_filter", False), {"error_code": "bio_policy"}),
        )
    ),
]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def running() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer(parse_rules(orjson.dumps(SCRIPT), source="here"), pace=Pace(0)) as server:
        yield server


@pytest.fixture
def server(running: ScriptedServer) -> ScriptedServer:
    running.faults.clear()
    running.journal.clear()
    return running


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def model(running: ScriptedServer) -> AsyncIterator[ProviderModel]:
    model = create_model(settings_for(running))
    yield model
    await model.aclose()


def settings_for(server: ScriptedServer, **settings: Any) -> ModelSettings:
    given: dict[str, Any] = {"responses_models": "responses", "first_byte_s": 0.5, "between_pieces_s": 0.2, **settings}
    return ModelSettings(OPENAI_API_KEY=None, OPENAI_BASE_URL=None, RUNWIRE_SCRIPTED_URL=server.url, **given)


def asking(api: str, ask: str, **parameters: Any) -> ModelRequest:
    """The models of these tests are called after the API that the settings ask them over."""
    return ModelRequest(api, ({"role": "user", "content": ask},), parameters)


async def read(model: ProviderModel, request: ModelRequest) -> tuple[list[Piece], ModelEnd | ModelFault]:
    pieces: list[Piece] = []
    try:
        async with aclosing(model.stream(request)) as stream:
            async for item in stream:
                if isinstance(item, ModelEnd):
                    return pieces, item
                pieces.append(item)
    except ModelFault as fault:
        return pieces, fault
    raise AssertionError("neither an end nor a fault")


def outcome_of(end: ModelEnd | ModelFault) -> tuple[object, ...]:
    return (end.code, end.retryable) if isinstance(end, ModelFault) else (end.finish,)


def more_of(end: ModelEnd | ModelFault) -> tuple[object, ...]:
    """What else an end or a fault says that both APIs can tell."""
    if isinstance(end, ModelFault):
        return end.status, end.message_safe, end.retries_max
    return end.usage, end.pieces, end.refusal


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_each_row_of_what_a_provider_may_do(
    model: ProviderModel, server: ScriptedServer, row: Row, api: str
) -> None:
    if row.fault is not None:
        server.faults.add(Fault.model_validate(row.fault))
    async with asyncio.timeout(5):
        pieces, end = await read(model, asking(api, row.ask, **row.parameters))
    assert outcome_of(end) == row.outcome
    assert server.journal.entries()[-1]["api"] == api
    if row.ask == "answer":
        room = row.parameters.get("max_completion_tokens", len(ANSWER))
        assert pieces == ANSWER[: room if row.pieces is None else row.pieces]
    if isinstance(end, ModelFault):
        assert "scripted provider text" not in f"{end} {end!r} {end.message_safe}"
        assert end.__cause__ is None
    else:
        assert end.usage is not None


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_chat_and_responses_tell_the_same_story(model: ProviderModel, server: ScriptedServer, row: Row) -> None:
    told = []
    for api in APIS:
        if row.fault is not None:
            server.faults.add(Fault.model_validate(row.fault))
        pieces, end = await read(model, asking(api, row.ask, **row.parameters))
        told.append((pieces, outcome_of(end), more_of(end)))
    assert told[0] == told[1]


@pytest.mark.parametrize("api", APIS)
async def test_tool_calls_are_given_whole_with_the_name_that_may_be_answered_to(
    model: ProviderModel, server: ScriptedServer, api: str
) -> None:
    pieces, _ = await read(model, asking(api, "tools"))
    calls = [piece for piece in pieces if isinstance(piece, ToolCallPiece)]
    assert [(call.index, call.name, orjson.loads(call.arguments)) for call in calls] == [
        (number, call["name"], call["arguments"]) for number, call in enumerate(CALLS)
    ]
    assert all(call.id.startswith("call_") for call in calls)


@pytest.mark.parametrize(("ask", "room"), [("odd tools", None), ("tools", 3), ("tools", 4)])
@pytest.mark.parametrize("api", APIS)
async def test_a_call_that_the_end_may_have_cut_short_is_not_given(
    model: ProviderModel, server: ScriptedServer, ask: str, room: int | None, api: str
) -> None:
    parameters = {} if room is None else {"max_completion_tokens": room}
    pieces, _ = await read(model, asking(api, ask, **parameters))
    assert not any(isinstance(piece, ToolCallPiece) for piece in pieces)


@pytest.mark.parametrize(("api", "raw"), [("chat", "stop"), ("responses", "completed")])
async def test_the_word_of_the_provider_for_the_end_is_kept(
    model: ProviderModel, server: ScriptedServer, api: str, raw: str
) -> None:
    _, end = await read(model, asking(api, "stop with tools"))
    assert isinstance(end, ModelEnd)
    assert (end.finish, end.finish_raw, end.request_id) == ("tool_calls", raw, server.journal.entries()[-1]["id"])


@pytest.mark.parametrize("api", APIS)
async def test_pieces_after_the_finish_are_ignored_but_usage_is_read(
    model: ProviderModel, server: ScriptedServer, api: str
) -> None:
    server.faults.add(Fault(kind="talk_on"))
    pieces, end = await read(model, asking(api, "answer"))
    assert isinstance(end, ModelEnd)
    assert (pieces, end.finish) == (ANSWER, "stop")
    assert end.usage == Usage(input_tokens=1, output_tokens=len(ANSWER), reasoning_tokens=3)


async def test_a_finish_for_tool_calls_without_one_is_malformed(model: ProviderModel, server: ScriptedServer) -> None:
    """Over Responses there is no such contradiction: the end does not speak of calls."""
    _, end = await read(model, asking("chat", "no tools"))
    assert outcome_of(end) == ("malformed", True)


@pytest.mark.parametrize("api", APIS)
async def test_an_unknown_finish_is_tried_once_more_and_no_longer(
    model: ProviderModel, server: ScriptedServer, api: str
) -> None:
    _, end = await read(model, asking(api, "odd"))
    assert isinstance(end, ModelFault)
    assert (end.retries_max, end.request_id) == (1, server.journal.entries()[-1]["id"])
    assert end.usage is not None, "a dead attempt was paid for as well"


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize(("after", "taken"), [(100, True), (3, False)])
async def test_a_provider_that_forgets_the_finish_may_be_allowed_to_if_its_calls_are_whole(
    server: ScriptedServer, api: str, after: int, taken: bool
) -> None:
    for kind in ("early_end", "no_finish"):
        forgiving = create_model(settings_for(server, accept_unfinished_calls=True))
        server.faults.add(Fault(kind=kind, after_pieces=after))
        pieces, end = await read(forgiving, asking(api, "tools"))
        calls = [piece.name for piece in pieces if isinstance(piece, ToolCallPiece)]
        if taken:
            assert isinstance(end, ModelEnd)
            assert (end.finish, end.finish_raw, calls) == ("tool_calls", "none", ["lookup", "count"])
        else:
            assert (outcome_of(end), calls) == (("stream_incomplete", True), [])
        server.faults.add(Fault(kind=kind, after_pieces=100))
        _, end = await read(forgiving, asking(api, "answer"))
        assert outcome_of(end) == ("stream_incomplete", True), "text alone may have been cut anywhere"
        await forgiving.aclose()
