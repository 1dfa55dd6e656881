"""A migration of a log that is in use: appends go on between its tries, and it ends whole or not at all."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
import pytest_asyncio
from redis.asyncio import Redis
from sqlalchemy import Engine, make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine
from typer.testing import CliRunner

from eventstore import log
from eventstore.database import async_engine, sync_engine
from eventstore.domain import chain
from eventstore.domain.record import Recorded
from eventstore.recorder import Recorder
from eventstore.run_writer import RunWriter
from migrations import schema, waiting
from migrations.schema import SchemaError
from ops.cli import app
from ops.exits import FAILED, Complaint
from ops.services import Endpoints
from tests.conftest import new_database
from tests.integration.test_migrations import MIGRATION_LOCK, shape
from tests.waiting import until
from tests.writing import NOW_US, claim, events_of, new_tenant, open_run, started, token

NEWEST = schema.newest()
RUNS = 4
READER = "a long look"
# The next release's migration, as it might be: another column, and an append that fills it.
COMING = f"""
'What comes.'
from alembic import op

revision = "coming_99"
down_revision = "{NEWEST}"


def upgrade():
    op.execute("CREATE TABLE runwire.made_before_the_wait (n integer)")
    op.execute("ALTER TABLE runwire.event ADD COLUMN remark text")
    op.execute('''
        DO $$ BEGIN
            EXECUTE replace(replace(pg_get_functiondef('runwire.append'::regproc),
                'chain, body)', 'chain, body, remark)'),
                'v_link[u.place], u.body', 'v_link[u.place], u.body, $_$after$_$');
        END $$''')
