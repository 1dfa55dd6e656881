"""What a reader was told of paced runs: every piece once and in order, and how long after it was due."""

import json
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any, Final

from tests.bench.figures import percentile

SHARES: Final = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99, "max_ms": 1.0}

Kept = Sequence[tuple[float, bytes]]


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Percentiles in milliseconds."""
    return {name: percentile(seconds, share) * 1000 for name, share in SHARES.items()} if seconds else {}


def judged(
    readers: Sequence[Kept], *, began: float, beat: float, pieces: int, piece_bytes: int, begin: float, end: float
) -> dict[str, Any]:
    """One reader of each run, in the order of the runs. Only what was due between `begin` and `end` has its latency
    told; whether anything is missing, doubled or out of order is told of everything."""
    stored: list[float] = []
    due: list[float] = []
    events = wrong = 0
    for place, kept in enumerate(readers):
        said: list[int] = []
        seqs = [0]
        for at, raw in kept:
            event = json.loads(raw)
            seqs.append(event["seq"])
            if event["type"] != "token":
                continue
            events += 1
            text = event["data"]["text"]
            numbers = [int(text[first : first + piece_bytes].split(None, 1)[0][:7])
                       for first in range(0, len(text), piece_bytes)]  # fmt: skip
            said += numbers
            moments = [began + (number * len(readers) + place) * beat for number in numbers]
            due += [at - moment for moment in moments if begin <= moment <= end]
            if begin <= moments[0] <= end:
                stored.append(at - datetime.fromisoformat(event["at"]).timestamp())
        wrong += said != [*range(pieces)]
        wrong += sum(after != before + 1 for before, after in pairwise(seqs))
    return {"events": events, "wrong": wrong, "stored": spread(stored), "due": spread(due), "measured": len(due)}


def late(readers: Sequence[Kept], *, pieces: int, begin: float, end: float) -> dict[str, Any]:
    """The same of somebody else's events, which tell themselves when they were due."""
    told = [[(at, json.loads(raw)) for at, raw in kept] for kept in readers]
    due = [at - event["due"] for kept in told for at, event in kept if begin <= event["due"] <= end]
    wrong = sum([event["seq"] for _, event in kept] != [*range(1, pieces + 2)] for kept in told)
    return {"wrong": wrong, "due": spread(due), "measured": len(due)}
