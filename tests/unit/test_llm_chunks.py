"""Recorded streams to pieces, without a network."""

import itertools
from collections.abc import Iterable
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.llm.chunks import ChatDecoder
from worker.llm.model import ModelFault, Piece, ReasoningPiece, TextPiece, ToolCallPiece, Usage
from worker.llm.reading import Reading
from worker.llm.sse import FRAME_BYTES_MAX, SseFrames

Chunk = dict[str, Any]


def chunk(delta: object = None, finish: object = None, **more: Any) -> Chunk:
    choice = {"index": 0, "delta": {} if delta is None else delta, "finish_reason": finish}
    return {"id": "c1", "object": "chat.completion.chunk", "model": "served-1", "choices": [choice], **more}


def call(index: int | None, call_id: str | None = None, name: str | None = None, arguments: str | None = None) -> Chunk:
    part: Chunk = {"function": {"name": name, "arguments": arguments}}
    if index is not None:
        part["index"] = index
    if call_id is not None:
        part |= {"id": call_id, "type": "function"}
    return chunk({"tool_calls": [part]})


def decode(chunks: Iterable[Chunk]) -> tuple[list[Piece], ChatDecoder]:
    decoder = ChatDecoder()
    return [piece for item in chunks for piece in decoder.feed(item)], decoder


USAGE = {
    "prompt_tokens": 9,
    "completion_tokens": 12,
    "total_tokens": 21,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 5},
}
# As OpenAI sends an answer with thinking, text and two tool calls whose parts are mixed.
RECORDED: list[Chunk] = [
    chunk({"role": "assistant", "content": "", "refusal": None}, system_fingerprint="fp_1"),
    chunk({"reasoning_content": "Hm, "}),
    chunk({"reasoning_content": "so."}),
    chunk({"content": "Clause 4.1 \N{SECTION SIGN}"}),
    chunk({"content": " is\n\nhigh \N{PILE OF POO}."}),
    call(0, "call_a", "lookup", ""),
    call(1, "call_b", "count", ""),
    call(0, arguments='{"topic":'),
    call(1, arguments="{}"),
    call(0, arguments='"cap"}'),
    chunk({}, "tool_calls"),
    {"id": "c1", "model": "served-1", "choices": [], "usage": USAGE},
]
PIECES = [
    ReasoningPiece("Hm, "),
    ReasoningPiece("so."),
    TextPiece("Clause 4.1 \N{SECTION SIGN}"),
    TextPiece(" is\n\nhigh \N{PILE OF POO}."),
    ToolCallPiece(0, "call_a", "lookup", '{"topic":"cap"}'),
    ToolCallPiece(1, "call_b", "count", "{}"),
]


def encoded(chunks: Iterable[Chunk], line_end: bytes = b"\n") -> bytes:
    frames = [b"data: " + orjson.dumps(item) for item in chunks] + [b"data: [DONE]"]
    return b"".join(b": comment" + line_end + frame + line_end * 2 for frame in frames)


def test_a_recorded_answer_gives_its_pieces_its_finish_and_its_usage() -> None:
    pieces, decoder = decode(RECORDED)
    assert pieces == PIECES
    assert (decoder.finish, decoder.finish_raw) == ("tool_calls", "tool_calls")
    assert decoder.usage == Usage(input_tokens=9, output_tokens=12, cached_tokens=4, reasoning_tokens=5)
    assert (decoder.model_served, decoder.system_fingerprint) == ("served-1", "fp_1")


@settings(deadline=None)
@given(
    cuts=st.lists(st.integers(0, 4000), max_size=40),
    line_end=st.sampled_from([b"\n", b"\r\n", b"\r"]),
    bom=st.booleans(),
)
def test_any_cut_of_the_bytes_gives_the_same_pieces(cuts: list[int], line_end: bytes, bom: bool) -> None:
    body = (b"\xef\xbb\xbf" if bom else b"") + encoded(RECORDED, line_end)
    places = sorted({0, len(body), *(cut % len(body) for cut in cuts)})
    reading = Reading(ChatDecoder())
    pieces = [piece for a, b in itertools.pairwise(places) for piece in reading.feed(body[a:b])]
    assert pieces == PIECES
    assert reading.done
    assert reading.decoder.usage is not None


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_one_byte_at_a_time_gives_the_same_pieces(line_end: bytes) -> None:
    reading = Reading(ChatDecoder())
    assert [piece for byte in encoded(RECORDED, line_end) for piece in reading.feed(bytes([byte]))] == PIECES