"""
WAITING = """
    SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
    WHERE NOT l.granted AND l.relation = 'runwire.event'::regclass AND a.application_name = 'migrator'"""


@pytest.fixture
def database_url(services: Endpoints, template: str) -> str:
    """A database for each test: it is changed."""
    return new_database(services, template)


@pytest.fixture
def migrator(database_url: str) -> Iterator[Engine]:
    engine = sync_engine(database_url, application="migrator")
    yield engine
    engine.dispose()


@pytest.fixture
def coming(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """One migration more than this database has, and pauses short enough for a test; answers its version."""
    assert database_url
    (tmp_path / "coming.py").write_text(COMING)
    monkeypatch.setattr(schema, "VERSIONS", (*schema.VERSIONS, tmp_path))
    monkeypatch.setattr(waiting, "PAUSE_S", (0.1, 0.3))
    return "coming_99"


@pytest_asyncio.fixture(loop_scope="session")
async def owner(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = async_engine(database_url, application="tests", role=None, pool_size=3)
    yield engine
    await engine.dispose()


@contextmanager
def reading(database_url: str) -> Iterator[psycopg.Connection]:
    """Somebody reads the log in a transaction that does not end."""
    url = make_url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, application_name=READER) as connection:
        connection.execute("SELECT count(*) FROM runwire.event")
        yield connection


class Producers:
    """Runs whose events are stored one after another until they are told to stop."""

    def __init__(self, writers: list[RunWriter]) -> None:
        self._writers = writers
        self._stop = asyncio.Event()
        self.stored = dict.fromkeys((writer.run_id for writer in writers), 0)

    async def produce(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for writer in self._writers:
                tasks.create_task(self._one(writer))

    async def _one(self, writer: RunWriter) -> None:
        while not self._stop.is_set():
            await writer.record(token(str(self.stored[writer.run_id])))
            self.stored[writer.run_id] += 1

    def stop(self) -> None:
        self._stop.set()

    async def moved(self) -> None:
        """Every run has come further than it is now."""
        before = dict(self.stored)
        await until(lambda: all(self.stored[run] > before[run] for run in before))


@asynccontextmanager
async def producing(database_url: str, owner: AsyncEngine, redis: Redis) -> AsyncIterator[Producers]:
    """A recorder with several runs, all of them writing."""
    engines = [
        async_engine(database_url, application="tests", role=role, pool_size=2)
        for role in ("runwire_api", "runwire_worker")
    ]
    tenant = await new_tenant(owner)
    runs = [(await open_run(engines[0], tenant)).run_id for _ in range(RUNS)]
    recorder = Recorder(engines[1], redis, lease_s=30.0, heartbeat_s=3600.0, clock_us=lambda: NOW_US)
    writers = [recorder.open(run, (await claim(engines[1], run)).epoch or 0) for run in runs]
    producers = Producers(writers)
    recording, work = asyncio.create_task(recorder.run()), None
    try:
        for writer in writers:
            await writer.record(started())
        work = asyncio.create_task(producers.produce())
        yield producers
        producers.stop()
        await work
    finally:
        for task in filter(None, (work, recording)):
            task.cancel()
        await asyncio.wait([task for task in (work, recording) if task is not None])
        for engine in engines:
            await engine.dispose()


async def waits(owner: AsyncEngine) -> bool:
    async with owner.connect() as connection:
        return bool((await connection.execute(text(WAITING))).scalar_one())


async def whole(owner: AsyncEngine, stored: Mapping[UUID, int]) -> dict[UUID, list[Recorded]]:
    """Every event that was said to be stored is there, once and in order, and the chain holds."""
    logs = {}
    for run_id, count in stored.items():
        async with owner.connect() as connection:
            events = await events_of(connection, run_id)
            head = await log.head(connection, run_id)
        assert head is not None
        assert chain.verify(run_id, head.tenant_id, events, head.seq, head.chain).ok
        assert [event.fact().data["text"] for event in events[2:]] == [str(number) for number in range(count)]
        logs[run_id] = events
    return logs


async def test_appends_go_on_between_the_tries_and_the_migration_is_done_when_the_reader_ends(
    database_url: str, migrator: Engine, owner: AsyncEngine, redis: Redis, coming: str
) -> None:
    async with producing(database_url, owner, redis) as producers:
        with reading(database_url) as reader:
            migration = asyncio.create_task(asyncio.to_thread(schema.upgrade, migrator))
            for _ in range(3):
                await until(lambda: waits(owner))
                # It waits now, and every append behind it: they come to be stored while the reader still reads.
                await producers.moved()
                assert not migration.done(), await migration
            reader.rollback()
            assert await migration == (NEWEST, coming)
        await producers.moved()
    logs = await whole(owner, producers.stored)
    async with owner.connect() as connection:
        assert await connection.run_sync(schema.current) == coming
        remarks = text("SELECT seq, remark FROM runwire.event WHERE run_id = :run ORDER BY seq")
        for run_id, events in logs.items():
            told = [row.remark for row in await connection.execute(remarks, {"run": run_id})]
            assert told == sorted(told, key=lambda remark: remark is not None)  # one moment of change, no mixture
            assert (told[0], told[-1], len(told)) == (None, "after", len(events))


async def test_a_reader_that_never_ends_is_named_and_nothing_is_changed(
    database_url: str, migrator: Engine, owner: AsyncEngine, redis: Redis, coming: str
) -> None:
    before = shape(migrator)
    async with producing(database_url, owner, redis) as producers:
        with reading(database_url) as reader:
            with pytest.raises(SchemaError) as refused:
                await asyncio.gather(asyncio.to_thread(schema.upgrade, migrator, wait_s=2.0), producers.moved())
            pid = reader.info.backend_pid
            await producers.moved()
    told = rf"in 2 s process {pid} .user \w+, {READER}, idle in transaction, in a transaction for \d+ s. holds what"
    assert re.search(told, str(refused.value))
    assert f"pg_terminate_backend({pid})" in refused.value.hint
    assert "\n" not in str(refused.value) + refused.value.hint
    assert shape(migrator) == before
    await whole(owner, producers.stored)
    with migrator.connect() as connection:
        assert schema.current(connection) != coming


async def test_a_statement_that_works_too_long_is_given_up_with_all_that_was_done(
    migrator: Engine, owner: AsyncEngine, coming: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would hold its locks for as long as it works, and every append behind them."""
    (tmp_path / "coming.py").write_text(
        COMING + "    op.execute('SELECT count(*) FROM generate_series(1, 1000000000000)')\n"
    )
    monkeypatch.setattr(waiting, "STATEMENT_TIMEOUT_MS", 300)
    before = shape(migrator)
    with pytest.raises(SchemaError, match="as it was: a statement took longer than"):
        await asyncio.to_thread(schema.upgrade, migrator)
    assert shape(migrator) == before
    async with owner.connect() as connection:
        assert await connection.run_sync(schema.current) != coming


def test_the_command_says_in_one_line_who_is_in_the_way(services: Endpoints) -> None:
    url = new_database(services, "template0")
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain, application_name="another migrator") as other:
        other.execute("SELECT pg_advisory_xact_lock(%s)", [MIGRATION_LOCK])
        outcome = CliRunner().invoke(app, ["migrate", "--wait", "1"], env={"RUNWIRE_DATABASE_URL": url})
        pid = other.info.backend_pid
    fault = outcome.exception
    assert isinstance(fault, Complaint)
    assert fault.code == FAILED
    assert f"The database is as it was: in 1 s process {pid} (user " in str(fault)
    assert "another migrator" in str(fault)
    assert "\n" not in str(fault)
    assert CliRunner().invoke(app, ["migrate"], env={"RUNWIRE_DATABASE_URL": url}).exit_code == 0


def test_only_who_was_there_before_the_try_is_named() -> None:
    """An append in passing holds a lock for some milliseconds; it is not what a migration waits for."""
    passing, lasting = (waiting.Holder(pid, "u", "app", "active", age) for pid, age in ((1, 0.01), (2, 40.0)))
    hidden = waiting.Holder(3, "bob", None, None, None)
    assert [holder.pid for holder in (passing, lasting, hidden) if holder.lasting] == [2, 3]
    assert waiting.told([hidden]) == "process 3 (user bob) holds"
    assert waiting.told([lasting] * 5).endswith("and 2 more hold")
