"""The Responses API: recorded events to pieces, and what a request becomes on its way there."""

from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from typing import Any

import httpx2
import openai
import orjson
import pytest

from worker.llm.model import ModelEnd, ModelFault, ModelRequest, Piece, ReasoningPiece, TextPiece, ToolCallPiece, Usage
from worker.llm.response_events import ResponsesDecoder
from worker.llm.responses import ResponsesModel

Event = dict[str, Any]
USAGE = {
    "input_tokens": 9,
    "output_tokens": 12,
    "total_tokens": 21,
    "input_tokens_details": {"cached_tokens": 4},
    "output_tokens_details": {"reasoning_tokens": 5},
}


def ended(kind: str = "completed", **more: Any) -> Event:
    return {"type": f"response.{kind}", "response": {"model": "served-2", "status": kind, "usage": USAGE, **more}}


def item(kind: str, index: int, **made: Any) -> Event:
    return {"type": f"response.output_item.{kind}", "output_index": index, "item": {"type": "function_call", **made}}


def arguments(index: int, part: str) -> Event:
    return {"type": "response.function_call_arguments.delta", "output_index": index, "delta": part}


def text(delta: str, **place: int) -> Event:
    return {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, **place, "delta": delta}


RECORDED: list[Event] = [
    {"type": "response.created", "response": {"model": "served-1", "status": "in_progress", "error": None}},
    {"type": "response.in_progress", "response": {}},
    {"type": "response.output_item.added", "output_index": 0, "item": {"type": "reasoning", "summary": []}},
    {"type": "response.reasoning_summary_part.added", "summary_index": 0},
    {"type": "response.reasoning_summary_text.delta", "summary_index": 0, "delta": "Hm."},
    {"type": "response.reasoning_summary_part.added", "summary_index": 1},
    {"type": "response.reasoning_summary_text.delta", "summary_index": 1, "delta": "So."},
    text("Clause", output_index=1),
    text(" 4.1", output_index=1),
    {"type": "response.output_text.done", "output_index": 1, "content_index": 0, "text": "Clause 4.1"},
    item("added", 2, id="fc_1", call_id="call_a", name="lookup", arguments=""),
    item("added", 3, id="fc_2", call_id="call_b", name="count", arguments=""),
    arguments(2, '{"topic":'),
    arguments(3, "{}"),
    arguments(2, '"cap"}'),
    {"type": "response.function_call_arguments.done", "output_index": 2, "arguments": '{"topic":"cap"}'},
    item("done", 3, id="fc_2", call_id="call_b", name="count", arguments="{}"),
    {"type": "response.something_new", "delta": 7},
    ended(),
]


def decode(events: Iterable[Event]) -> tuple[list[Piece], ResponsesDecoder]:
    decoder = ResponsesDecoder()
    return [piece for event in events for piece in decoder.feed(event)], decoder


def test_a_recorded_answer_gives_its_pieces_its_finish_and_its_usage() -> None:
    pieces, decoder = decode(RECORDED)
    assert pieces == [
        ReasoningPiece("Hm."),
        ReasoningPiece("\n\n"),
        ReasoningPiece("So."),
        TextPiece("Clause"),
        TextPiece(" 4.1"),
        ToolCallPiece(0, "call_a", "lookup", '{"topic":"cap"}'),
        ToolCallPiece(1, "call_b", "count", "{}"),
    ]
    assert (decoder.finish, decoder.finish_raw, decoder.complete) == ("tool_calls", "completed", True)
    assert decoder.usage == Usage(input_tokens=9, output_tokens=12, cached_tokens=4, reasoning_tokens=5)
    assert decoder.model_served == "served-2"


@pytest.mark.parametrize("cut", range(len(RECORDED)))
def test_an_answer_without_its_last_event_has_no_finish(cut: int) -> None:
    pieces, decoder = decode(RECORDED[:cut])
    assert (decoder.finish, decoder.finish_raw, decoder.complete) == (None, None, False)
    assert not any(isinstance(piece, ToolCallPiece) for piece in pieces)


@pytest.mark.parametrize(
    ("details", "finish", "raw"),
    [
        ({"reason": "max_output_tokens"}, "length", "max_output_tokens"),
        ({"reason": "content_filter"}, "content_filter", "content_filter"),
        ({"reason": "stop"}, "incomplete", "stop"),
        ({"reason": 7}, "incomplete", "incomplete"),
        (None, "incomplete", "incomplete"),
    ],
)
def test_an_incomplete_answer_says_why_and_gives_no_calls(details: object, finish: str, raw: str) -> None:
    pieces, decoder = decode([*RECORDED[10:15], ended("incomplete", incomplete_details=details)])
    assert pieces == []
    assert (decoder.finish, decoder.finish_raw) == (finish, raw)


@pytest.mark.parametrize(
    "events",
    [
        [{"type": "response.refusal.delta", "delta": "I can"}, {"type": "response.refusal.delta", "delta": "not."}],
        [{"type": "response.refusal.delta", "delta": "I cannot."}, {"type": "response.refusal.done", "refusal": "no"}],
        [{"type": "response.refusal.done", "refusal": "I cannot."}],
    ],
)
def test_a_refusal_is_told_apart_from_an_answer(events: list[Event]) -> None:
    pieces, decoder = decode([*events, ended()])
    assert (pieces, decoder.finish, decoder.refusal) == ([], "refused", "I cannot.")


