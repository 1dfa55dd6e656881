"""Moved heads become blocks, blocks a log, the log a signed checkpoint outside: in this order, whatever is cut off."""

import asyncio
import os
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError

from eventstore import blocks, log, signing
from eventstore.checkpoints import Directory
from eventstore.domain import block, merkle, note
from eventstore.signing import ed25519_verifies
from ops.services import Endpoints
from tests.conftest import new_database
from tests.sealing import NAME, Desk, count, desk, feed
from tests.waiting import until
from tests.writing import append, batch, result, token


@pytest.fixture
def database_url(services: Endpoints, template: str) -> str:
    """A database for each test: a log is sealed from its beginning."""
    return new_database(services, template)


@pytest_asyncio.fixture(loop_scope="session")
async def d(database_url: str, tmp_path: Path) -> AsyncIterator[Desk]:
    async with desk(database_url, tmp_path) as made:
        yield made


class Cut(OSError):
    """The process ended here."""


class CutStore(Directory):
    """A folder whose writer is cut off at a place."""

    def __init__(self, folder: Path, at: str) -> None:
        super().__init__(folder)
        self.at = at

    def keep_blocks(self, blocks: Mapping[int, bytes]) -> None:
        if self.at == "before the blocks":
            raise Cut
        super().keep_blocks(blocks)
        if self.at == "after the blocks":
            raise Cut

    def publish(self, size: int, note: str) -> None:
        super().publish(size, note)
        if self.at == "after the note":
            raise Cut


async def test_moved_runs_become_a_block_and_a_signed_checkpoint_outside_and_inside(d: Desk) -> None:
    runs = sorted([await d.run("a"), await d.run("b", "c")])
    tick = await d.sealer().tick()
    assert (tick.leading, tick.blocks, tick.entries, tick.size, tick.signed, tick.fault) == (True, 1, 2, 1, 1, None)
    [step] = await feed(d)
    assert [each.run_id for each in step.ranges] == runs
    signed = d.store.latest()
    assert signed is not None
    checkpoint = d.keys().open(signed)
    async with d.api.connect() as connection:
        assert checkpoint == note.Checkpoint(await d.origin(), 1, (await blocks.peaks_at(connection, 1)).root())
        heads = [await log.head(connection, run) for run in runs]
    entries = [(each.last_seq, each.chain, each.closed, each.tenant_id) for each in step.ranges]
    assert entries == [(head.seq, head.chain, False, d.tenant) for head in heads if head is not None]
    assert await count(d, "checkpoint") == 1
    assert (await d.verify()).ok


async def test_an_idle_log_is_read_and_never_written(d: Desk) -> None:
    a, b = d.sealer("a"), d.sealer("b")
    states = "SELECT xmin::text FROM runwire.sealer UNION ALL SELECT count(*)::text FROM runwire.block"
    async with d.owner.connect() as connection:
        before = (await connection.execute(text(states))).all()
        for _ in range(3):
            assert not (await a.tick()).leading
        assert (await connection.execute(text(states))).all() == before
    await d.run("a")
    assert (await a.tick()).blocks == 1
    async with d.owner.connect() as connection:
        before = (await connection.execute(text(states))).all()
        for _ in range(3):
            assert (await a.tick()).blocks == 0
            assert not (await b.tick()).leading
        assert (await connection.execute(text(states))).all() == before


async def test_the_feed_gives_every_event_of_every_run_once_and_in_order(d: Desk) -> None:
    runs = [await d.run() for _ in range(5)]
    sealer = d.sealer(runs=2)
    for number in range(2, 8):
        for run in runs[: number % 5 + 1]:
            head = await _head(d, run)
            assert await d.add(run, head.seq, "x") in {"ok", "out_of_order"}
        await sealer.tick()
    steps = await feed(d)
    assert [step.block_no for step in steps] == list(range(1, len(steps) + 1))
    await _assert_the_feed_is_the_log(d, steps)


async def test_appends_go_on_while_blocks_are_made_and_all_of_it_ends_up_sealed(d: Desk) -> None:
    runs = [await d.run() for _ in range(12)]
    sealer, writing = d.sealer(runs=5), asyncio.Event()

    async def write(mine: list[UUID]) -> None:
        for number in range(2, 60):
            answers = await append(d.worker, *(batch(run, 1, number, token("x"), token("y")) for run in mine))
            assert {answer.verdict for answer in answers} == {"ok"}

    async def seal() -> int:
        made = 0
        while not writing.is_set():
            made += (await sealer.tick()).blocks
        return made

    sealing = asyncio.create_task(seal())
    await asyncio.gather(write(runs[:6]), write(runs[6:]))
    writing.set()
    assert await sealing > 10
    assert (await sealer.tick()).fault is None
    await _assert_the_feed_is_the_log(d, await feed(d, 50))
    report = await d.verify()
    assert report.ok, report.findings
    assert (report.unsealed, report.events) == (0, 12 * 118)


