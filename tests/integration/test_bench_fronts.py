"""Every measurement of the fronts' benchmark but the peers', once and tiny, on a real server."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from ops.services import Endpoints
from tests.bench.fronts.beside import ours
from tests.bench.fronts.ground import Ground, ground, path
from tests.bench.fronts.judging import judged, late
from tests.bench.fronts.latency import measured
from tests.bench.fronts.memory import memory
from tests.bench.fronts.polls import polls
from tests.bench.fronts.resume import resume
from tests.bench.fronts.storm import storm
from tests.bench.log.report import Report


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def at(services: Endpoints, database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Ground]:
    with ground(services, tmp_path_factory.mktemp("bench"), database_url) as found:
        async with found.keeping():
            yield found


@pytest.fixture
def report() -> Report:
    report = Report({})
    report.begin("a part", 1.0)
    return report


def _wrong(report: Report) -> list[float]:
    return [claim.measured for claim in report.claims if "missing" in claim.name]


async def test_every_piece_of_paced_runs_is_measured(at: Ground) -> None:
    found = await measured(at, 3, 0.4, settle_s=0.0)
    assert (found["wrong"], found["measured"]) == (0, 60)
    assert 0 < found["stored"]["p50_ms"] <= found["due"]["max_ms"]


async def test_what_a_delivery_costs_is_counted_over_all_of_them(at: Ground) -> None:
    found = await ours(at, readers=4, rate=50, events=20)
    assert (found.deliveries, found.wrong) == (80, 0)


async def test_a_long_run_is_resumed(at: Ground, report: Report) -> None:
    await resume(report, at, quick=True, events=300)
    assert _wrong(report) == [0]


async def test_idle_readers_are_weighed(at: Ground, report: Report) -> None:
    await memory(report, at, quick=True, runs=3)
    assert _wrong(report) == [0]


async def test_polls_of_each_kind_are_counted(at: Ground, report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, tiny in (("LENGTHS", (20, 40)), ("SECONDS", 0.4), ("WARM_S", 0.01)):
        monkeypatch.setattr(f"tests.bench.fronts.polls.{name}", tiny)
    await polls(report, at, quick=True)
    assert {"poll, 304", "poll, delta"} <= {figure.name for figure in report.figures}


async def test_readers_that_are_all_cut_at_once_return(at: Ground, report: Report) -> None:
    await storm(report, at, quick=True, runs=2)
    assert _wrong(report) == [0]


async def test_a_crowd_that_missed_the_beginning_is_found_out(at: Ground) -> None:
    async with at.writer() as writer, at.crowd() as crowd:
        [run] = await writer.order("open", runs=1)
        await crowd.order("follow", address=at.address, paths=[path(run)], key=at.key, after=1)
        last = await writer.order("end")
        await crowd.order("ended")
        assert await at.wrong(await crowd.order("leave"), last) > 0


def _kept(*texts: str) -> list[tuple[float, bytes]]:
    at = "2026-01-01T00:00:00Z"
    return [
        (1.0, b'{"seq":%d,"type":"token","at":"%s","data":{"text":"%s"}}' % (seq, at.encode(), text.encode()))
        for seq, text in enumerate(texts, 1)
    ]


@pytest.mark.parametrize(
    ("texts", "wrong"),
    [
        (("0000000 ", "0000001 0000002 "), 0),
        (("0000000 ", "0000002 "), 1),
        (("0000000 ", "0000001 ", "0000001 0000002 "), 1),
    ],
    ids=["whole", "one missing", "one twice"],
)
def test_the_judge_knows_what_is_missing_or_doubled(texts: tuple[str, ...], wrong: int) -> None:
    found = judged([_kept(*texts)], began=0.0, beat=0.1, pieces=3, piece_bytes=8, begin=0.0, end=1.0)
    assert found["wrong"] == wrong


def test_what_others_say_is_late_by_their_own_word() -> None:
    kept = [(2.0, b'{"seq":1,"due":1.0}'), (2.5, b'{"seq":2,"due":2.0}')]
    found = late([kept, kept[:1]], pieces=1, begin=1.5, end=3.0)
    assert (found["wrong"], found["measured"], found["due"]["max_ms"]) == (1, 1, 500)