@settings(deadline=None)
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=20))
def test_whatever_the_text_the_pieces_joined_are_the_text(texts: list[str]) -> None:
    reading = Reading(ChatDecoder())
    pieces = list(reading.feed(encoded([*(chunk({"content": text}) for text in texts), chunk({}, "stop")])))
    assert "".join(piece.text for piece in pieces if isinstance(piece, TextPiece)) == "".join(texts)
    assert all(isinstance(piece, TextPiece) and piece.text for piece in pieces)


def test_several_data_lines_are_one_frame_and_names_without_colon_are_ignored() -> None:
    frames = list(SseFrames().feed(b"data: a\ndata:b\nretry\nevent: error\n\n\n\nevent: lost\n\ndata\n\n"))
    assert [(frame.event, frame.data) for frame in frames] == [(b"error", b"a\nb"), (b"", b"")]


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_lines_of_one_frame_stay_together_wherever_they_are_cut(line_end: bytes) -> None:
    body = b"\xef\xbb\xbf" + b"data: a\ndata: b\n\ndata: c\ndata: d\n\n".replace(b"\n", line_end)
    for cut in range(len(body)):
        frames = SseFrames()
        seen = [frame.data for part in (body[:cut], body[cut:]) for frame in frames.feed(part)]
        assert seen == [b"a\nb", b"c\nd"]
    frames = SseFrames()
    assert [frame.data for byte in body for frame in frames.feed(bytes([byte]))] == [b"a\nb", b"c\nd"]