async def test_a_sealer_in_the_middle_of_its_block_holds_up_no_append_and_the_reverse(d: Desk) -> None:
    run = await d.run("a")
    async with d.sealers.connect() as sealer:
        async with d.worker.begin() as writer:
            await log.append(writer, [batch(run, 1, 2, token("b"))], 30.0)  # holds the head's lock, not committed
            tick = await d.sealer().tick()
            assert (tick.entries, (await feed(d))[0].ranges[0].last_seq) == (1, 3)  # what was committed before
        await sealer.exec_driver_sql("SELECT * FROM runwire.head")
        assert await d.add(run, 3, "c") == "ok"


async def test_an_append_that_commits_late_is_sealed_however_many_blocks_came_before_it(d: Desk) -> None:
    """What moved is looked for among rows that transactions from a horizon on have written; this one is behind it."""
    late, busy = await d.run("a"), await d.run("b")
    sealer = d.sealer()
    async with d.worker.begin() as writer:
        await log.append(writer, [batch(late, 1, 2, token("late"))], 30.0)
        for number in range(2, 6):
            await d.add(busy, number, "x")
            assert (await sealer.tick()).blocks == 1
            assert number == 5 or (await sealer.tick()).blocks == 0
    assert ((await sealer.tick()).entries, (await sealer.tick()).blocks) == (1, 0)
    await _assert_the_feed_is_the_log(d, await feed(d))


async def test_the_checkpoint_is_never_ahead_of_what_is_committed(d: Desk) -> None:
    """Before the note is made, another connection sees the block; before it is stored here, it is outside."""
    await d.run("a")
    seen: list[tuple[str, int, int]] = []
    engine = d.owner.sync_engine

    class Watching(CutStore):
        def keep_blocks(self, blocks: Mapping[int, bytes]) -> None:
            seen.append(("blocks", *_counts(url)))
            super().keep_blocks(blocks)

        def publish(self, size: int, note: str) -> None:
            seen.append(("note", *_counts(url)))
            super().publish(size, note)

    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    assert (await d.sealer(store=Watching(d.outside, "")).tick()).signed == 1
    assert seen == [("blocks", 1, 0), ("note", 1, 0)]
    assert await count(d, "checkpoint") == 1


@pytest.mark.parametrize("at", ["before the blocks", "after the blocks", "after the note"])
async def test_a_cut_between_the_block_and_its_checkpoint_is_taken_up_by_the_next_sealer(d: Desk, at: str) -> None:
    run = await d.run("a")
    tick = await d.sealer("a", store=CutStore(d.outside, at), lease_s=0.001).tick()
    assert (tick.blocks, tick.signed, tick.fault) == (1, 0, "unsigned")
    published = d.store.latest()
    assert (published is not None) == (at == "after the note")
    signing.rotate(d.key_file)  # a second signing of the same size would be another note
    await until(lambda: _lapsed(d))
    tick = await d.sealer("b").tick()
    assert (tick.blocks, tick.size, tick.signed, tick.fault) == (0, 1, 1, None)
    if published is not None:
        assert d.store.latest() == published  # found, not signed a second time
    assert await d.add(run, 2, "b") == "ok"
    assert (await d.verify()).ok
    assert await count(d, "checkpoint") == 1


async def test_a_folder_that_is_away_leaves_blocks_unsigned_and_the_next_checkpoint_covers_them(d: Desk) -> None:
    run, store = await d.run("a"), CutStore(d.outside, "before the blocks")
    sealer = d.sealer(store=store)
    for number in range(2, 5):
        tick = await sealer.tick()
        assert (tick.blocks, tick.signed, tick.fault) == (1, 0, "unsigned")
        assert await d.add(run, number, "x") == "ok"
    store.at = ""
    tick = await sealer.tick()
    assert (tick.size, tick.signed, tick.fault) == (4, 4, None)
    assert list(d.store.sizes()) == [4]
    assert all(d.store.block(number) is not None for number in range(1, 5))
    assert (await d.verify()).ok


