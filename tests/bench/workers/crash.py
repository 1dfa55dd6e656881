"""How soon runs go on elsewhere: after their worker was killed, and after it was told to stop."""

import signal
from datetime import datetime
from itertools import pairwise

from tests.bench.figures import Claim, latency_line
from tests.bench.workers.cancel import until_all
from tests.bench.workers.ground import Ground, asked
from tests.e2e.stage import Event

RUNS = 50
WORDS = 6_000
AGAIN_S = 60.0


def _gap(log: list[Event]) -> float | None:
    """How long the run was silent before its second owner said so; None if it has had one owner only."""
    for before, event in pairwise(log):
        if event["type"] == "started" and event["data"].get("resumed_from"):
            return (datetime.fromisoformat(event["at"]) - datetime.fromisoformat(before["at"])).total_seconds()
    return None


def _hurt(at: Ground, number: signal.Signals, prefix: str) -> list[float]:
    """Hurt the worker that carries most; seconds of silence of each of its runs."""
    stage = at.stage
    names = [f"{prefix} {each}" for each in range(RUNS)]
    with stage.client("user") as client:
        ids = [client.post("/v1/runs", json=asked(name, WORDS)).raise_for_status().json()["id"] for name in names]
        until_all(at, names, "first_piece_at")
        carried: dict[str, list[str]] = {}
        for run_id in ids:
            carried.setdefault(stage.carrier(stage.events(run_id)), []).append(run_id)
        worker = max(carried, key=lambda name: len(carried[name]))
        hurt = stage.hurt(worker, number)
        gaps = []
        for run_id in carried[worker]:
            log = stage.until(
                run_id,
                lambda event: event["type"] == "started" and bool(event["data"].get("resumed_from")),
                AGAIN_S,
            )
            gap = _gap(log)
            assert gap is not None
            gaps.append(gap)
        stage.until_replaced(worker, hurt)
        for run_id in ids:
            client.post(f"/v1/runs/{run_id}/cancel", json={"reason": "measured"})
        for run_id in ids:
            stage.until_ended(run_id)
    return gaps


def crash(at: Ground, *, quick: bool) -> list[Claim]:
    """Measure and tell."""
    killed: list[float] = []
    told: list[float] = []
    for number in range(1 if quick else 3):
        killed += _hurt(at, signal.SIGKILL, f"killed {number}")
        told += _hurt(at, signal.SIGTERM, f"told {number}")
    print(latency_line("worker killed -9: silence until another goes on", killed))
    print(latency_line("worker told to stop: silence until another goes on", told), flush=True)
    return [
        Claim("worker killed -9: longest silence of a run, s", max(killed), at_most=10),
        Claim("worker told to stop: longest silence of a run, s", max(told), at_most=5),
    ]
