"""How soon a cancel closes the model's connection: from the request's place in the log to what the model server saw."""

import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import httpx

from tests.bench.figures import Claim, latency_line, percentile
from tests.bench.workers.ground import Ground, asked, digest_of

WORDS = 6_000  # far more than is ever said
START_S = 30.0


def _begin(client: httpx.Client, names: Sequence[str]) -> dict[str, str]:
    """Runs whose models talk: their ids by name."""
    return {
        name: str(client.post("/v1/runs", json=asked(name, WORDS)).raise_for_status().json()["id"]) for name in names
    }


def until_all(at: Ground, names: Sequence[str], field: str) -> dict[str, dict[str, Any]]:
    """The journal, as soon as it tells this of all of them."""
    deadline = time.monotonic() + START_S
    while True:
        journal = at.journal()
        if all((journal.get(digest_of(name, WORDS)) or {}).get(field) for name in names):
            return journal
        assert time.monotonic() < deadline, f"not all runs came as far as {field}"
        time.sleep(0.05)


def _cancel(client: httpx.Client, run_id: str) -> float:
    """Cancel; how long the answer took."""
    began = time.perf_counter()
    answer = client.post(f"/v1/runs/{run_id}/cancel", json={"reason": "measured"})
    assert answer.status_code in (200, 202), answer.text
    return time.perf_counter() - began


def _stored(at: Ground, run_id: str) -> float:
    log = at.stage.until_ended(run_id)
    requested = next(event for event in log if event["type"] == "cancel_requested")
    return datetime.fromisoformat(requested["at"]).timestamp()


def cancels(at: Ground, *, beside: int, rounds: int, each: int, prefix: str) -> list[float]:
    """Cancel runs one after the other while so many others go on; seconds from stored to closed."""
    taken: list[float] = []
    with at.stage.client("user") as client:
        others = _begin(client, [f"{prefix} beside {number}" for number in range(beside)])
        until_all(at, [*others], "first_piece_at")
        for number in range(rounds):
            mine = _begin(client, [f"{prefix} {number} {place}" for place in range(each)])
            until_all(at, [*mine], "first_piece_at")
            for run_id in mine.values():
                _cancel(client, run_id)
            journal = until_all(at, [*mine], "closed_at")
            for name, run_id in mine.items():
                entry = journal[digest_of(name, WORDS)]
                assert entry["ended"] == "client_closed", entry
                taken.append(datetime.fromisoformat(entry["closed_at"]).timestamp() - _stored(at, run_id))
        for run_id in others.values():
            _cancel(client, run_id)
        until_all(at, [*others], "closed_at")
        for run_id in others.values():
            at.stage.until_ended(run_id)
    return taken


def cancel(at: Ground, *, quick: bool) -> list[Claim]:
    """Measure and tell."""
    rounds = 3 if quick else 20
    claims = []
    for beside in (0, 100):
        taken = cancels(at, beside=beside, rounds=rounds, each=10, prefix=f"cancel {beside}")
        name = f"cancel stored to model connection closed, {beside} other live runs"
        print(latency_line(name, taken), flush=True)
        claims.append(Claim(f"{name}: p99, ms", percentile(taken, 0.99) * 1000, at_most=150))
    return claims
