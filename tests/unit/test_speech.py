"""Draft text on its way: a long speech is remembered by where its pieces are, not piece by piece."""

from itertools import pairwise
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from eventstore import log
from eventstore.recorder import RunWriter
from tests.histories import RUN
from tests.writing import NOW_US
from worker.speech import Attempt


def writer_of(run_id: UUID = RUN) -> RunWriter:
    return RunWriter(run_id, 1, lambda: NOW_US, lambda: None)


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
