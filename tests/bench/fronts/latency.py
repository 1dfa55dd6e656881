"""How long an event takes from when it was due to its reader's socket: many runs at a steady pace, one reader each.

The load is open: each piece is due at its own moment, whatever the service does. A stall that delays the writer itself
is therefore not left out. Stored to delivered begins when the database gives the event its time, before its commit.
"""

from typing import Any, Final

from tests.bench.figures import Claim
from tests.bench.fronts.ground import Ground, path
from tests.bench.fronts.writer import PIECE_BYTES
from tests.bench.log.report import Report

RATE: Final = 50
SHAPES: Final = {1: 6.0, 100: 10.0, 200: 10.0, 300: 10.0}  # runs: seconds
QUICK: Final = {1: 2.0, 100: 4.0}
SETTLE_S: Final = 1.0
KINDS: Final = {"stored": "stored to delivered", "due": "due to delivered"}
TO_REACH: Final = {100: (("p50_ms", 3.0), ("p99_ms", 7.0)), 200: (("p99_ms", 12.0),)}


async def latency(report: Report, ground: Ground, quick: bool) -> None:
    """Measure every shape and tell."""
    for runs, seconds in (QUICK if quick else SHAPES).items():
        found = await measured(ground, runs, seconds, settle_s=SETTLE_S / 2 if quick else SETTLE_S)
        shape = f"{runs} runs × {RATE} events/s"
        told = {name: value for name, value in found.items() if name not in KINDS}
        for kind, name in KINDS.items():
            spread = found[kind]
            report.add(f"{name}, {shape}, p50", spread["p50_ms"], "ms", **spread, **told, kind=kind, runs=runs)
            for share in ("p95_ms", "p99_ms", "max_ms"):
                report.add(f"    {share.removesuffix('_ms')}", spread[share], "ms")
        report.claim(Claim(f"{shape}: missing, doubled, out of order or changed", found["wrong"], at_most=0))
        for share, at_most in TO_REACH.get(runs, ()):
            name = f"{shape}: stored to delivered, {share.replace('_', ', ')}"
            report.claim(Claim(name, found["stored"][share], at_most=at_most))


async def measured(ground: Ground, runs: int, seconds: float, *, settle_s: float) -> dict[str, Any]:
    """One shape."""
    async with ground.writer() as writer, ground.crowd() as crowd:
        ids = await writer.order("open", runs=runs)
        await crowd.order("follow", address=ground.address, paths=[*map(path, ids)], key=ground.key, keep=True)
        cpu = ground.cpu_s()
        paced = await writer.order("pace", rate=RATE, seconds=seconds)
        cpu = ground.cpu_s() - cpu
        last = await writer.order("end")
        await crowd.order("ended")
        found: dict[str, Any] = await crowd.order(
            "judge",
            began=paced["began"],
            beat=paced["beat"],
            pieces=round(RATE * seconds),
            piece_bytes=PIECE_BYTES,
            begin=paced["began"] + settle_s,
            end=paced["began"] + seconds,
        )
        told = await crowd.order("leave")
    found["wrong"] += await ground.wrong(told, last)
    return {**found, "writer_late_ms": paced["late_s"] * 1000, "api_cpu": cpu / seconds}
