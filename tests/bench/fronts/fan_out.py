"""What a delivery costs: one run, many SSE readers, and the processor time of the API process by the event delivered.

The readers count and keep nothing. They are processes of their own, so that the API never waits for them; what they
spend is not the API's. A reader has failed when it did not get each event of the run exactly once.
"""

import asyncio
import multiprocessing
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import urlsplit

import uvloop

from tests.bench.spending import spent
from tests.e2e.stage import Stage

SHAPES: Final = ((200, 50), (1_000, 10))  # readers, pieces per second
SECONDS: Final = 10
COMING_PER_S: Final = 60  # readers that come while the run sleeps
SETTLED_EVENTS: Final = 20  # of each reader, before anything is measured
PIECE_BYTES: Final = 24
NAME: Final = b"\nevent: "
END: Final = b"0\r\n\r\n"  # the last chunk; no other ends so


@dataclass(frozen=True, slots=True)
class FanOut:
    """What one measurement found."""

    readers: int
    rate: int
    deliveries: int
    cpu_us: float  # of the API process by delivery, everything it does included
    idle_kb: float  # what one more reader adds to the API process while nothing is said
    wrong: int  # readers that did not get each event once


class Counter(asyncio.Protocol):
    """One reader: it counts the events that come and looks at nothing else."""

    def __init__(self, ask: bytes, left: "list[int]", ended: asyncio.Event) -> None:
        self.events = 0
        self.bytes = 0
        self._ask = ask
        self._left = left
        self._all_ended = ended
        self._cut = b""
        self._ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.WriteTransport, transport).write(self._ask)

    def data_received(self, data: bytes) -> None:
        self.bytes += len(data)
        data = self._cut + data  # a name may come in two pieces
        self.events += data.count(NAME)
        self._cut = data[-len(NAME) + 1 :]
        if data.endswith(END):
            self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            self._left[0] -= 1
            if not self._left[0]:
                self._all_ended.set()


async def _read(address: str, ask: bytes, readers: int, line: Any) -> None:
    parts = urlsplit(address)
    loop, ended, left = asyncio.get_running_loop(), asyncio.Event(), [readers]
    told: list[Counter] = []
    for _ in range(readers):
        _, reader = await loop.create_connection(
            lambda: Counter(ask, left, ended), str(parts.hostname), int(parts.port or 80)
        )
        told.append(reader)
    async with asyncio.timeout(60):
        while not all(reader.bytes for reader in told):  # noqa: ASYNC110 - each has its own first byte
            await asyncio.sleep(0.02)
    line.send(0)
    asked = await loop.run_in_executor(None, line.recv)
    while asked == "count":
        line.send(sum(reader.events for reader in told))
        asked = await loop.run_in_executor(None, line.recv)
    async with asyncio.timeout(SECONDS * 10):
        await ended.wait()
    line.send([reader.events for reader in told])


def _readers(address: str, ask: bytes, readers: int, line: Any) -> None:
    uvloop.run(_read(address, ask, readers, line))


def _resident_kb(pid: int) -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) if found else 0


def _order(readers: int, rate: int) -> dict[str, Any]:
    given = {"pieces": rate * SECONDS, "rate_per_s": rate, "text_bytes": PIECE_BYTES, "phase": 0.0}
    return {**given, "tool_calls": 0, "findings": 0, "sleep_s": 5 + readers / COMING_PER_S}


def _ask(stage: Stage, run_id: str) -> bytes:
    with stage.client("operator") as client:
        key = client.headers["Authorization"]
    host = urlsplit(stage.running.address).netloc
    return (
        f"GET /v1/runs/{run_id}/events HTTP/1.1\r\nHost: {host}\r\nAuthorization: {key}\r\n"
        "Accept: text/event-stream\r\n\r\n"
    ).encode()


def measure(stage: Stage, readers: int, rate: int) -> FanOut:
    """One measurement on a stage that is up: readers come, the run speaks, everything is counted."""
    api = {"api": stage.running.processes["api"]}
    empty_kb = _resident_kb(api["api"])
    run_id = stage.submit("drill", _order(readers, rate))
    here, there = multiprocessing.Pipe()
    asked = (stage.running.address, _ask(stage, run_id), readers, there)
    reading = multiprocessing.get_context("spawn").Process(target=_readers, args=asked, daemon=True)
    reading.start()
    here.recv()
    full_kb = _resident_kb(api["api"])
    while _counted(here) < readers * SETTLED_EVENTS:
        time.sleep(0.05)
    before, began = spent(api), _counted(here)
    time.sleep(SECONDS / 2)
    after, ended = spent(api), _counted(here)
    here.send("end")
    events: Sequence[int] = here.recv()
    reading.join()
    cpu_s = after.seconds["api"] - before.seconds["api"]
    stored = stage.until_ended(run_id)[-1]["seq"]
    return FanOut(
        readers=readers,
        rate=rate,
        deliveries=ended - began,
        cpu_us=cpu_s / max(1, ended - began) * 1e6,
        idle_kb=(full_kb - empty_kb) / readers,
        wrong=sum(count != stored for count in events),
    )


def _counted(line: "Connection[Any, Any]") -> int:
    line.send("count")
    return int(line.recv())


def run(folder: Path, shapes: Sequence[tuple[int, int]] = SHAPES) -> list[FanOut]:
    """All measurements on a stage of their own."""
    stage = Stage(folder / "fan_out").start()
    try:
        return [measure(stage, readers, rate) for readers, rate in shapes]
    finally:
        stage.stop()


def tell(found: FanOut) -> str:
    """One line of figures."""
    return (
        f"fan-out, 1 run × {found.readers:,} SSE readers at {found.rate} pieces/s: {found.cpu_us:.1f} µs of the API's "
        f"processor time by delivery over {found.deliveries:,}; {found.idle_kb:.0f} KB by reader; {found.wrong} wrong"
    )


def main(folder: Path) -> None:
    for found in run(folder):
        print(tell(found))
