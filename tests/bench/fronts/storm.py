"""All readers are cut at once and return at once: how long until each is live again, and that none lost an event.

As the readers are cut, one event is stored in every run. A reader is live again when it has that event, which reached
it either as history or over its new place at the tail; a second event, stored after all are back, comes live to all.
"""

import asyncio
from typing import Final

from tests.bench.figures import Claim
from tests.bench.fronts.ground import Ground, path
from tests.bench.log.report import Report

RUNS: Final = 100
EACH: Final = 10
STORED: Final = 50  # events of every run before the first cut
ROUNDS: Final = 3
WITHIN_S: Final = 120.0


async def storm(report: Report, ground: Ground, quick: bool, runs: int | None = None) -> None:
    """Measure and tell."""
    runs = runs or (RUNS // 10 if quick else RUNS)
    took, live = [], []
    async with ground.writer() as writer, ground.crowd() as crowd:
        ids = await writer.order("open", runs=runs)
        await crowd.order("follow", address=ground.address, paths=[*map(path, ids)], key=ground.key, each=EACH)
        seq = max((await writer.order("store", events=STORED)).values())
        await crowd.order("until", seq=seq)
        for _ in range(1 if quick else ROUNDS):
            cut = crowd.order("cut", seq=seq + 1, within_s=WITHIN_S)
            took.append((await asyncio.gather(cut, writer.order("mark")))[0]["took_s"])
            until = crowd.order("until", seq=seq + 2, within_s=WITHIN_S)
            live.append((await asyncio.gather(until, writer.order("mark")))[0]["took_s"])
            seq += 2
        last = await writer.order("end")
        await crowd.order("ended")
        wrong = await ground.wrong(await crowd.order("leave"), last, each=EACH)
    report.add(f"{runs * EACH:,} readers cut at once, until all are live again", max(took) * 1000, "ms", rounds_s=took)
    report.add("    the next event to all of them", max(live) * 1000, "ms", rounds_s=live)
    report.claim(Claim("storm: missing, doubled, out of order or changed", wrong, at_most=0))
