"""A tick is bounded: a backlog goes in pages, ended runs are not looked at again, a new key signs although idle."""

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from eventstore import blocks, log, signing
from eventstore.checkpoints import Directory
from eventstore.domain import block, note
from eventstore.seal import BLOCKS_PER_TICK, COPIES_PER_TICK, FIRST
from eventstore.signing import ed25519_verifies
from eventstore.sql import STATEMENTS
from ops.services import Endpoints
from tests.conftest import new_database
from tests.sealing import Desk, count, desk, feed
from tests.writing import append, batch, result, token


@pytest.fixture
def database_url(services: Endpoints, template: str) -> str:
    """A database for each test: a log is sealed from its beginning."""
    return new_database(services, template)


@pytest_asyncio.fixture(loop_scope="session")
async def d(database_url: str, tmp_path: Path) -> AsyncIterator[Desk]:
    async with desk(database_url, tmp_path) as made:
        yield made


async def heads(d: Desk, number: int, status: str = "running") -> None:
    """Heads without their events, in the order of their ids."""
    async with d.owner.begin() as connection:
        await connection.execute(
            text("""INSERT INTO runwire.head (run_id, tenant_id, status, seq, chain, recorded_us, handed_at)
                    SELECT lpad(to_hex(n), 32, '0')::uuid, :tenant, :status, 3, sha256(n::text::bytea), 0, '-infinity'
                    FROM generate_series(1, :number) n"""),
            {"tenant": d.tenant, "status": status, "number": number},
        )
    async with d.owner.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        await connection.exec_driver_sql("VACUUM ANALYZE runwire.head")


async def touched(connection: AsyncConnection, name: str, asked: dict[str, Any], table: str = "head") -> int:
    """How many rows of a table this statement looked at."""
    found = await connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {STATEMENTS[name]}", asked)
    raw = found.scalar_one()
    [told] = raw if isinstance(raw, list) else json.loads(raw)
    scans = [node for node in _nodes(told["Plan"]) if node.get("Relation Name") == table]
    assert scans
    return sum(round(n["Actual Rows"] * n["Actual Loops"]) + n.get("Rows Removed by Filter", 0) for n in scans)


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)


class InTheWay(Directory):
    """A folder that takes no blocks at first."""

    refuses = True

    def keep_blocks(self, blocks: Mapping[int, bytes]) -> None:
        if self.refuses:
            raise OSError("the disk is full")
        super().keep_blocks(blocks)


async def test_a_log_that_was_never_sealed_is_gone_through_in_bounded_ticks_that_are_signed(d: Desk) -> None:
    each_tick = BLOCKS_PER_TICK * 20
    await heads(d, 2 * each_tick + 30)
    sealer = d.sealer(runs=20)
    for number in (1, 2):
        tick = await sealer.tick()
        assert (tick.blocks, tick.entries, tick.more, tick.fault) == (BLOCKS_PER_TICK, each_tick, True, None)
        assert tick.signed == tick.size == number * BLOCKS_PER_TICK
        async with d.owner.begin() as connection:  # behind the page that was read last
            await connection.execute(text("UPDATE runwire.head SET seq = 4 WHERE run_id <= :last"), {"last": run(3)})
    tick = await sealer.tick()
    assert (tick.entries, tick.more) == (30, False)
    assert (await sealer.tick()).entries == 3  # what had moved behind the pages
    assert (await sealer.tick()).blocks == 0
    ranges = [(each.run_id, each.first_seq, each.last_seq) for step in await feed(d) for each in step.ranges]
    assert sorted(ranges) == sorted(
        [(run(n), 1, 3) for n in range(1, 2 * each_tick + 31)] + [(run(n), 4, 4) for n in range(1, 4)]
    )


async def test_a_page_of_a_large_backlog_reads_that_page_and_not_all_heads(d: Desk) -> None:
    await heads(d, 20_000)
    async with d.sealers.connect() as connection:
        for after in (FIRST, run(10_000)):
            assert await touched(connection, "seal_backlog", {"limit": 500, "after": after}) <= 501
    sealer = d.sealer(runs=500)
    await sealer.tick()
    async with d.owner.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        await connection.exec_driver_sql("VACUUM ANALYZE runwire.sealed")
    async with d.sealers.connect() as connection:
        asked = {"limit": 500, "after": run(500 * BLOCKS_PER_TICK)}
        assert await touched(connection, "seal_backlog", asked) <= 501
        assert await touched(connection, "seal_backlog", asked, "sealed") <= 500


async def test_heads_of_ended_and_sealed_runs_are_not_looked_at_again(d: Desk) -> None:
    await heads(d, 5_000, "completed")
    live = await d.run("a")
    sealer = d.sealer(runs=1_000)
    while (await sealer.tick()).more:
        pass
    for _ in range(6):  # they come to rest some at a time
        await sealer.tick()
    [ended] = [await d.run("b")]
    await append(d.worker, batch(ended, 1, 2, result()))
    assert (await sealer.tick()).entries == 1
    await _analyze(d)
    async with d.sealers.connect() as connection:
        horizon = await connection.exec_driver_sql("SELECT (pg_snapshot_xmin(pg_current_snapshot())::xid)::text")
        assert await touched(connection, "seal_moved", {"limit": 10, "horizon": horizon.scalar_one()}) == 1
        assert await touched(connection, "seal_backlog", {"limit": 10, "after": FIRST}) == 1
    assert await _resting(d) == 5_001
    assert await d.add(live, 2, "goes on") == "ok"
    assert (await sealer.tick()).entries == 1
    [answer] = await append(d.worker, batch(ended, 1, 3, token("late")))
    assert answer.verdict == "closed"


