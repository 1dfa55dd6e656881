"""Draft text on its way: a long speech is remembered by where its pieces are, not piece by piece."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from itertools import pairwise
from uuid import UUID

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore import log
from eventstore.run_writer import RunWriter
from tests.histories import RUN
from tests.writing import NOW_US
from worker.holding import Guard, Redaction
from worker.llm.model import ModelEnd, ModelFault, ModelRequest, Piece, ReasoningPiece, TextPiece
from worker.speech import Attempt, Speech, listen
from worker.stops import WorkflowFailed


def writer_of(run_id: UUID = RUN) -> RunWriter:
    return RunWriter(run_id, 1, lambda: NOW_US, lambda _: None)


def store(writer: RunWriter, first_seq: int) -> int:
    """The log takes what waits; the seq after it."""
    batch = writer.take(1_000)
    last_seq = first_seq + len(batch.events) - 1
    if batch.events:
        writer.settle(batch, log.Answer(writer.run_id, "ok", first_seq, last_seq, NOW_US, "running", False))
    return last_seq + 1


@given(st.lists(st.integers(0, 2), max_size=40))
async def test_an_attempt_knows_where_its_pieces_are(gaps: list[int]) -> None:
    writer, seq, expected = writer_of(), 10, set[int]()
    attempt = Attempt(writer, "draft", "findings", "text", 1)
    for gap in gaps:
        seq += gap  # others' events in between
        await attempt.say("word ")
        expected.add(seq)
        seq = store(writer, seq)
    said = await attempt.said()
    assert {seq for first, last in said for seq in range(first, last + 1)} == expected
    assert all(before[1] + 1 < after[0] for before, after in pairwise(said))
    assert await attempt.said() == said


async def test_a_long_speech_keeps_no_pieces_that_are_stored() -> None:
    writer, seq = writer_of(), 1
    attempt = Attempt(writer, "draft", "findings", "text", 1)
    for number in range(500):
        await attempt.say(f"{number} ")
        seq = store(writer, seq)
        assert len(attempt._waiting) == 1
    assert await attempt.said() == [(1, 500)]


class Said:
    """A model that says these pieces, and ends this way."""

    def __init__(self, *pieces: Piece | ModelFault, finish: str = "stop") -> None:
        self.pieces = pieces
        self.finish = finish
        self.closed = False

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Piece | ModelEnd, None]:
        try:
            for piece in self.pieces:
                if isinstance(piece, ModelFault):
                    raise piece
                yield piece
            yield ModelEnd(self.finish, self.finish, None, None, None, None, None, 1.0, len(self.pieces))
        finally:
            self.closed = True

    async def aclose(self) -> None:
        return


ASKED = ModelRequest("m", ({"role": "user", "content": "x"},))
NUMBER = Guard("sentence", (Redaction(r"\d{3}-\d{4}", "[number]"),), span_max=10)
CUT = ModelFault("connection", "cut", retryable=True)


def stored(writer: RunWriter) -> dict[str, str]:
    """What the log takes, by type."""
    told: dict[str, str] = {}
    for event in writer.take(1_000).events:
        told[event.type] = told.get(event.type, "") + orjson.loads(event.body)["text"]
    return told


def attempt_of(writer: RunWriter) -> Attempt:
    return Attempt(writer, "draft", "findings", "text", 1)


async def heard(speech: Speech) -> str:
    async with aclosing(speech.texts()) as texts:
        return "".join([text async for text in texts])


async def test_the_reader_of_a_speech_gets_what_the_log_gets() -> None:
    writer = writer_of()
    attempt = attempt_of(writer)
    model = Said(
        ReasoningPiece("Ask 555-"), ReasoningPiece("1234."), TextPiece("Call 55"), TextPiece("5-1234. \x00Now")
    )
    speech = Speech(model, ASKED, attempt, NUMBER)
    got = await heard(speech)
    assert got == attempt.text == "Call [number]. \ufffdNow"
    assert stored(writer) == {"token": got, "reasoning": "Ask [number]."}
    assert speech.end is not None
    assert speech.end.finish == "stop"


@pytest.mark.parametrize(
    "model",
    [
        Said(TextPiece("Call. My number is 555-12"), CUT),
        Said(TextPiece("Call. My number is 555-12"), finish="length"),
        Said(ReasoningPiece("555-12"), TextPiece("Call. My number is 555-12"), finish="content_filter"),
    ],
)
async def test_what_is_held_when_an_answer_ends_otherwise_than_well_is_never_stored(model: Said) -> None:
    writer = writer_of()
    attempt = attempt_of(writer)
    try:
        await listen(model, ASKED, attempt, NUMBER)
    except ModelFault as fault:
        assert fault is CUT  # noqa: PT017 - only one of these ends in a fault
    assert attempt.text == "Call. "
    assert stored(writer)["token"] == "Call. "


async def test_a_speech_that_is_left_closes_the_model_and_drops_what_is_held() -> None:
    writer = writer_of()
    model = Said(TextPiece("One. Two. three 5"), TextPiece("55"))
    async with aclosing(Speech(model, ASKED, attempt_of(writer), NUMBER).texts()) as texts:
        assert await anext(texts) == "One. "
    assert model.closed
    assert stored(writer) == {"token": "One. "}


async def test_a_speech_that_holds_too_much_fails_and_stores_none_of_it() -> None:
    writer = writer_of()
    model = Said(*(TextPiece("and on ") for _ in range(1_000)))
    with pytest.raises(WorkflowFailed) as caught:
        await listen(model, ASKED, attempt_of(writer), Guard("sentence"))
    assert (caught.value.code, model.closed, stored(writer)) == ("limit_hold_chars_max", True, {})


async def test_without_a_guard_each_piece_goes_on_at_once() -> None:
    writer = writer_of()
    attempt = attempt_of(writer)
    async with aclosing(Speech(Said(TextPiece("a"), TextPiece("b")), ASKED, attempt).texts()) as texts:
        assert [text async for text in texts] == ["a", "b"]
    assert stored(writer) == {"token": "ab"}
