"""Whether an append costs the same when the log is large: the rate of each slice while the log grows."""

from itertools import pairwise
from statistics import mean, median
from typing import Final

from tests.bench.log.appending import appender
from tests.bench.log.ground import Ground
from tests.bench.log.report import Report
from tests.bench.log.shapes import LARGE

MILLION: Final = 1_000_000
FLATNESS: Final = "largest deviation of a slice from the median"


def slice_events(events: int) -> int:
    """A million, or a tenth of a small log."""
    return MILLION if events >= 2 * MILLION else events // 10


async def growth(report: Report, ground: Ground, events: int) -> None:
    """Every slice has new runs, as a log in use has, so that it is the log that grows and not the runs."""
    runs, batch = LARGE
    calls = max(1, slice_events(events) // (runs * batch))
    size = calls * runs * batch
    url = ground.log()
    rates: list[float] = []
    async with appender(url) as writer:
        await writer.open(runs)
        await writer.calls(batch, number=2)
        for before, after in pairwise(range(0, events + 1, size)):
            await writer.open(runs)
            tally = await writer.calls(batch, number=calls)
            rates.append(tally.rate)
            name = f"{before / MILLION:.2f} to {after / MILLION:.2f} M events"
            report.add(name, tally.rate, "events/s", **tally.spread())
    middle, fifth = median(rates), max(1, len(rates) // 5)
    report.add(FLATNESS, 100 * max(abs(rate / middle - 1) for rate in rates), "%", slice_events=size)
    report.add("last fifth against the first fifth", 100 * (mean(rates[-fifth:]) / mean(rates[:fifth]) - 1), "%")
    ground.drop(url)
