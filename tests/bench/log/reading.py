"""Reading a long run, folding it, and verifying its chain."""

import time
from collections.abc import Callable
from statistics import median
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from api.policies import load
from api.settings import ROOT
from api.states import Pages, States
from eventstore import log
from eventstore.database import async_engine
from eventstore.domain import chain
from eventstore.domain.record import Recorded
from eventstore.domain.run import fold
from tests.bench.log.appending import Appender, appender
from tests.bench.log.ground import Ground
from tests.bench.log.report import Report

PAGE: Final = 500
LONG: Final = 100_000
RESUMED: Final = 10_000
NEW: Final = 10
REPEATS: Final = 5
BATCH: Final = 1_000
STATE_BYTES: Final = 1 << 30
VERIFY: Final = "verify a chain"


async def _read(connection: AsyncConnection, writer: Appender) -> tuple[list[Recorded], list[float]]:
    """The writer's one run from the first event to the last, page by page."""
    events: list[Recorded] = []
    took: list[float] = []
    while True:
        began = time.perf_counter()
        page = await log.read_after(connection, writer.runs[0], len(events), PAGE)
        took.append(time.perf_counter() - began)
        events += page.events
        if not page.more:
            return events, took


def _each_of(repeats: int, what: Callable[[], object]) -> list[float]:
    """Seconds of each repeat."""
    took = []
    for _ in range(repeats):
        began = time.perf_counter()
        what()
        took.append(time.perf_counter() - began)
    return took


async def reading(report: Report, ground: Ground, long: int = LONG, resumed: int = RESUMED) -> None:
    url = ground.log()
    engine = async_engine(url, application="bench-reader", role="runwire_api", pool_size=1)
    try:
        async with appender(url) as writer, engine.connect() as reader:
            await reader.execution_options(isolation_level="AUTOCOMMIT")
            await _resume(report, writer, reader, resumed)
            events, head = await _long(report, writer, reader, long)
            await _state(report, writer, reader, len(events))
    finally:
        await engine.dispose()
    _fold(report, events)
    _verify(report, events, head)


async def _long(
    report: Report, writer: Appender, reader: AsyncConnection, long: int
) -> tuple[list[Recorded], log.Head]:
    await writer.open(1)
    batch = min(BATCH, long)
    await writer.calls(batch, number=-(-long // batch))
    events, pages = await _read(reader, writer)
    assert len(events) >= long
    report.add(f"read, pages of {PAGE}, a run of {len(events):,}", len(events) / sum(pages), "events/s")
    report.add("  one page", median(pages) * 1000, "ms", pages=len(pages))
    head = await log.head(reader, writer.runs[0])
    assert head is not None
    return events, head


async def _resume(report: Report, writer: Appender, reader: AsyncConnection, resumed: int) -> None:
    """A reader without a cursor: everything from the start, decoded, to the last event."""
    await writer.open(1)
    await writer.calls(resumed, number=1)
    took = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        events, _ = await _read(reader, writer)
        facts = [event.fact() for event in events]
        took.append(time.perf_counter() - began)
        assert facts[-1].seq == resumed + 2  # and what opens a run
    name = f"replay from the start, a run of {len(events):,}"
    report.add(name, median(took) * 1000, "ms", fastest_ms=min(took) * 1000)


async def _state(report: Report, writer: Appender, reader: AsyncConnection, length: int) -> None:
    """What a poll or a state costs beside its JSON: from nothing, and once the run is known, from where it was."""
    view = load(ROOT / "policies").view("contract_review", "officer")
    states = States(1, STATE_BYTES)
    [run_id] = writer.runs

    async def timed() -> float:
        began = time.perf_counter()
        known = await states.at_end(Pages(reader, run_id), view)
        took = time.perf_counter() - began
        assert known.seq == length
        return took

    first = await timed()
    report.add(f"state, a run of {length:,}, first time", first * 1000, "ms")
    again = []
    for _ in range(4 * REPEATS):
        await writer.calls(NEW, number=1)
        length += NEW
        again.append(await timed())
    name = f"  again after {NEW} new events"
    report.add(name, median(again) * 1000, "ms", fastest_ms=min(again) * 1000, slowest_ms=max(again) * 1000)
    report.add("  times as much the first time", first / median(again), "x")


def _fold(report: Report, events: list[Recorded]) -> None:
    decoding = _each_of(REPEATS, lambda: [event.fact() for event in events])
    report.add("decode stored events", len(events) / median(decoding), "events/s")
    facts = [event.fact() for event in events]
    folding = _each_of(REPEATS, lambda: fold(facts))
    report.add(f"fold, a run of {len(facts):,}", len(facts) / median(folding), "events/s")
    state = fold(facts[:-NEW])

    def go_on() -> None:
        nonlocal state
        state = fold(facts[-NEW:], state)

    one_more = _each_of(4 * REPEATS, go_on)
    report.add(f"fold {NEW} new events onto that state", median(one_more) * 1000, "ms", fastest_ms=min(one_more) * 1000)


def _verify(report: Report, events: list[Recorded], head: log.Head) -> None:
    def verify() -> None:
        assert chain.verify(head.run_id, head.tenant_id, events, head.seq, head.chain).ok

    took = _each_of(REPEATS, verify)
    report.add(VERIFY, len(events) / median(took), "events/s", fastest=len(events) / min(took))
