"""How long a stored event takes to its reader: many runs at a steady pace, one SSE reader each, all on this machine.

Measured from the moment the database gave the event its time, which is before its commit, to the moment the reader has
the frame. Both clocks are this machine's.
"""

import asyncio
import json
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from tests.bench.figures import latency_line
from tests.e2e.stage import Stage

SECONDS = 15
SETTLE_S = 3.0  # the first seconds, in which all runs start at once, do not count
SHAPES = ((20, 50), (100, 50), (200, 50))  # runs, pieces per second each


def _at(frame: bytes) -> float:
    start = frame.index(b'"at":"') + 6
    return datetime.fromisoformat(frame[start : frame.index(b'"', start)].decode()).timestamp()


async def _read(host: str, port: int, key: str, run_id: str, told: list[tuple[float, float]]) -> int:
    """Follow one run over a plain socket to its end; notes (received, latency) of every token."""
    reader, writer = await asyncio.open_connection(host, port)
    ask = f"GET /v1/runs/{run_id}/events HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\n"
    writer.write(f"{ask}Accept: text/event-stream\r\n\r\n".encode())
    tokens = 0
    try:
        while line := await reader.readline():
            if line.startswith(b"event: token"):
                received = time.time()
                tokens += 1
                told.append((received, received - _at(await reader.readline())))
            elif line.startswith((b"event: result", b"event: error", b"event: cancelled")):
                break
    finally:
        writer.close()
    return tokens


async def _measure(address: str, key: str, runs: int, rate: int) -> tuple[list[float], int]:
    parts = urlsplit(address)
    assert parts.hostname is not None
    assert parts.port is not None
    order = {
        "workflow": "drill",
        "input": {"pieces": rate * SECONDS, "rate_per_s": rate, "tool_calls": 0, "findings": 0},
    }
    told: list[tuple[float, float]] = []
    async with httpx.AsyncClient(base_url=address, headers={"Authorization": f"Bearer {key}"}, trust_env=False) as http:
        answers = [await http.post("/v1/runs", json=order) for _ in range(runs)]
    began = time.time()
    ids = [json.loads(answer.content)["id"] for answer in answers]
    tokens = await asyncio.gather(*(_read(parts.hostname, parts.port, key, run_id, told) for run_id in ids))
    steady = [latency for received, latency in told if began + SETTLE_S <= received <= began + SECONDS - 1]
    return steady, sum(tokens)


def _tell(runs: int, rate: int, latencies: Sequence[float], frames: int) -> None:
    print(latency_line(f"stored to delivered, {runs} runs × {rate} pieces/s, {runs} SSE readers", latencies))
    print(f"    {frames:,} frames for {runs * rate * SECONDS:,} pieces (pieces that waited together are one event)")


def main(folder: Path) -> None:
    stage = Stage(folder / "delivery").start()
    try:
        with stage.client("operator") as client:
            key = client.headers["Authorization"].removeprefix("Bearer ")
        for runs, rate in SHAPES:
            latencies, frames = asyncio.run(_measure(stage.running.address, key, runs, rate))
            _tell(runs, rate, latencies, frames)
    finally:
        stage.stop()
