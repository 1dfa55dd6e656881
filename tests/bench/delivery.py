"""How long a stored event takes to its reader: many runs at a steady pace, one SSE reader each, all on this machine.

The load is open: each piece is due at its own moment, whatever the service does, and the runs' beats are spread evenly.
Two latencies are told. Stored to delivered begins when the database gives the event its time, which is before its
commit. Due to delivered begins when the piece should have been spoken and counts every piece, so a stall that delays
the writer itself is not left out. Both end when the reader's socket has the frame. All clocks are this machine's.
"""

import asyncio
import gc
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Final

import httpx
import uvloop

from tests.bench.figures import latency_line
from tests.bench.spending import Spent, spent
from tests.bench.streams import Reader, follow
from tests.e2e.stage import Stage

SECONDS: Final = 15
SETTLE_S: Final = 3.0  # what comes sooner after the last submission does not count, nor what comes after the first end
SHAPES: Final = ((20, 50), (100, 50), (200, 50), (300, 50))  # runs, pieces per second each
PIECE_BYTES: Final = 24
SUBMITTERS: Final = 10  # submissions at the same time


@dataclass(frozen=True, slots=True)
class Delivery:
    """What one measurement found."""

    runs: int
    rate: int
    stored: list[float]
    due: list[float]
    frames: int
    lost: int
    cpu: dict[str, float]  # share of one processor, by process


@dataclass(slots=True)
class _Told:
    """What one reader was told of its run."""

    stored: list[tuple[float, float]]  # when it came, how long it took
    due: list[tuple[float, float]]
    frames: int
    lost: int


def _judge(reader: Reader, pieces: int, period_s: float, phase: float) -> _Told:
    told, seqs, said, began = _Told([], [], 0, 0), [0], 0, 0.0
    wall = time.time() - time.monotonic()
    for at, seq, type_, raw in reader.frames():
        seqs.append(seq)
        if type_ != "token":
            continue
        event = json.loads(raw)
        recorded = datetime.fromisoformat(event["at"]).timestamp()
        told.frames += 1
        told.stored.append((at, at - recorded))
        if not said:  # the beat before its storing is that of the first piece
            began = recorded - (recorded - wall - phase * period_s) % period_s
        for number in range(said, said := said + len(event["data"]["text"]) // PIECE_BYTES):
            told.due.append((at, at - began - number * period_s))
    told.lost = abs(pieces - said) + sum(after != before + 1 for before, after in pairwise(seqs))
    return told


async def _submit(address: str, key: str, runs: int, rate: int) -> list[str]:
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=address, headers=headers, trust_env=False, timeout=30) as http:

        async def one(number: int) -> str:
            given = {"pieces": rate * SECONDS, "rate_per_s": rate, "text_bytes": PIECE_BYTES, "phase": number / runs}
            order = {"workflow": "drill", "input": {**given, "tool_calls": 0, "findings": 0}}
            answer = await http.post("/v1/runs", json=order)
            return str(answer.raise_for_status().json()["id"])

        ids: list[str] = []
        for first in range(0, runs, SUBMITTERS):
            ids += await asyncio.gather(*map(one, range(first, min(runs, first + SUBMITTERS))))
        return ids


async def _measure(stage: Stage, key: str, runs: int, rate: int) -> Delivery:
    first = time.time()
    ids = await _submit(stage.running.address, key, runs, rate)
    begin, end = time.time() + SETTLE_S, first + SECONDS - 0.5
    assert begin < end, "the runs took so long to submit that they never all went on at the same time"
    readers = [await follow(stage.running.address, key, run_id) for run_id in ids]
    before = await _at(begin, stage)
    after = await _at(end, stage)
    await asyncio.wait([ended for _, ended in readers], timeout=SECONDS)
    told = [_judge(reader, rate * SECONDS, 1 / rate, number / runs) for number, (reader, _) in enumerate(readers)]
    return Delivery(
        runs=runs,
        rate=rate,
        stored=[took for one in told for at, took in one.stored if begin <= at <= end],
        due=[took for one in told for at, took in one.due if begin <= at <= end],
        frames=sum(one.frames for one in told),
        lost=sum(one.lost for one in told),
        cpu=after.since(before),
    )


async def _at(moment: float, stage: Stage) -> Spent:
    await asyncio.sleep(max(0.0, moment - time.time()))
    return spent(stage.running.processes)


def measure(stage: Stage, runs: int, rate: int) -> Delivery:
    """One measurement on a stage that is up."""
    with stage.client("operator") as client:
        key = client.headers["Authorization"].removeprefix("Bearer ")
    gc.disable()  # our own pauses would be taken for the service's
    try:
        return uvloop.run(_measure(stage, key, runs, rate))
    finally:
        gc.enable()


def stage_for(folder: Path, shapes: Sequence[tuple[int, int]]) -> Stage:
    """A stage whose one worker may carry all runs of a shape."""
    return Stage(folder, RUNWIRE_RUNS_MAX=str(max(200, *(runs for runs, _ in shapes))))


def _tell(found: Delivery) -> None:
    pieces = found.runs * found.rate * SECONDS
    shape = f"{found.runs} runs × {found.rate} pieces/s, {found.runs} SSE readers"
    print(latency_line(f"stored to delivered, {shape}", found.stored))
    print(latency_line("    due to delivered", found.due))
    print(f"    {found.frames:,} frames for {pieces:,} pieces (pieces that waited together are one event)")
    print(f"    {found.lost} lost; processor: {', '.join(f'{name} {share:.0%}' for name, share in found.cpu.items())}")


def main(folder: Path) -> None:
    stage = stage_for(folder / "delivery", SHAPES).start()
    try:
        for runs, rate in SHAPES:
            _tell(measure(stage, runs, rate))
    finally:
        stage.stop()
