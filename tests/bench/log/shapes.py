"""Appends of five shapes with the chain and without, call by call in turn; and several writers at once."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from statistics import median
from typing import Final

from tests.bench.log.appending import Appender, appender
from tests.bench.log.child import Child
from tests.bench.log.ground import UNCHAINED, UNHASHED, Ground
from tests.bench.log.report import Report, Tally

SHAPES: Final = ((1, 1), (10, 1), (100, 1), (100, 50), (1000, 5))
PROCESSES: Final = (1, 2, 4)
LARGE: Final = (100, 50)
WARM_UP_TURNS: Final = 3


def shape_name(runs: int, events: int) -> str:
    return f"append, {runs} runs × {events} events a call"


COST: Final = f"cost of the chain, {LARGE[0]} × {LARGE[1]}"


async def in_turn(writers: Sequence[Appender], events: int, seconds: float) -> list[Tally]:
    """One call of each, over and over, each time beginning with another, until each has had so long on average."""
    took: list[list[float]] = [[] for _ in writers]
    turn, spent = -WARM_UP_TURNS, 0.0
    while turn < 1 or spent < seconds * len(writers):
        for place in range(len(writers)):
            chosen = (turn + place) % len(writers)
            call = await writers[chosen].call(events)
            if turn >= 0:
                took[chosen].append(call)
                spent += call
        turn += 1
    stored = events * len(writers[0].runs)
    return [Tally(stored * len(calls), sum(calls), tuple(calls)) for calls in took]


def cost(chained: Tally, other: Tally) -> float:
    """Per cent of throughput that the chain costs: the median over the turns, which one checkpoint does not move."""
    return 100 * (1 - median(b / a for a, b in zip(chained.calls, other.calls, strict=True)))


async def shapes(report: Report, ground: Ground, seconds: float, chosen: Sequence[tuple[int, int]] = SHAPES) -> None:
    async with AsyncExitStack() as stack:
        logs = [ground.log(), ground.log(UNHASHED), ground.log(UNCHAINED)]
        writers = [await stack.enter_async_context(appender(url, chained=url is logs[0])) for url in logs]
        for runs, events in chosen:
            for writer in writers:
                await writer.open(runs)
            chained, unhashed, unchained = await in_turn(writers, events, seconds)
            name = shape_name(runs, events)
            without = (("hashing", unhashed), ("hashing and the column's bytes", unchained))
            report.add(name, chained.rate, "events/s", **chained.spread())
            for what, tally in without:
                report.add(f"  without {what}", tally.rate, "events/s", **tally.spread())
            report.add(f"cost of the chain, {runs} × {events}", cost(chained, unhashed), "% of rate")
            report.add("  its bytes counted in", cost(chained, unchained), "% of rate", turns=len(chained.calls))


async def at_once(children: Sequence[Child], seconds: float) -> Tally:
    """All of them at the same time; the slowest decides how long it took."""
    tallies = await asyncio.gather(*(child.go(seconds) for child in children))
    calls = tuple(call for tally in tallies for call in tally.calls)
    return Tally(sum(tally.events for tally in tallies), max(tally.seconds for tally in tallies), calls)


async def processes(report: Report, ground: Ground, seconds: float, numbers: Sequence[int] = PROCESSES) -> None:
    runs, events = LARGE
    async with ground.children("tests.bench.log.writer", ground.log(), max(numbers)) as children:
        for child in children:
            await child.prepare(runs=runs, events=events)
        await at_once(children, seconds / 10)
        for number in numbers:
            tally = await at_once(children[:number], seconds)
            name = f"append, {number} writer process{'es' if number > 1 else ''}, {runs} × {events}"
            report.add(name, tally.rate, "events/s", **tally.spread())
