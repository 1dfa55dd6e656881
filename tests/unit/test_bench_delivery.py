"""The measurement of delivery: what was lost is found, and both latencies are what was put in."""

import asyncio
import time

import pytest

from eventstore.domain.record import rfc3339
from tests.bench.delivery import PIECE_BYTES, _judge
from tests.bench.streams import Reader

PERIOD_S, PHASE, PIECES = 0.02, 0.25, 10


def reader_of(seqs: list[int], late_s: float, stall_s: float = 0.0) -> Reader:
    """A reader who was told of these events, one piece each, stored on their beat and delivered so much later."""
    beats = (time.monotonic() - PHASE * PERIOD_S) // PERIOD_S
    began = time.time() - time.monotonic() + (beats + PHASE) * PERIOD_S
    reader = Reader(b"", asyncio.Future())
    for seq in seqs:
        stored = began + (seq - 1) * PERIOD_S + (stall_s if seq > 5 else 0.0) + 0.0005
        head = f'{{"at":"{rfc3339(int(stored * 1_000_000))}","data":{{"text":"{"x" * PIECE_BYTES}"}}}}'
        frame = f"id: {seq}\nevent: token\ndata: {head}\n\n"
        for part in (frame[:20], frame[20:]):  # wherever the network cuts it
            reader.came.append((stored + late_s, part.encode()))
    return reader


async def test_both_latencies_are_told() -> None:
    told = _judge(reader_of(list(range(1, PIECES + 1)), 0.003, stall_s=0.1), PIECES, PERIOD_S, PHASE)
    assert (told.frames, told.lost) == (PIECES, 0)
    assert [took for _, took in told.stored] == pytest.approx([0.003] * PIECES, abs=0.0001)
    assert [took for _, took in told.due] == pytest.approx([0.0035] * 5 + [0.1035] * 5, abs=0.0002)


@pytest.mark.parametrize("seqs", [[1, 2, 4, 5, 6, 7, 8, 9, 10], [1, 2, 3], [1, 2, 2, 3, 4, 5, 6, 7, 8, 9, 10], []])
async def test_what_is_missing_or_doubled_counts_as_lost(seqs: list[int]) -> None:
    assert _judge(reader_of(seqs, 0.003), PIECES, PERIOD_S, PHASE).lost > 0