def test_a_frame_that_never_ends_is_refused_before_it_fills_the_memory() -> None:
    for line in (b"x" * 1024, b"data: " + b"x" * 1024 + b"\n"):
        frames = SseFrames()
        with pytest.raises(ModelFault) as caught:
            list(itertools.chain.from_iterable(frames.feed(line) for _ in range(FRAME_BYTES_MAX // 512)))
        assert caught.value.code == "malformed"


@pytest.mark.parametrize("finish", ["stop", "length", "content_filter", "eos_unknown_to_us"])
def test_each_finish_keeps_its_own_name(finish: str) -> None:
    _, decoder = decode([chunk({"content": "a"}), chunk({}, finish)])
    assert (decoder.finish, decoder.finish_raw) == (finish, finish)


def test_without_a_finish_reason_there_is_no_finish() -> None:
    _, decoder = decode([chunk({"content": "a"})])
    assert decoder.finish is None


def test_stop_with_a_whole_tool_call_counts_as_tool_calls_and_keeps_the_raw_word() -> None:
    pieces, decoder = decode([call(0, "x", "lookup", "{}"), chunk({}, "stop")])
    assert pieces == [ToolCallPiece(0, "x", "lookup", "{}")]
    assert (decoder.finish, decoder.finish_raw) == ("tool_calls", "stop")


@pytest.mark.parametrize("finish", ["length", "content_filter", "other"])
def test_a_tool_call_that_the_end_cut_short_never_becomes_a_piece(finish: str) -> None:
    pieces, decoder = decode([call(0, "x", "lookup", '{"a'), chunk({}, finish)])
    assert pieces == []
    assert decoder.finish == finish


def test_a_finish_in_the_same_chunk_as_the_last_piece_loses_nothing() -> None:
    pieces, _ = decode([chunk({"content": "end"}, "stop")])
    assert pieces == [TextPiece("end")]


def test_pieces_after_the_finish_are_ignored_but_usage_is_read() -> None:
    pieces, decoder = decode([chunk({"content": "a"}, "stop"), chunk({"content": "late"}, "length"), {"usage": USAGE}])
    assert pieces == [TextPiece("a")]
    assert decoder.finish == "stop"
    assert decoder.usage is not None


def test_tool_calls_without_index_are_told_apart_by_their_ids() -> None:
    chunks = [
        call(None, "a", "one", "{"),
        call(None, arguments="}"),
        call(None, "b", "two", "[]"),
        chunk({}, "tool_calls"),
    ]
    pieces, _ = decode(chunks)
    assert pieces == [ToolCallPiece(0, "a", "one", "{}"), ToolCallPiece(1, "b", "two", "[]")]


def test_an_id_and_a_name_that_are_repeated_are_not_doubled() -> None:
    pieces, _ = decode([call(0, "a", "one", "{"), call(0, "a", "one", "}"), chunk({}, "tool_calls")])
    assert pieces == [ToolCallPiece(0, "a", "one", "{}")]


def test_a_refusal_is_told_apart_from_an_answer() -> None:
    pieces, decoder = decode([chunk({"refusal": "I can"}), chunk({"refusal": "not."}), chunk({}, "stop")])
    assert pieces == []
    assert (decoder.finish, decoder.finish_raw, decoder.refusal) == ("refused", "stop", "I cannot.")


def test_reasoning_by_its_other_name_is_read_once() -> None:
    pieces, _ = decode([chunk({"reasoning": "a"}), chunk({"reasoning": "b", "reasoning_content": "b"})])
    assert pieces == [ReasoningPiece("a"), ReasoningPiece("b")]


@pytest.mark.parametrize(
    "harmless",
    [
        {"choices": [], "prompt_filter_results": []},
        {"choices": None},
        {},
        {"choices": [{"index": 0, "finish_reason": None, "content_filter_offsets": {}}]},
        {"choices": [{"index": 0, "delta": None}]},
        {"choices": [{"index": 1, "delta": {"content": "the other choice"}}]},
        {"error": None},
        {"usage": "many"},
        {"usage": {"prompt_tokens": -1, "completion_tokens": 2}},
        {"usage": {"prompt_tokens": True, "completion_tokens": 2}},
        {"model": 7, "system_fingerprint": []},
    ],
)
def test_what_says_nothing_is_passed_over(harmless: Chunk) -> None:
    pieces, decoder = decode([harmless])
    assert (pieces, decoder.usage, decoder.finish) == ([], None, None)


@pytest.mark.parametrize(
    "broken",
    [
        {"choices": {}},
        {"choices": ["a"]},
        chunk([]),
        chunk("text"),
        chunk({"content": 7}),
        chunk({"content": ["a"]}),
        chunk({"reasoning_content": {}}),
        chunk({"tool_calls": {"index": 0}}),
        chunk({"tool_calls": ["a"]}),
        chunk({"tool_calls": [{"index": 0, "function": "f"}]}),
        chunk({"tool_calls": [{"index": -1, "function": {}}]}),
        chunk({"tool_calls": [{"index": "0", "function": {}}]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": {}}}]}),
        chunk({}, 7),
        chunk({}, ""),
        chunk({}, "tool_calls"),
        chunk({"tool_calls": [{"index": 0, "id": "x", "function": {"arguments": "{}"}}]}, "tool_calls"),
    ],
)
def test_a_chunk_of_the_wrong_shape_is_malformed(broken: Chunk) -> None:
    with pytest.raises(ModelFault) as caught:
        decode([broken])
    assert (caught.value.code, caught.value.retryable) == ("malformed", True)


@pytest.mark.parametrize(
    "data", [b"{", b'{"choices":[{"delta":{"content":"\xff"}}]}', b"[]", b"7", b"NaN", b'{"a":"\\ud800"}']
)
def test_data_that_is_no_chunk_is_malformed_and_what_came_before_is_given(data: bytes) -> None:
    good = b"data: " + orjson.dumps(chunk({"content": "before"})) + b"\n\n"
    stream = Reading(ChatDecoder()).feed(good + b"data: " + data + b"\n\n")
    assert next(stream) == TextPiece("before")
    with pytest.raises(ModelFault) as caught:
        next(stream)
    assert caught.value.code == "malformed"


@pytest.mark.parametrize(
    ("frame", "code", "retryable"),
    [
        (b'data: {"error":{"message":"secret","code":"server_error"}}', "provider_busy", True),
        (b'data: {"error":"secret"}', "provider_busy", True),
        (b'data: {"error":{"message":"secret","code":502}}', "provider_busy", True),
        (b'data: {"error":{"message":"secret","code":429}}', "provider_busy", True),
        (b'data: {"error":{"message":"secret","code":403}}', "provider_refused", False),
        (b'data: {"error":{"message":"secret","type":"insufficient_quota"}}', "provider_refused", False),
        (b'data: {"error":{"message":"secret","code":"content_filter"}}', "content_filter", False),
        (b'event: error\ndata: {"message":"secret"}', "provider_busy", True),
    ],
)
def test_an_error_frame_is_a_fault_in_our_words(frame: bytes, code: str, retryable: bool) -> None:
    with pytest.raises(ModelFault) as caught:
        list(Reading(ChatDecoder()).feed(frame + b"\n\n"))
    assert (caught.value.code, caught.value.retryable) == (code, retryable)
    assert "secret" not in str(caught.value)
