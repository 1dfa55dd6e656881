"""Every measurement of the log's benchmark but the peers', once and tiny, on a real server."""

from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from eventstore import log
from eventstore.domain import chain
from ops.services import Endpoints
from tests.bench.log import growth, machine, reading, shapes, sizes
from tests.bench.log.appending import Appender, appender
from tests.bench.log.beside import Side, in_rounds
from tests.bench.log.ground import UNCHAINED, UNHASHED, Change, Ground, libpq
from tests.bench.log.peers.plain import Plain
from tests.bench.log.report import Report
from tests.writing import events_of


@pytest.fixture(scope="module")
def ground(services: Endpoints, tmp_path_factory: pytest.TempPathFactory) -> Ground:
    return Ground(services.database_url, tmp_path_factory.mktemp("bench"))


@pytest.fixture
def report() -> Report:
    report = Report({})
    report.begin("a part", 1.0)
    return report


def _values(report: Report) -> dict[str, float]:
    return {figure.name: figure.value for figure in report.figures}


async def _verified(connection: AsyncConnection, writer: Appender) -> chain.Verification:
    [run_id] = writer.runs
    events = await events_of(connection, run_id)
    head = await log.head(connection, run_id)
    assert head is not None
    return chain.verify(run_id, head.tenant_id, events, head.seq, head.chain)


@pytest.mark.parametrize("changes", [(), UNHASHED, UNCHAINED], ids=["chained", "unhashed", "unchained"])
async def test_only_the_log_as_the_migrations_make_it_verifies(ground: Ground, changes: tuple[Change, ...]) -> None:
    async with appender(ground.log(changes), chained=not changes) as writer:
        await writer.open(1)
        assert (await writer.calls(5, number=3)).events == 15
        assert (await _verified(writer.connection, writer)).ok == (not changes)


async def test_the_shapes_are_measured_with_and_without_the_chain(ground: Ground, report: Report) -> None:
    await shapes.shapes(report, ground, 0.001, ((3, 2), (1, 1)))
    told = _values(report)
    assert told["append, 3 runs × 2 events a call"] > 0
    assert {"cost of the chain, 3 × 2", "cost of the chain, 1 × 1"} <= set(told)


async def test_writer_processes_append_at_once(ground: Ground, report: Report) -> None:
    await shapes.processes(report, ground, 0.01, (1, 2))
    assert all(value > 0 for value in _values(report).values())


async def test_sizes_are_of_the_events_that_were_stored(ground: Ground, report: Report) -> None:
    await sizes.sizes(report, ground, ((50, 20), (1, 20)))
    told = _values(report)
    assert told["write-ahead log per event, batch of 1"] > told["the body of an event"]
    assert told["table per event, batch of 50"] > told["the body of an event"]


async def test_a_run_is_read_folded_and_verified(ground: Ground, report: Report) -> None:
    await reading.reading(report, ground, long=1200, resumed=100)
    assert {"replay from the start, a run of 102", reading.VERIFY} <= set(_values(report))


async def test_the_log_grows_by_slices(ground: Ground, report: Report) -> None:
    await growth.growth(report, ground, 10_000)
    told = _values(report)
    assert {"0.00 to 0.01 M events", "0.01 to 0.01 M events", growth.FLATNESS} <= set(told)


@pytest.mark.parametrize("way", ["row", "copy"])
def test_floor_and_ceiling_store_whole_rows(ground: Ground, way: str) -> None:
    url = ground.log()
    plain = Plain(url)
    plain.prepare({"way": way, "runs": 2, "events": 3})
    tally = plain.go(0.001)
    plain.close()
    with ground.connect(url) as connection:
        stored = connection.execute("SELECT count(*), count(DISTINCT (run_id, seq)), min(type) FROM plain").fetchone()
    assert stored == (tally.events, tally.events, "token")


async def test_contestants_take_their_turns_in_processes_of_their_own(ground: Ground) -> None:
    async with ground.children("tests.bench.log.writer", ground.log(), 2) as children:
        for child in children:
            await child.prepare(runs=2, events=2)
        sides = [Side("one", children[:1]), Side("two", children)]
        await in_rounds(sides, 0.001, rounds=2)
    assert [len(side.rounds) for side in sides] == [2, 2]


async def test_a_contestant_that_ends_is_not_waited_for(ground: Ground) -> None:
    gone = ground.database()
    ground.drop(gone)
    with pytest.raises(RuntimeError, match="does not exist"):
        async with ground.children("tests.bench.log.peers.plain", gone):
            pass


def test_the_machine_is_described_and_its_disk_asked(ground: Ground) -> None:
    facts = machine.about(libpq(ground.database_url)) | {"pg_test_fsync_per_s": None}
    assert facts["postgres"]["fsync"] == "on"
    assert "fsync on" in machine.told(facts)
    assert machine.fsync_rate(ground.folder, 0.01) > 0
    assert machine.pg_test_fsync(Path("/nowhere/pg_test_fsync"), ground.folder) is None
