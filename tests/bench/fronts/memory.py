"""What an idle SSE reader takes of the API's memory, and that none of them misses what is stored after the silence."""

from typing import Final

from tests.bench.figures import Claim
from tests.bench.fronts.ground import Ground, path
from tests.bench.log.report import Report

RUNS: Final = 1_000
EACH: Final = (1, 4)  # readers more of every run, one step after the other
QUICK_RUNS: Final = 100
WARM_UP: Final = 50  # readers that came and went before: what the process takes once is not theirs
AT_MOST_KB: Final = 30.0


async def memory(report: Report, ground: Ground, quick: bool, runs: int | None = None) -> None:
    """The first thousand readers follow a run each, four thousand more follow the same runs."""
    runs = runs or (QUICK_RUNS if quick else RUNS)
    async with ground.writer() as writer, ground.crowd() as crowd:
        ids = await writer.order("open", runs=runs)
        asked = {"address": ground.address, "key": ground.key, "paths": [*map(path, ids)]}
        await crowd.order("follow", **{**asked, "paths": asked["paths"][:WARM_UP]})
        await crowd.order("until", seq=2)
        await crowd.order("leave")
        empty, readers = ground.rss(), 0
        report.add("memory of the API without readers", empty / 2**20, "MB")
        for each in EACH:
            await crowd.order("follow", **asked, each=each)
            readers += each * runs
            await crowd.order("until", seq=2)
            taken = (ground.rss() - empty) / readers / 1000
            report.add(f"memory per idle reader, {readers:,} on {runs:,} runs", taken, "kB", rss_bytes=ground.rss())
        last = await writer.order("end")
        await crowd.order("ended")
        wrong = await ground.wrong(await crowd.order("leave"), last, each=sum(EACH))
    report.claim(Claim("idle readers: missing, doubled, out of order or changed", wrong, at_most=0))
    if not quick:
        report.claim(Claim(f"memory per idle reader, {readers:,} readers, kB", taken, at_most=AT_MOST_KB))
