"""What it costs to give an event to one more reader: ours and the peers, the same readers and events a second.

Ours stores each event, durably and chained, reads it through the caller's policy and checks who is asking; the peers
hand over what they have in memory. Only the serving process's own time is counted, user and system.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import httpx

from tests.bench.figures import Claim
from tests.bench.fronts.child import Ordered
from tests.bench.fronts.ground import Ground, Process, path
from tests.bench.log.report import Report

PEERS: Final = ("sse-starlette", "FastAPI", "raw ASGI")
SHAPES: Final = ((200, 50), (1_000, 10))  # readers, events per second
SECONDS: Final = 5.0
QUICK: Final = ((200, 25),)
QUICK_S: Final = 2.0
AT_MOST_US: Final = 20.0
OPENING: Final = 2  # the events that our run begins with


@dataclass(frozen=True, slots=True)
class Cost:
    """What one side spent on one shape."""

    us: float  # of the serving process's time, for an event given to a reader
    deliveries: int
    wrong: int
    crowd_us: float


Go = Callable[[int, int], Awaitable[Any]]


async def beside(report: Report, ground: Ground, quick: bool) -> None:
    """Each shape by each side, one after the other."""
    for readers, rate in QUICK if quick else SHAPES:
        events = round(rate * (QUICK_S if quick else SECONDS))
        our = await ours(ground, readers, rate, events)
        name = f"1 run × {readers:,} readers"
        _tell(report, f"fan-out, ours, {name}", our, None)
        report.claim(Claim(f"fan-out, {name}, µs for a delivery", our.us, at_most=AT_MOST_US))
        wrong = our.wrong
        for way in PEERS:
            their = await peer(ground, way, readers, rate, events)
            _tell(report, f"  {way}", their, our)
            wrong += their.wrong
        report.claim(Claim(f"fan-out, {name}: missing, doubled, out of order or changed", wrong, at_most=0))


def _tell(report: Report, name: str, found: Cost, our: Cost | None) -> None:
    times = None if our is None else our.us / found.us
    report.add(name, found.us, "µs", times, deliveries=found.deliveries, crowd_us=found.crowd_us)


async def ours(ground: Ground, readers: int, rate: float, events: int) -> Cost:
    """One run that is written at this pace, each event for itself."""
    async with ground.writer() as writer, ground.crowd() as crowd:
        ids = await writer.order("open", runs=1)
        await crowd.order("follow", address=ground.address, paths=[path(ids[0])], key=ground.key, each=readers)
        go = writer.order("pace", rate=rate, seconds=events / rate, apart=True)
        found = await cost(ground.api, crowd, go, readers, events, OPENING)
        last = await writer.order("end")
        await crowd.order("ended")
        wrong = await ground.wrong(await crowd.order("leave"), last, each=readers)
    return Cost(found.us, found.deliveries, wrong, found.crowd_us)


async def peer(ground: Ground, way: str, readers: int, rate: float, events: int) -> Cost:
    """The same of somebody else's."""
    with ground.server("tests.bench.fronts.peers.served", way) as process:
        async with ground.crowd() as crowd, httpx.AsyncClient(base_url=process.address, trust_env=False) as http:
            await crowd.order("follow", address=process.address, paths=["/events"], each=readers)
            go = http.post("/go", params={"events": events, "rate": rate})
            found = await cost(process, crowd, go, readers, events)
            await crowd.order("leave")
    return found


async def cost(
    process: Process, crowd: Ordered, go: Awaitable[Any], readers: int, events: int, opening: int = 0
) -> Cost:
    """What the process spends on these events for these readers, who have those that the run opens with."""
    before = await crowd.order("until", seq=opening)
    spent = process.cpu_s()
    await go
    told = await crowd.order("until", seq=opening + events)
    spent = process.cpu_s() - spent
    given = told["frames"] - before["frames"]
    wrong = told["lost"] + abs(given - readers * events) + len(told["digests"]) - 1
    return Cost(1e6 * spent / given, given, wrong, 1e6 * (told["cpu_s"] - before["cpu_s"]) / given)