def test_a_text_that_comes_only_whole_is_given_and_one_that_came_in_pieces_not_twice() -> None:
    done = {"type": "response.output_text.done", "output_index": 0, "content_index": 0, "text": "all"}
    other = {**done, "content_index": 1}
    pieces, _ = decode([text("al"), text("l"), done, other, ended()])
    assert pieces == [TextPiece("al"), TextPiece("l"), TextPiece("all")]


@pytest.mark.parametrize(
    ("event", "code", "retryable"),
    [
        ({"type": "error", "code": "server_error", "message": "secret"}, "provider_busy", True),
        ({"type": "error", "code": "rate_limit_exceeded", "message": "secret"}, "provider_busy", True),
        ({"type": "error", "code": "insufficient_quota", "message": "secret"}, "provider_refused", False),
        ({"type": "error", "code": None, "message": "secret"}, "provider_busy", True),
        ({"type": "error", "error": {"code": "content_filter", "message": "secret"}}, "content_filter", False),
        (ended("failed", error={"code": "server_error", "message": "secret"}), "provider_busy", True),
        (ended("failed", error={"code": "invalid_prompt", "message": "secret"}), "provider_refused", False),
        (ended("failed", error=None), "provider_busy", True),
    ],
)
def test_a_failure_is_a_fault_in_our_words(event: Event, code: str, retryable: bool) -> None:
    with pytest.raises(ModelFault) as caught:
        decode([text("a"), event])
    assert (caught.value.code, caught.value.retryable) == (code, retryable)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"type": 7},
        text("x") | {"delta": 7},
        {"type": "response.completed"},
        {"type": "response.completed", "response": []},
        {"type": "response.output_item.added", "output_index": 0},
        item("added", 0, call_id=7),
        item("added", -1, call_id="a"),
        {"type": "response.function_call_arguments.delta", "delta": "x"},
        {"type": "response.function_call_arguments.done", "output_index": 4, "arguments": "{}"},
    ],
)
def test_an_event_of_the_wrong_shape_is_malformed(event: Event) -> None:
    with pytest.raises(ModelFault) as caught:
        decode([event])
    assert (caught.value.code, caught.value.retryable) == ("malformed", True)


def test_a_call_without_a_name_is_malformed() -> None:
    with pytest.raises(ModelFault):
        decode([item("added", 0, call_id="a"), ended()])


# --- what is sent


async def sent(request: ModelRequest) -> dict[str, Any]:
    """The body that the SDK posts."""
    bodies: list[dict[str, Any]] = []

    def handler(asked: httpx2.Request) -> httpx2.Response:
        assert asked.url.path == "/v1/responses"
        bodies.append(orjson.loads(asked.content))
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=_Done())

    http_client = httpx2.AsyncClient(transport=httpx2.MockTransport(handler))
    client = openai.AsyncOpenAI(api_key="x", base_url="http://model.invalid/v1", max_retries=0, http_client=http_client)
    model = ResponsesModel(client, first_byte_s=5.0, between_pieces_s=5.0)
    async with aclosing(model.stream(request)) as stream:
        [end] = [item async for item in stream]
    assert isinstance(end, ModelEnd)
    await model.aclose()
    [body] = bodies
    return body


class _Done(httpx2.AsyncByteStream):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"data: " + orjson.dumps(ended()) + b"\n\n"

    async def aclose(self) -> None:
        return


async def test_the_provider_is_asked_to_keep_nothing_and_is_told_everything() -> None:
    messages = (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Look"}]},
        {
            "role": "assistant",
            "content": "Looking.",
            "tool_calls": [{"id": "call_a", "function": {"name": "lookup", "arguments": '{"a":1}'}}],
        },
        {"role": "tool", "tool_call_id": "call_a", "content": "found"},
    )
    body = await sent(ModelRequest("m", messages))
    assert (body["store"], body["stream"]) == (False, True)
    assert "previous_response_id" not in body
    assert "messages" not in body
    assert body["input"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "input_text", "text": "Look"}]},
        {"role": "assistant", "content": "Looking."},
        {"type": "function_call", "call_id": "call_a", "name": "lookup", "arguments": '{"a":1}'},
        {"type": "function_call_output", "call_id": "call_a", "output": "found"},
    ]


async def test_parameters_and_tools_get_the_names_that_this_api_has_for_them() -> None:
    schema = {"name": "finding", "schema": {"type": "object"}, "strict": True}
    parameters = {
        "response_format": {"type": "json_schema", "json_schema": schema},
        "max_completion_tokens": 100,
        "reasoning_effort": "low",
        "verbosity": "low",
        "temperature": 0.2,
        "tool_choice": {"type": "function", "function": {"name": "lookup"}},
    }
    tool = {"type": "function", "function": {"name": "lookup", "parameters": {"type": "object"}}}
    body = await sent(ModelRequest("m", ({"role": "user", "content": "x"},), parameters, (tool,)))
    assert body["text"] == {"format": {"type": "json_schema", **schema}, "verbosity": "low"}
    assert (body["max_output_tokens"], body["reasoning"], body["temperature"]) == (100, {"effort": "low"}, 0.2)
    assert body["tool_choice"] == {"type": "function", "name": "lookup"}
    assert body["tools"] == [{"type": "function", "name": "lookup", "parameters": {"type": "object"}}]
    assert not {"response_format", "max_completion_tokens", "reasoning_effort", "verbosity"} & set(body)


@pytest.mark.parametrize("name", ["store", "previous_response_id", "conversation", "background", "input"])
def test_no_parameter_may_leave_the_conversation_with_the_provider(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        ModelRequest("m", ({"role": "user", "content": "x"},), {name: "x"})
