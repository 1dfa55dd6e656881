"""Ours beside the peers, the floor and the ceiling: first each peer's best way is looked for, then all go in turn."""

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Final

from tests.bench.log.child import Child
from tests.bench.log.ground import Ground
from tests.bench.log.report import Report, Tally
from tests.bench.log.shapes import LARGE, at_once

ROUNDS: Final = 9
RECORDER_WAYS: Final = ("application", "application with functions", "aggregate", "dcb without condition")
RECORDER_BATCHES: Final = (1, 10, 100, 1000)  # at 5000 the application recorder's pipeline waits for ever
STREAM_WAYS: Final = ("workflow", "step")
STREAM_WORKFLOWS: Final = (1, 10, 50)
OURS: Final = "ours"
RECORDERS: Final = "eventsourcing"
ORDERED: Final = "eventsourcing in one order"  # the recorder of its applications; that of aggregates alone orders less
STREAMS: Final = "DBOS streams"

Tried = tuple[float, Mapping[str, Any]]  # the rate, and how it was reached


@dataclass(slots=True)
class Side:
    """One contestant in the rounds: its processes and what each round gave. `of` is whom it is compared with; `peer` is
    whose best way it is."""

    name: str
    children: Sequence[Child]
    of: str = ""
    peer: str = ""
    rounds: list[Tally] = field(default_factory=list)

    @property
    def total(self) -> Tally:
        return sum(self.rounds[1:], self.rounds[0])


async def beside(report: Report, ground: Ground, seconds: float, packages: dict[str, str]) -> None:
    async with AsyncExitStack() as stack:

        async def start(module: str, url: str, number: int = 2) -> list[Child]:
            return await stack.enter_async_context(ground.children(f"tests.bench.log.{module}", url, number))

        ours = await start("writer", ground.log())
        row, copy = await start("peers.plain", ground.log())
        *recorders, ordered = await start("peers.recorders", ground.database(), 3)
        streams = await start("peers.streams", ground.database())
        runs, events = LARGE
        for child in ours:
            await child.prepare(runs=runs, events=events)
        await row.prepare(way="row", runs=runs, events=1)
        await copy.prepare(way="copy", runs=runs, events=events)
        tried = await _recorders(report, recorders[0], seconds / 3)
        best_recorder = await _choose(tried, recorders)
        best_ordered = await _choose({name: how for name, how in tried.items() if "application" in name}, [ordered])
        best_stream = await _choose(await _streams(report, streams[0], seconds / 2), streams)
        one, two = f"{OURS}, {runs} × {events}", f"{OURS}, 2 processes"
        version = packages["eventsourcing"]
        sides = [
            Side(one, ours[:1]),
            Side(f"{RECORDERS} {version}, {best_recorder}", recorders[:1], of=one, peer=RECORDERS),
            Side(f"{ORDERED} {version}, {best_ordered}", [ordered], of=one, peer=ORDERED),
            Side(f"{STREAMS} {packages['dbos']}, {best_stream}", streams[:1], of=one, peer=STREAMS),
            Side("floor: one row per commit, plain table", [row], of=one),
            Side(f"ceiling: COPY, {runs * events} rows per commit, plain table", [copy], of=one),
            Side(two, ours),
            Side(f"{RECORDERS}, the same, 2 processes", recorders, of=two),
            Side(f"{STREAMS}, the same, 2 processes", streams, of=two),
        ]
        await in_rounds(sides, seconds / ROUNDS)
    tell(report, sides)


async def in_rounds(sides: Sequence[Side], slice_s: float, rounds: int = ROUNDS) -> None:
    """Each in turn, every round beginning with another, so that a busy moment of the machine does not choose."""
    for number in range(rounds):
        for place in range(len(sides)):
            side = sides[(place + number) % len(sides)]
            side.rounds.append(await at_once(side.children, slice_s))


def tell(report: Report, sides: Sequence[Side]) -> None:
    """A line for each. The ratio is the median of the rounds' ratios: both sides of each were measured side by side."""
    by_name = {side.name: side for side in sides}
    for side in sides:
        rates = [tally.rate for tally in side.rounds]
        times = None
        if side.of:
            pairs = zip(by_name[side.of].rounds, side.rounds, strict=True)
            times = median(our.rate / their.rate for our, their in pairs)
        report.add(side.name, side.total.rate, "events/s", times, peer=side.peer, rounds=rates, **side.total.spread())


def ratio_to(report: Report, peer: str) -> float:
    """How many times the peer's best ours is, one process each."""
    [times] = [figure.times for figure in report.figures if figure.more.get("peer") == peer]
    assert times is not None
    return times


async def _recorders(report: Report, child: Child, seconds: float) -> dict[str, Tried]:
    hows = [{"way": way, "batch": batch} for way in RECORDER_WAYS for batch in RECORDER_BATCHES]
    named = {f"{how['way']}, batch {how['batch']}": how for how in hows}
    return await _try(report, RECORDERS, child, seconds, named)


async def _streams(report: Report, child: Child, seconds: float) -> dict[str, Tried]:
    hows = [{"way": way, "workflows": number} for way in STREAM_WAYS for number in STREAM_WORKFLOWS]
    named = {f"{how['workflows']} at once, from a {how['way']}": how for how in hows}
    return await _try(report, STREAMS, child, seconds, named)


async def _try(
    report: Report, peer: str, child: Child, seconds: float, hows: Mapping[str, Mapping[str, Any]]
) -> dict[str, Tried]:
    tried = {}
    for name, how in hows.items():
        await child.prepare(**how)
        await child.go(seconds / 5)
        tally = await child.go(seconds)
        report.add(f"  {peer}: {name}", tally.rate, "events/s", **tally.spread())
        tried[name] = tally.rate, how
    return tried


async def _choose(tried: dict[str, Tried], children: Sequence[Child]) -> str:
    best = max(tried, key=lambda name: tried[name][0])
    for child in children:
        await child.prepare(**tried[best][1])
    return best
