"""How long a reader without a cursor takes to the last of 10,000 stored events, and one that returns half-way."""

from statistics import median
from typing import Final

from tests.bench.figures import Claim
from tests.bench.fronts.ground import Ground, path
from tests.bench.log.report import Report

EVENTS: Final = 10_000
REPEATS: Final = 7
AT_MOST_MS: Final = 100.0


async def resume(report: Report, ground: Ground, quick: bool, events: int = EVENTS) -> None:
    """The run is still open, so each reader is live after its last event; then it ends, and all bytes are compared."""
    async with ground.writer() as writer, ground.crowd() as crowd:
        [run] = await writer.order("open", runs=1)
        [seq] = (await writer.order("store", events=events)).values()
        took, cpu, wrong = {}, {}, 0
        for after in (0, seq // 2):
            times, spent = [], ground.cpu_s()
            for _ in range(REPEATS if not quick else 3):
                asked = {"address": ground.address, "paths": [path(run)], "key": ground.key, "after": after}
                began = await crowd.order("follow", **asked)
                times.append((await crowd.order("until", seq=seq))["at"] - began["at"])
                told = await crowd.order("leave")
                wrong += told["lost"] + abs(told["frames"] - (seq - after))
            took[after] = [1000 * each for each in times]
            cpu[after] = 1000 * (ground.cpu_s() - spent) / len(times)
        await crowd.order("follow", address=ground.address, paths=[path(run)], key=ground.key)
        last = await writer.order("end")
        await crowd.order("ended")
        wrong += await ground.wrong(await crowd.order("leave"), last)
    for after, times in took.items():
        name = f"resume a run of {events:,} after event {after:,}, to its last event"
        report.add(name, median(times), "ms", fastest_ms=min(times), slowest_ms=max(times), first_ms=times[0])
        report.add("    of that the API's own processor time", cpu[after], "ms")
    report.claim(Claim("resumed: missing, doubled, out of order or changed", wrong, at_most=0))
    if events == EVENTS:
        report.claim(Claim(f"resume a run of {EVENTS:,}, ms", median(took[0]), at_most=AT_MOST_MS))