async def test_an_end_that_is_not_sealed_does_not_rest_and_a_held_head_is_not_waited_for(d: Desk) -> None:
    sealed, unsealed, held = await d.run("a"), await d.run("b"), await d.run("c")
    await append(d.worker, batch(sealed, 1, 2, result()), batch(held, 1, 2, result()))
    sealer = d.sealer()
    async with d.owner.begin() as connection:
        await connection.execute(text("SELECT FROM runwire.head WHERE run_id = :run FOR UPDATE"), {"run": held})
        assert (await sealer.tick()).entries == 3
        assert await _resting(d) == 1
    await append(d.worker, batch(unsealed, 1, 2, result()))
    async with d.sealers.begin() as connection:
        await connection.exec_driver_sql("SELECT runwire.rest_heads(100)")
    assert await _resting(d) == 2  # the one that was held; the end that came since is not in a block
    await sealer.tick()
    assert await _resting(d) == 3


async def test_a_head_that_rests_although_its_run_goes_on_is_woken_by_the_next_leader(d: Desk) -> None:
    await d.run("a")
    async with d.owner.begin() as connection:
        await connection.exec_driver_sql("UPDATE runwire.head SET resting = true")
    tick = await d.sealer().tick()
    if not tick.leading:  # an idle log is led by nobody, so something has to move
        await d.run("b")
        tick = await d.sealer().tick()
    assert tick.entries == 2
    assert await _resting(d) == 0


async def test_an_append_changes_no_index_of_a_head(d: Desk) -> None:
    runs = [await d.run("a") for _ in range(5)]
    counted = "SELECT pg_stat_get_xact_tuples_updated(c), pg_stat_get_xact_tuples_hot_updated(c) "
    async with d.owner.connect() as connection:
        await log.append(connection, [batch(each, 1, 2, token("b")) for each in runs], 30.0)
        told = await connection.exec_driver_sql(f"{counted} FROM (SELECT 'runwire.head'::regclass::oid c) t")
        assert tuple(told.one()) == (5, 5)


async def test_many_unsigned_blocks_are_copied_outside_some_in_each_tick(d: Desk) -> None:
    """As after a long outage: the ticks stay short, and the checkpoint comes when all of it is there."""
    await heads(d, COPIES_PER_TICK + 5)
    store = InTheWay(d.outside)
    sealer = d.sealer(store=store, runs=1)
    while (await sealer.tick()).more:
        pass
    assert await count(d, "block") == COPIES_PER_TICK + 5
    store.refuses = False
    assert (await sealer.tick()).fault == "unsigned"
    assert d.store.latest() is None
    assert (d.store.block(COPIES_PER_TICK) is not None, d.store.block(COPIES_PER_TICK + 1)) == (True, None)
    tick = await sealer.tick()
    assert (tick.signed, tick.fault) == (COPIES_PER_TICK + 5, None)


@pytest.mark.parametrize("leader", ["the same", "another"])
async def test_a_new_key_signs_at_once_on_a_log_on_which_nothing_moves(d: Desk, leader: str) -> None:
    await d.run("a")
    sealer = d.sealer("a", lease_s=30 if leader == "the same" else 0.001)
    assert (await sealer.tick()).signed == 1
    old = d.keys().public
    new = signing.rotate(d.key_file)
    if leader == "another":
        async with d.owner.begin() as connection:
            await connection.execute(text("UPDATE runwire.sealer SET lease_until = clock_timestamp()"))
        sealer = d.sealer("b")
    tick = await sealer.tick()
    assert (tick.blocks, tick.entries, tick.signed, tick.fault) == (1, 0, 2, None)
    signers = note.open_note(d.store.latest() or "", [*old, new], ed25519_verifies)[1]
    assert signers == [new, *old]
    assert [key.public for key in d.keys().signing] == [new]
    for _ in range(2):
        assert (await sealer.tick()).blocks == 0  # once
    async with d.owner.connect() as connection:
        [_, stored] = await blocks.page(connection, 0, 5)
    assert (stored.decoded().kind, stored.decoded().count) == (block.Kind.BLOCK, 0)
    assert (await feed(d))[1].ranges == ()
    report = await d.verify()
    assert report.ok, report.findings


def run(number: int) -> UUID:
    return UUID(int=number)


async def _resting(d: Desk) -> int:
    async with d.owner.connect() as connection:
        return int((await connection.exec_driver_sql("SELECT count(*) FROM runwire.head WHERE resting")).scalar_one())


async def _analyze(d: Desk) -> None:
    async with d.owner.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        await connection.exec_driver_sql("VACUUM ANALYZE runwire.head")