async def test_a_crash_before_the_commit_leaves_nothing_and_the_next_tick_seals_it(d: Desk) -> None:
    run = await d.run("a")
    sealer = d.sealer()
    assert (await sealer.tick()).size == 1
    await d.add(run, 2, "b")
    async with d.owner.connect() as blocker:
        await blocker.exec_driver_sql("LOCK TABLE runwire.block IN SHARE MODE")  # it is read and cannot be added to
        with pytest.raises(OperationalError):
            await sealer.tick()
        await blocker.rollback()
    sealer.forget()
    assert (await count(d, "block"), list(d.store.sizes())) == (1, [1])
    async with d.owner.begin() as connection:
        await connection.execute(text("UPDATE runwire.sealer SET lease_until = NULL"))
    assert (await sealer.tick()).size == 2
    assert (await d.verify()).ok


async def test_one_sealer_leads_and_the_other_waits_until_its_lease_has_lapsed(d: Desk) -> None:
    run = await d.run("a")
    a, b = d.sealer("a", lease_s=30), d.sealer("b")
    assert (await a.tick()).leading
    await d.add(run, 2, "b")
    assert not (await b.tick()).leading
    assert (await a.tick()).blocks == 1
    async with d.owner.begin() as connection:
        await connection.execute(text("UPDATE runwire.sealer SET lease_until = clock_timestamp()"))
    await d.add(run, 3, "c")
    assert (await b.tick()).blocks == 1
    await d.add(run, 4, "d")
    assert (await a.tick()).blocks == 0  # fenced by the statement that would have stored
    assert (await b.tick()).blocks == 1
    assert not (await a.tick()).leading
    await _assert_the_feed_is_the_log(d, await feed(d))
    assert (await d.verify()).ok


@pytest.mark.parametrize("stopped_at", ["add_block", "keep_checkpoint"])
async def test_a_leader_that_slept_through_its_lease_can_store_nothing(d: Desk, stopped_at: str) -> None:
    run = await d.run("a")
    async with d.sealers.begin() as connection:
        epoch = (await connection.exec_driver_sql("SELECT runwire.lead('sleeper', 0)")).scalar_one()
    assert (await d.sealer("b").tick()).size == 1
    await d.add(run, 2, "b")
    async with d.sealers.begin() as connection:
        if stopped_at == "add_block":
            [(entries, first)] = await _moved(connection)
            header = block.new_block(2, 1, entries).encode()
            asked: tuple[Any, ...] = (epoch, 2, header, entries, first.to_bytes(4, "big"), bytes(32))
            answer = await connection.exec_driver_sql("SELECT runwire.add_block(%s, 5, %s, %s, %s, %s, %s)", asked)
        else:
            answer = await connection.exec_driver_sql("SELECT runwire.keep_checkpoint(%s, 1, 'x')", (epoch,))
        assert answer.scalar_one() == "fenced"
    assert (await count(d, "block"), await count(d, "checkpoint")) == (1, 1)


