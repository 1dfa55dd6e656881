"""How long after a POST the worker's first event is on the wire, on an idle system: one run at a time."""

import time
from pathlib import Path

import httpx

from tests.bench.figures import latency_line
from tests.e2e.stage import Stage

RUNS = 200
WARM_UP = 10


def once(client: httpx.Client) -> float:
    """Submit a drill with the stream as the answer; the time until `started` has arrived."""
    order = {"workflow": "drill", "input": {"pieces": 0, "tool_calls": 0, "findings": 0}}
    began = time.perf_counter()
    first: float | None = None
    with client.stream("POST", "/v1/runs", json=order, headers={"Accept": "text/event-stream"}) as answer:
        answer.raise_for_status()
        for line in answer.iter_lines():
            if line == "event: started":
                first = time.perf_counter() - began
    assert first is not None
    return first


def main(folder: Path) -> None:
    stage = Stage(folder / "first").start()
    try:
        with stage.client("operator") as client:
            for _ in range(WARM_UP):
                once(client)
            print(latency_line("POST to first worker event, idle system", [once(client) for _ in range(RUNS)]))
    finally:
        stage.stop()
