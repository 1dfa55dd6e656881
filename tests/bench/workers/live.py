"""Many runs whose models talk at the same time, each with one SSE reader: how long a piece takes from model to reader.

The model server speaks at a steady pace, so each piece is due at a known moment: that of the first piece, which its
journal tells, and so many beats later. A piece that is written late counts from when it was due, so the model server's
own lateness is in the figure too. Everything runs on this machine, readers included.
"""

import asyncio
import gc
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise

import httpx
import uvloop

from tests.bench.figures import Claim, latency_line, percentile
from tests.bench.spending import Spent, spent
from tests.bench.streams import Reader, follow
from tests.bench.workers.ground import PACE, Ground, asked, digest_of, word

SETTLE_S = 5.0  # after the last submission, until the steady state counts
SUBMITTERS = 10
WIDTH = len(word(0)) + 1


@dataclass(slots=True)
class Told:
    """What one reader was told of its run."""

    pieces: list[tuple[float, float, int]] = field(default_factory=list)  # when it came, when it was stored, which one
    events: int = 0
    gaps: int = 0
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Live:
    """What was found."""

    late: list[float]  # due to delivered, in the steady state
    stored: list[float]  # due to stored
    events: int
    missing: int
    cpu: dict[str, float]


def judge(reader: Reader) -> Told:
    """Go through what a reader kept."""
    told, seqs = Told(), [0]
    for at, seq, type_, raw in reader.frames():
        seqs.append(seq)
        told.ended = told.ended or type_ == "result"
        if type_ == "token":
            told.events += 1
            event = json.loads(raw)
            stored = datetime.fromisoformat(event["at"]).timestamp()
            told.pieces += [(at, stored, int(each[1:])) for each in event["data"]["text"].split()]
    told.gaps = sum(after != before + 1 for before, after in pairwise(seqs))
    return told


async def _submit(at: Ground, names: Sequence[str], words: int) -> list[str]:
    headers = {"Authorization": f"Bearer {at.key}"}
    async with httpx.AsyncClient(base_url=at.address, headers=headers, trust_env=False, timeout=30) as http:

        async def one(name: str) -> str:
            answer = await http.post("/v1/runs", json=asked(name, words))
            return str(answer.raise_for_status().json()["id"])

        ids: list[str] = []
        for first in range(0, len(names), SUBMITTERS):
            ids += await asyncio.gather(*map(one, names[first : first + SUBMITTERS]))
        return ids


async def _spent_at(at: Ground, moment: float) -> Spent:
    await asyncio.sleep(max(0.0, moment - time.time()))
    return spent(at.stage.running.processes)


async def _measure(at: Ground, runs: int, seconds: int) -> Live:
    words, names = seconds * PACE, [f"live {number}" for number in range(runs)]
    first = time.time()
    ids = await _submit(at, names, words)
    readers = [await follow(at.address, at.key, run_id) for run_id in ids]
    begin, end = time.time() + SETTLE_S, first + seconds - 1.0
    assert begin < end, "the runs took so long to submit that they never all went on at the same time"
    before = await _spent_at(at, begin)
    after = await _spent_at(at, end)
    await asyncio.wait([ended for _, ended in readers], timeout=seconds + 60)
    journal, clock = at.journal(), time.time() - time.monotonic()
    late: list[float] = []
    stored: list[float] = []
    missing = events = 0
    for name, (reader, _) in zip(names, readers, strict=True):
        told = judge(reader)
        spoke = clock + journal[digest_of(name, words)]["first_piece_mono"]
        steady = [piece for piece in told.pieces if begin <= piece[0] <= end]
        late += [came - spoke - number / PACE for came, _, number in steady]
        stored += [kept - spoke - number / PACE for _, kept, number in steady]
        missing += abs(words - len(told.pieces)) + told.gaps + (not told.ended)
        missing += [number for _, _, number in told.pieces] != [*range(words)]
        events += told.events
    return Live(late, stored, events, missing, after.since(before))


def live(at: Ground, runs: int, seconds: int) -> list[Claim]:
    """Measure and tell."""
    gc.disable()  # our own pauses would be taken for the service's
    try:
        found = uvloop.run(_measure(at, runs, seconds))
    finally:
        gc.enable()
    pieces = runs * seconds * PACE
    print(
        f"{runs} live runs x {PACE} pieces/s for {seconds} s, {runs} SSE readers, the model server on the same machine"
    )
    print(latency_line("    due at the model to delivered", found.late))
    print(latency_line("    due at the model to stored", found.stored))
    print(f"    {pieces:,} pieces in {found.events:,} events; {found.missing} missing, doubled or out of order")
    print(f"    processor: {', '.join(f'{name} {share:.0%}' for name, share in found.cpu.items())}", flush=True)
    return [
        Claim(f"{runs} live runs: pieces missing, doubled or out of order", found.missing, at_most=0),
        Claim(f"{runs} live runs: p99 from model to reader, ms", percentile(found.late, 0.99) * 1000, at_most=100),
    ]