async def test_a_stopped_process_that_wakes_up_adds_nothing_and_two_processes_make_one_log(
    d: Desk, database_url: str, tmp_path: Path
) -> None:
    d.keys()
    environ = {
        **os.environ, "RUNWIRE_DATABASE_URL": database_url, "RUNWIRE_SEAL_KEY_FILE": str(d.key_file),
        "RUNWIRE_CHECKPOINT_DIR": str(tmp_path / "kept"), "RUNWIRE_SEAL_ORIGIN": NAME,
        "RUNWIRE_SEAL_TICK_S": "0.05", "RUNWIRE_SEAL_LEASE_S": "0.3",
    }  # fmt: skip
    argv = [sys.executable, "-P", "-m", "eventstore.sealing"]
    both = [_process(argv, environ) for _ in range(2)]
    try:
        run, number = await d.run("a"), 2

        async def leader() -> int | None:
            async with d.owner.connect() as connection:
                owner = (await connection.execute(text("SELECT owner FROM runwire.sealer"))).scalar_one()
            return None if owner is None else int(owner.rpartition("/")[2])

        async def more_than(size: int) -> None:
            async def there() -> bool:
                return await count(d, "checkpoint") > size

            await until(there)

        for _ in range(3):
            size = await count(d, "checkpoint")
            await d.add(run, number, "x")
            number += 1
            await more_than(size)
            stopped = await leader()
            assert stopped is not None
            os.kill(stopped, signal.SIGSTOP)
            await d.add(run, number, "y")
            number += 1
            await more_than(size + 1)
            assert await leader() != stopped
            os.kill(stopped, signal.SIGCONT)
        await d.add(run, number, "z")
        await until(lambda: _all_sealed(d))
    finally:
        for process in both:
            process.send_signal(signal.SIGCONT)
            process.terminate()
        told = [process.communicate(timeout=20)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    assert all("sealer ready" in each for each in told), told
    steps = await feed(d)
    await _assert_the_feed_is_the_log(d, steps)
    [place] = (tmp_path / "kept").iterdir()
    notes = [Directory(place).checkpoint(size) or "" for size in Directory(place).sizes()]
    report = await d.verify(notes)
    assert report.ok, report.findings
    assert len(report.checkpoints) > 3


class Meanwhile(Directory):
    """A folder that is slow enough for something else to happen whenever it is asked."""

    def __init__(self, folder: Path, happens: Callable[[], None]) -> None:
        super().__init__(folder)
        self._happens = happens

    def latest(self) -> str | None:
        self._happens()
        found = super().latest()
        self._happens()
        return found

    def block(self, block_no: int) -> bytes | None:
        self._happens()
        found = super().block(block_no)
        self._happens()
        return found


async def test_a_leader_at_work_is_no_fault_to_a_sealer_that_compares_at_the_same_time(d: Desk) -> None:
    run, leader, loop = await d.run("a"), d.sealer("a"), asyncio.get_running_loop()
    await leader.tick()
    number = 1

    async def more() -> None:
        nonlocal number
        number += 1
        if number < 40:
            assert await d.add(run, number, "x") == "ok"
            assert (await leader.tick()).signed == number

    other = d.sealer("b", store=Meanwhile(d.outside, lambda: asyncio.run_coroutine_threadsafe(more(), loop).result(9)))
    for _ in range(3):
        assert (await other.tick()).fault is None
        other.forget()
    assert number > 6


async def test_a_new_key_signs_and_the_old_one_cosigns_one_last_checkpoint(d: Desk) -> None:
    run, old = await d.run("a"), d.keys().public
    sealer = d.sealer()
    await sealer.tick()
    new = signing.rotate(d.key_file)
    with pytest.raises(signing.KeyFault, match="not cosigned"):
        signing.rotate(d.key_file)
    notes = []
    for number in range(2, 4):
        await d.add(run, number, "x")
        assert (await sealer.tick()).signed == number
        notes.append(d.store.latest() or "")
    signers = [note.open_note(each, [*old, new], ed25519_verifies)[1] for each in notes]
    assert signers == [[new, *old], [new]]
    assert len(d.keys().signing) == 1
    assert (await d.verify()).ok  # by both public keys, which stay


async def test_where_runs_were_sealed_is_read_again_from_the_blocks_when_it_is_gone(d: Desk) -> None:
    run, other = await d.run("a"), await d.run("b")
    await d.sealer("a", lease_s=0.001).tick()
    async with d.owner.begin() as connection:
        await connection.execute(text("TRUNCATE runwire.sealed"))
    await d.add(run, 2, "c")
    await until(lambda: _lapsed(d))
    assert (await d.sealer("b").tick()).blocks == 1
    steps = await feed(d)
    assert [(each.run_id, each.first_seq) for each in steps[1].ranges] == [(run, 4)]
    assert other in {each.run_id for each in steps[0].ranges}
    assert (await d.verify()).ok


async def test_a_runs_seal_is_proved_to_a_checkpoint_in_few_hashes(d: Desk) -> None:
    runs = [await d.run("a") for _ in range(9)]
    sealer = d.sealer(runs=4)
    await sealer.tick()
    [answer] = await append(d.worker, batch(runs[3], 1, 2, result()))
    assert answer.verdict == "ok"
    assert (await sealer.tick()).size == 4
    checkpoint = d.keys().open(d.store.latest() or "")
    async with d.api.connect() as connection:
        for run in runs:
            seal = await blocks.seal_of_run(connection, run, 4)
            assert seal is not None
            header = block.decode_header(seal.header)
            leaf = merkle.leaf_hash(seal.entry.encode())
            assert seal.entry.closed == (run == runs[3])
            assert merkle.verify_inclusion(leaf, seal.index, header.count, seal.path, header.root)
            place = header.block_no - 1
            assert merkle.verify_inclusion(merkle.leaf_hash(seal.header), place, 4, seal.log_path, checkpoint.root)
        assert await blocks.seal_of_run(connection, runs[3], 3) is None
        for old in range(1, 5):
            for new in range(old, 5):
                path = await blocks.consistency_proof(connection, old, new)
                roots = [(await blocks.peaks_at(connection, size)).root() for size in (old, new)]
                assert merkle.verify_consistency(old, new, path, *roots)


@pytest.mark.parametrize("role", ["api", "worker", "sealers"])
async def test_no_role_of_the_application_can_change_a_block_or_open_the_gate(d: Desk, role: str) -> None:
    await d.run("a")
    await d.sealer().tick()
    engine = getattr(d, role)
    statements = [
        f"{verb} runwire.{table}{rest}"
        for table in ("block", "checkpoint", "sealed", "sealer", "gate", "identity")
        for verb, rest in (("DELETE FROM", ""), ("TRUNCATE", ""), ("INSERT INTO", " DEFAULT VALUES"))
    ]
    statements += [
        "SELECT runwire.open_gate()",
        "SELECT runwire.lead_over('x', 1)",
        "SELECT runwire.put_block(2, '', '', NULL, '', '', true)",
        "SELECT runwire.pin(1, '', true)",
        "ALTER TABLE runwire.event DISABLE TRIGGER log_is_shut",
    ]
    if role != "sealers":
        statements += ["SELECT runwire.lead('x', 1)", "SELECT runwire.shut_gate('x')"]
    for statement in statements:
        async with engine.connect() as connection:
            with pytest.raises(DBAPIError) as caught:
                await connection.exec_driver_sql(statement)
            assert getattr(caught.value.orig, "sqlstate", None) == "42501", statement
    for table in ("block", "checkpoint", "identity"):
        for statement in (f"DELETE FROM runwire.{table}", f"TRUNCATE runwire.{table}"):
            async with d.owner.connect() as connection:
                with pytest.raises(DBAPIError, match="append-only"):
                    await connection.exec_driver_sql(statement)


async def test_ten_thousand_moved_heads_are_one_block(d: Desk) -> None:
    async with d.owner.begin() as connection:
        await connection.execute(
            text("""INSERT INTO runwire.head (run_id, tenant_id, status, seq, chain, recorded_us, handed_at)
                    SELECT gen_random_uuid(), :tenant, 'running', 1, sha256(n::text::bytea), 0, '-infinity'
                    FROM generate_series(1, 10000) n"""),
            {"tenant": d.tenant},
        )
    sealer = d.sealer(runs=20_000)
    for round_ in range(2):
        tick = await sealer.tick()
        assert (tick.blocks, tick.entries, tick.signed) == (1, 10_000, round_ + 1)
        async with d.owner.begin() as connection:
            await connection.execute(text("UPDATE runwire.head SET seq = seq + 1"))


async def _head(d: Desk, run: UUID) -> log.Head:
    async with d.api.connect() as connection:
        head = await log.head(connection, run)
    assert head is not None
    return head


async def _moved(connection: Any) -> list[Any]:
    found = await connection.exec_driver_sql(
        """SELECT uuid_send(run_id) || uuid_send(tenant_id) || int4send(seq) || chain || '\\x00'::bytea, seq
           FROM runwire.head"""
    )
    return list(found)


def _process(argv: list[str], environ: Mapping[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(argv, env=environ, stderr=subprocess.PIPE, text=True)


async def _lapsed(d: Desk) -> bool:
    async with d.owner.connect() as connection:
        return bool(
            (await connection.execute(text("SELECT lease_until <= clock_timestamp() FROM runwire.sealer"))).scalar_one()
        )


async def _all_sealed(d: Desk) -> bool:
    statement = """SELECT count(*) FROM runwire.head h LEFT JOIN runwire.sealed s USING (run_id)
                   WHERE s.seq IS DISTINCT FROM h.seq"""
    async with d.owner.connect() as connection:
        return bool((await connection.execute(text(statement))).scalar_one() == 0)


def _counts(url: str) -> tuple[int, int]:
    """As another connection sees it: blocks and checkpoints."""
    program = """import psycopg, sys
with psycopg.connect(sys.argv[1]) as c:
    print(*(c.execute("SELECT count(*) FROM runwire." + t).fetchone()[0] for t in ("block", "checkpoint")))
"""
    told = subprocess.run([sys.executable, "-c", program, url], capture_output=True, text=True, check=True).stdout
    first, second = told.split()
    return int(first), int(second)


async def _assert_the_feed_is_the_log(d: Desk, steps: list[blocks.Step]) -> None:
    assert [step.block_no for step in steps] == list(range(1, len(steps) + 1))
    given: dict[UUID, list[int]] = defaultdict(list)
    for step in steps:
        for each in step.ranges:
            given[each.run_id] += range(each.first_seq, each.last_seq + 1)
    async with d.api.connect() as connection:
        stored = (await connection.execute(text("SELECT run_id, count(*) FROM runwire.event GROUP BY run_id"))).all()
    assert given == {run: list(range(1, number + 1)) for run, number in stored}
