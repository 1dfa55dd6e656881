"""Logs as earlier releases wrote them: brought to the newest version they read as they did then, to the byte."""

import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from eventstore import log
from eventstore.database import async_engine, sync_engine
from eventstore.domain import chain, upcasts
from eventstore.domain.events import BODIES, new_event
from eventstore.domain.lifecycle import TERMINAL_STATUSES
from migrations import schema
from ops.services import Endpoints
from tests.conftest import new_database
from tests.golden import record
from tests.golden.reading import read
from tests.golden.rows import dump, make_room, read_rows, rows_of
from tests.writing import NOW_US, events_of, result

PARTITIONS = """
    SELECT c.relname AS name, c.relowner::regrole::text, c.relacl::text,
        (SELECT string_agg(tgname || tgenabled::text, ' ' ORDER BY tgname) FROM pg_trigger WHERE tgrelid = c.oid)
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'runwire.event'::regclass"""
REVISIONS = record.revisions()
CHANGED = "what is read of an old log has changed; if on purpose: python -m tests.golden.record --reading"


@pytest.fixture(params=REVISIONS)
def folder(request: pytest.FixtureRequest) -> Path:
    """The golden log of one revision."""
    return record.LOGS / str(request.param)


@pytest_asyncio.fixture(loop_scope="session")
async def owner(services: Endpoints, folder: Path) -> AsyncIterator[AsyncEngine]:
    """That log, in a database of the newest version."""
    engine = await record.restore(new_database(services, "template0"), folder)
    yield engine
    await engine.dispose()


async def test_a_log_of_an_earlier_release_reads_equal_to_the_byte(owner: AsyncEngine, folder: Path) -> None:
    async with owner.connect() as connection:
        assert await connection.run_sync(schema.current) == schema.newest()
        told = await read(connection, folder)
    then = {path.name: path.read_bytes() for path in (folder / "reading").iterdir()}
    assert set(told) == set(then)
    for name, page in then.items():
        assert told[name] == page, f"{name}: {CHANGED} {folder.name}"
    blocks, chains = json.loads(then["blocks.json"]), json.loads(then["chains.json"])
    assert blocks["ok"]
    assert blocks["fits_what_is_outside"]
    assert 0 < blocks["sealed"] < blocks["events"]
    assert all(seen["ok"] for seen in chains.values())
    assert {seen["status"] for seen in chains.values()} >= {"queued", "running", *TERMINAL_STATUSES}


async def test_an_upcast_changes_what_is_read_and_nothing_that_is_stored_or_proven(
    owner: AsyncEngine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upcasts, "UPCASTS", {("token", 1): lambda data: {**data, "text": f"<{data['text']}>"}})
    async with owner.connect() as connection:
        stored = await dump(connection)
        told = await read(connection, folder)
        assert await dump(connection) == stored
    then = {path.name: path.read_bytes() for path in (folder / "reading").iterdir()}
    changed = {name for name in then if told[name] != then[name]}
    # The operator's policy shows no draft text. Chains and blocks are over what is stored.
    assert changed == {"facts.jsonl", "states.json", "frames.user.jsonl", "frames.officer.jsonl"}
    assert b'"<A><B><C><D>"' in told["states.json"]
    assert b'"Living text"' not in b"".join(told.values())


async def test_no_migration_has_changed_a_stored_row(owner: AsyncEngine, folder: Path) -> None:
    """A later version may add columns; what was there is there as it was."""
    async with owner.connect() as connection:
        now = await dump(connection)
    for table in ("event", "block", "checkpoint", "identity", "input", "tenant"):
        then = [json.loads(line) for line in rows_of(read_rows(folder / "rows")[table])]
        kept = [json.loads(line) for line in rows_of(now[table])]
        assert [{name: row[name] for name in old} for old, row in zip(then, kept, strict=True)] == then, table


async def test_a_run_of_an_earlier_release_goes_on_in_this_one(owner: AsyncEngine, folder: Path) -> None:
    [run] = [UUID(run) for run, seen in chains_of(folder).items() if seen["status"] == "running"]
    async with owner.begin() as connection:
        claimed = await log.claim(connection, run, "newer", 30.0)
        assert (claimed.verdict, claimed.seq) == ("claimed", chains_of(folder)[str(run)]["events"])
        batch = log.Batch(run, claimed.epoch or 0, 1, [new_event(result(), NOW_US)])
        [answer] = await log.append(connection, [batch], 30.0)
        assert (answer.verdict, answer.status) == ("ok", "completed")
        head = await log.head(connection, run)
        assert head is not None
        events = await events_of(connection, run)
    assert chain.verify(run, head.tenant_id, events, head.seq, head.chain).ok


def chains_of(folder: Path) -> dict[str, dict[str, object]]:
    told: dict[str, dict[str, object]] = json.loads((folder / "reading" / "chains.json").read_bytes())
    return told


async def test_the_next_release_can_be_recorded_and_holds_every_type_of_event(
    services: Endpoints, tmp_path: Path
) -> None:
    folder = tmp_path / schema.newest()
    url = new_database(services, "template0")
    engine = sync_engine(url, application="tests")
    schema.upgrade(engine)
    engine.dispose()
    await record.record(url, tmp_path / "work", folder)
    stored = [json.loads(line) for line in rows_of(read_rows(folder / "rows")["event"])]
    assert {event["type"] for event in stored} == set(BODIES), "a new type belongs in tests/golden/story.py"
    again = await record.restore(new_database(services, "template0"), folder)
    try:
        async with again.connect() as connection:
            told = await read(connection, folder)
    finally:
        await again.dispose()
    assert told == {path.name: path.read_bytes() for path in (folder / "reading").iterdir()}


def test_a_golden_log_is_never_written_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(record, "LOGS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["record"])
    (tmp_path / schema.newest()).mkdir()
    assert record.main() == 1
    assert "never again" in capsys.readouterr().err
    assert list((tmp_path / schema.newest()).iterdir()) == []
    monkeypatch.setattr(sys, "argv", ["record", "--reading", "nothing_0"])
    assert record.main() == 2


async def test_a_log_of_a_week_long_past_finds_its_partition(services: Endpoints, folder: Path) -> None:
    """The database makes room for the weeks around now; a golden log is older than that one day."""
    url = new_database(services, "template0")
    engine = sync_engine(url, application="tests")
    schema.upgrade(engine, to=folder.name)
    engine.dispose()
    day = 24 * 3600 * 1000
    runs = [UUID(int=(1_600_000_000_000 + days * day) << 80) for days in (0, 7, 400, 20_000)]
    owner = async_engine(url, application="tests", role=None, pool_size=1)
    try:
        async with owner.begin() as connection:
            await make_room(connection, runs)
            await make_room(connection, runs)  # twice is once
            partitions = {row[0]: tuple(row)[1:] for row in await connection.execute(text(PARTITIONS))}
    finally:
        await owner.dispose()
    assert {"event_20200907", "event_20200914", "event_20211018", "event_20750617"} <= set(partitions)
    assert len(set(partitions.values())) == 1, "one of these is not as the database's own"


def test_there_is_a_log_to_read() -> None:
    assert REVISIONS
