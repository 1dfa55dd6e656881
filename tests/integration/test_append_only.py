"""Nobody changes the log: not by grant, not by trigger, not as its owner; and every door is the one that was meant."""

import asyncio
import datetime
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final
from uuid import UUID

import psycopg
import pytest
import pytest_asyncio
import uuid_utils.compat
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from eventstore import catalogue, log
from eventstore.domain import chain
from eventstore.domain.events import CancelRequested, Person, new_event
from eventstore.domain.record import Recorded
from eventstore.sql import rows
from tests import second_opinion
from tests.writing import (
    NOW_US,
    accepted,
    append,
    batch,
    claim,
    events_of,
    new_tenant,
    open_run,
    running,
    started,
    token,
)

DENIED: Final = "42501"
TABLES: Final = ["event", "partition", "input"]
CHANGES: Final[Mapping[str, Mapping[str, str]]] = {
    "event": {
        "update": "UPDATE runwire.event SET body = '\\x00' WHERE seq = 1",
        "delete": "DELETE FROM runwire.event WHERE seq = 1",
        "truncate": "TRUNCATE runwire.event",
        "truncate cascade": "TRUNCATE runwire.event CASCADE",
        "upsert": """INSERT INTO runwire.event SELECT * FROM runwire.event WHERE seq = 1 LIMIT 1
                     ON CONFLICT (run_id, seq) DO UPDATE SET body = '\\x00'""",
        "merge": """MERGE INTO runwire.event e USING runwire.head h ON e.run_id = h.run_id
                    WHEN MATCHED THEN UPDATE SET body = '\\x00'""",
    },
    "input": {
        "update": "UPDATE runwire.input SET body = '\\x00'",
        "delete": "DELETE FROM runwire.input",
        "truncate": "TRUNCATE runwire.input",
    },
}
INSERTS: Final = {
    "event": "INSERT INTO runwire.event SELECT * FROM runwire.event LIMIT 1",
    "input": "INSERT INTO runwire.input SELECT * FROM runwire.input LIMIT 1",
    "head": "INSERT INTO runwire.head SELECT * FROM runwire.head LIMIT 1",
    "run": "INSERT INTO runwire.run SELECT * FROM runwire.run LIMIT 1",
    "transition": "INSERT INTO runwire.transition VALUES ('completed', 'token', 'completed', 'worker')",
    "a head's update": "UPDATE runwire.head SET seq = 0",
    "a head's delete": "DELETE FROM runwire.head",
}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def run_id(owner_engine: AsyncEngine, api_engine: AsyncEngine, worker_engine: AsyncEngine) -> UUID:
    """A run with events, so that a change that is let through would change something."""
    return await running(api_engine, worker_engine, await new_tenant(owner_engine), token("a"))


async def partitions(engine: AsyncEngine) -> list[str]:
    """The names of the log's partitions, all of them, oldest first."""
    statement = (
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'runwire.event'::regclass ORDER BY 1"
    )
    async with engine.connect() as connection:
        return [row[0] for row in await connection.execute(text(statement))]


async def partition_of(engine: AsyncEngine, run: UUID) -> str:
    async with engine.connect() as connection:
        found = await connection.execute(
            text("SELECT tableoid::regclass::text FROM runwire.event WHERE run_id = :run LIMIT 1"), {"run": run}
        )
        return str(found.scalar_one())


async def refused(connection: AsyncConnection, statement: str) -> str:
    """Say it, expect a refusal, and answer the words of it."""
    with pytest.raises(DBAPIError) as caught:
        await connection.exec_driver_sql(statement)
    fault = caught.value.orig
    assert isinstance(fault, psycopg.Error)
    assert fault.sqlstate == DENIED, fault
    return str(fault)


@asynccontextmanager
async def acting_as(who: str, engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    async with engine.connect() as connection:
        if who == "owner":
            await connection.exec_driver_sql("SET ROLE runwire_owner")
        elif who == "replica":
            await connection.exec_driver_sql("SET session_replication_role = replica")
        yield connection
        await connection.rollback()
        await connection.invalidate()


@pytest.mark.parametrize("statement", CHANGES["event"])
@pytest.mark.parametrize("who", ["owner", "superuser", "replica"])
async def test_even_who_may_everything_is_refused_to_change_an_event(
    owner_engine: AsyncEngine, run_id: UUID, who: str, statement: str
) -> None:
    partition = await partition_of(owner_engine, run_id)
    for target in ("runwire.event", partition):
        async with acting_as(who, owner_engine) as connection:
            said = await refused(connection, CHANGES["event"][statement].replace("runwire.event", target))
            assert "append-only" in said


@pytest.mark.parametrize("statement", CHANGES["input"])
@pytest.mark.parametrize("who", ["owner", "superuser", "replica"])
async def test_even_who_may_everything_is_refused_to_change_an_input(
    owner_engine: AsyncEngine, run_id: UUID, who: str, statement: str
) -> None:
    async with acting_as(who, owner_engine) as connection:
        assert "append-only" in await refused(connection, CHANGES["input"][statement])


@pytest.mark.parametrize("role", ["worker", "api"])
async def test_the_applications_roles_may_write_no_table_past_the_functions(
    owner_engine: AsyncEngine, worker_engine: AsyncEngine, api_engine: AsyncEngine, run_id: UUID, role: str
) -> None:
    engine = worker_engine if role == "worker" else api_engine
    partition = await partition_of(owner_engine, run_id)
    statements = [*CHANGES["event"].values(), *CHANGES["input"].values(), *INSERTS.values()]
    statements += [statement.replace("runwire.event", partition) for statement in CHANGES["event"].values()]
    statements += [INSERTS["event"].replace("runwire.event", partition), f"DROP TABLE {partition}"]
    statements += [
        "ALTER TABLE runwire.event DISABLE TRIGGER refuse_change",
        f"ALTER TABLE runwire.event DETACH PARTITION {partition}",
        "CREATE TABLE runwire.mine (a integer)",
        "DROP FUNCTION runwire.refuse_change() CASCADE",
        "SET session_replication_role = replica",
    ]
    for statement in statements:
        async with engine.connect() as connection:
            await refused(connection, statement)


async def test_what_the_refusals_left_is_the_whole_log(
    owner_engine: AsyncEngine, api_engine: AsyncEngine, run_id: UUID
) -> None:
    async with api_engine.connect() as connection:
        events = await events_of(connection, run_id)
        head = await log.head(connection, run_id)
    assert head is not None
    assert chain.verify(run_id, head.tenant_id, events, head.seq, head.chain).ok


async def test_every_table_of_the_log_has_its_triggers_and_they_always_fire(owner_engine: AsyncEngine) -> None:
    async with owner_engine.connect() as connection:
        found = await connection.execute(
            text("SELECT tgrelid::regclass::text, tgname, tgenabled FROM pg_trigger WHERE tgname LIKE 'refuse%'")
        )
        triggers = {(table, name): enabled for table, name, enabled in found}
    sealed = [f"runwire.{name}" for name in ("block", "block_set_aside", "checkpoint", "identity", "mismatch")]
    tables = ["runwire.event", "runwire.input", *sealed, *await partitions(owner_engine)]
    assert len(tables) > 6
    assert triggers == {(table, name): "A" for table in tables for name in ("refuse_change", "refuse_truncate")}


async def test_roles_hold_exactly_the_rights_that_were_meant(owner_engine: AsyncEngine) -> None:
    async with owner_engine.connect() as connection:
        held = await connection.execute(
            text(
                """SELECT c.relname, r.role, p.word
                   FROM pg_class c, unnest(ARRAY['runwire_worker', 'runwire_api', 'runwire_sealer', 'public']) r (role),
                        unnest(ARRAY['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) p (word)
                   WHERE c.relnamespace = 'runwire'::regnamespace AND c.relkind IN ('r', 'p')
                     AND has_table_privilege(r.role, c.oid, p.word)"""
            )
        )
        writes = {tuple(row) for row in held}
        allowed = await connection.execute(
            text(
                """SELECT p.proname, r.role
                   FROM pg_proc p, unnest(ARRAY['runwire_worker', 'runwire_api', 'runwire_sealer', 'public']) r (role)
                   WHERE p.pronamespace = 'runwire'::regnamespace
                     AND has_function_privilege(r.role, p.oid, 'EXECUTE')"""
            )
        )
        calls = {tuple(row) for row in allowed}
        login = await connection.execute(
            text(
                """SELECT rolname FROM pg_roles
                   WHERE rolname LIKE 'runwire%' AND (rolcanlogin OR rolsuper OR rolbypassrls)"""
            )
        )
        assert login.all() == []
    assert writes == {
        ("workflow", "runwire_worker", "INSERT"),
        ("workflow", "runwire_worker", "UPDATE"),
        ("followed", "runwire_sealer", "UPDATE"),
        ("mismatch", "runwire_sealer", "INSERT"),
    }
    assert calls == {
        *(
            (name, "runwire_worker")
            for name in (
                "append",
                "claim",
                "release",
                "suspend",
                "lapse",
                "forgotten",
                "take",
                "tend",
                "move_on",
                "ensure_partitions",
            )
        ),
        *((name, "runwire_worker") for name in ("unread", "abandon")),
        ("open_child", "runwire_worker"),
        ("stop_child", "runwire_worker"),
        *((name, "runwire_api") for name in ("open_run", "control", "places", "ensure_partitions")),
        *((name, "runwire_api") for name in ("expect_readers", "report_readers")),
        *(
            (name, "runwire_sealer")
            for name in (
                "lead",
                "add_block",
                "keep_checkpoint",
                "rebuild_sealed",
                "shut_gate",
                "rest_heads",
                "wake_heads",
            )
        ),
    }


async def test_neither_process_may_play_the_other(
    worker_engine: AsyncEngine, api_engine: AsyncEngine, owner_engine: AsyncEngine, run_id: UUID
) -> None:
    async def denied(attempt: Any) -> None:
        with pytest.raises(DBAPIError) as caught:
            await attempt
        assert isinstance(caught.value.orig, psycopg.errors.InsufficientPrivilege)

    await denied(append(api_engine, batch(run_id, 1, 2, token("x"))))
    await denied(claim(api_engine, run_id))
    await denied(open_run(worker_engine, await new_tenant(owner_engine)))
    async with worker_engine.connect() as connection:
        await denied(log.control(connection, run_id, new_event(accepted(), NOW_US)))
    async with api_engine.connect() as connection:  # and the API may not invent a worker's event as a control event
        await denied(log.control(connection, run_id, new_event(token("x"), NOW_US)))
    async with worker_engine.connect() as connection:
        await refused(connection, "SELECT * FROM runwire.api_key")


async def test_partitions_are_made_ahead_once_by_whoever_asks(
    worker_engine: AsyncEngine, api_engine: AsyncEngine, owner_engine: AsyncEngine
) -> None:
    async def ensure(engine: AsyncEngine, weeks: int) -> int:
        async with engine.begin() as connection:
            return int(
                (await connection.exec_driver_sql("SELECT runwire.ensure_partitions(%s)", (weeks,))).scalar_one()
            )

    async with worker_engine.begin() as connection:
        assert await log.ensure_partitions(connection) == 0
    before = await partitions(owner_engine)
    made = await asyncio.gather(*(ensure(engine, 8) for engine in [worker_engine, api_engine] * 3))
    after = await partitions(owner_engine)
    assert sum(made) == len(after) - len(before) == 4
    assert await ensure(worker_engine, 8) == 0
    await test_every_table_of_the_log_has_its_triggers_and_they_always_fire(owner_engine)
    await test_roles_hold_exactly_the_rights_that_were_meant(owner_engine)


async def test_new_partitions_wait_for_no_reader_and_stop_no_writer(
    worker_engine: AsyncEngine, api_engine: AsyncEngine, owner_engine: AsyncEngine, run_id: UUID
) -> None:
    async with owner_engine.connect() as reader, worker_engine.connect() as maker:
        await reader.exec_driver_sql("SELECT count(*) FROM runwire.event")  # and stays in its transaction
        made = (await maker.exec_driver_sql("SELECT runwire.ensure_partitions(10)")).scalar_one()
        assert made == 2
        [answer] = await append(worker_engine, batch(run_id, 1, 2, token("b")))  # before the maker has committed
        assert answer.verdict == "ok"
        await maker.rollback()


@pytest.mark.parametrize(
    ("offset_s", "verdict"), [(-301, "out_of_range"), (-290, "ok"), (0, "ok"), (290, "ok"), (301, "out_of_range")]
)
async def test_a_run_id_from_another_time_is_refused(
    api_engine: AsyncEngine, owner_engine: AsyncEngine, offset_s: int, verdict: str
) -> None:
    tenant = await new_tenant(owner_engine)
    async with owner_engine.connect() as connection:
        now: datetime.datetime = (await connection.exec_driver_sql("SELECT clock_timestamp()")).scalar_one()
    at_ms = int((now.timestamp() + offset_s) * 1000)
    run = UUID(int=(at_ms << 80) | (uuid_utils.compat.uuid7().int & ((1 << 80) - 1)))
    submission = catalogue.Submission(
        run, tenant, "ada", "contract_review", "t", None, b"", b"{}", new_event(accepted(), NOW_US)
    )
    async with api_engine.begin() as connection:
        assert (await catalogue.open_run(connection, submission)).verdict == verdict
        assert (await catalogue.find_run(connection, tenant, run) is not None) == (verdict == "ok")


async def test_two_groups_over_the_same_runs_in_opposite_order_do_not_deadlock(
    api_engine: AsyncEngine, worker_engine: AsyncEngine, owner_engine: AsyncEngine
) -> None:
    tenant = await new_tenant(owner_engine)
    runs = [await running(api_engine, worker_engine, tenant) for _ in range(20)]

    async def beats(order: list[UUID]) -> None:
        for _ in range(40):
            answers = await append(worker_engine, *(batch(run, 1, 0) for run in order))
            assert {answer.verdict for answer in answers} == {"ok"}

    await asyncio.gather(beats(runs), beats(runs[::-1]), beats(runs), beats(runs[::-1]))


async def test_no_reader_ever_sees_a_gap_while_others_write(
    api_engine: AsyncEngine, worker_engine: AsyncEngine, owner_engine: AsyncEngine
) -> None:
    tenant = await new_tenant(owner_engine)
    runs = [await running(api_engine, worker_engine, tenant) for _ in range(6)]
    rounds, size = 25, 3
    end = 2 + rounds * size

    async def write(mine: list[UUID]) -> None:
        for number in range(2, 2 + rounds):
            bodies = [token(f"{number}.{n}") for n in range(size)]
            await append(worker_engine, *(batch(run, 1, number, *bodies) for run in mine))

    def follow(seen: dict[UUID, int], pages: Mapping[UUID, list[Recorded]]) -> None:
        for run, events in pages.items():
            assert [event.seq for event in events] == list(range(seen[run] + 1, seen[run] + 1 + len(events)))
            seen[run] += len(events)

    async def read_one_by_one() -> None:
        seen = dict.fromkeys(runs, 0)
        while min(seen.values()) < end:
            for run in runs:
                async with api_engine.connect() as connection:
                    follow(seen, {run: (await log.read_after(connection, run, seen[run], 7)).events})

    async def read_together() -> None:
        seen = dict.fromkeys(runs, 0)
        while min(seen.values()) < end:
            async with api_engine.connect() as connection:
                pages = await log.read_many(connection, seen, 5)
                follow(seen, {run: page.events for run, page in pages.items()})

    async with asyncio.timeout(30):
        await asyncio.gather(write(runs[:3]), write(runs[3:]), read_one_by_one(), read_together(), read_together())


@pytest.mark.parametrize("counts", [[2, -1, 1], [-1, 2, 0], [None, 1, 0], [1, 1, 1]])
async def test_counts_that_do_not_fit_are_refused_whole_and_leave_no_gap(
    api_engine: AsyncEngine, worker_engine: AsyncEngine, owner_engine: AsyncEngine, counts: list[int | None]
) -> None:
    tenant = await new_tenant(owner_engine)
    runs = [await running(api_engine, worker_engine, tenant) for _ in range(3)]
    events = [new_event(token("x"), NOW_US)] * 2
    with pytest.raises(DBAPIError):
        async with worker_engine.begin() as connection:
            await rows(
                connection,
                "append",
                {
                    "runs": runs,
                    "epochs": [1] * 3,
                    "batches": [2] * 3,
                    "counts": counts,
                    "lease_s": 1.0,
                    "types": [e.type for e in events],
                    "versions": [1] * 2,
                    "occurred": [1] * 2,
                    "encodings": [0] * 2,
                    "keys": [None] * 2,
                    "bodies": [e.body for e in events],
                },
            )
    async with api_engine.connect() as connection:
        for run in runs:
            assert len(await events_of(connection, run)) == 2


async def test_the_databases_chain_is_the_domains_for_every_kind_of_value(owner_engine: AsyncEngine) -> None:
    run, tenant, key = uuid_utils.compat.uuid7(), uuid_utils.compat.uuid7(), uuid_utils.compat.uuid7()
    rows_ = [
        Recorded(run, 1, 0, "accepted", 1, NOW_US, NOW_US + 1, 0, None, b"{}", b""),
        Recorded(run, 2**31 - 1, 2**31 - 1, "tøken", 2**15 - 1, 2**62, 2**62, 2**15 - 1, key, bytes(range(256)), b""),
        Recorded(run, -1, -5, "", -3, -1, -(2**63), -2, None, b"", b""),
    ]
    async with owner_engine.connect() as connection:
        genesis = await connection.exec_driver_sql("SELECT runwire.genesis(%s, %s)", (run, tenant))
        before = bytes(genesis.scalar_one())
        assert before == chain.genesis(run, tenant)
        for row in rows_:
            told = await connection.exec_driver_sql(
                """SELECT runwire.link(%s, %s::integer, 1, %s::integer, %s::bigint,
                                       runwire.listing(%s::smallint, %s, %s::smallint, %s::uuid, %s::bigint, %s))""",
                (
                    before,
                    row.seq,
                    row.epoch,
                    row.recorded_us,
                    row.version,
                    row.type,
                    row.encoding,
                    row.key_id,
                    row.occurred_us,
                    row.body,
                ),
            )
            assert bytes(told.scalar_one()) == chain.link(before, [row])
            before = chain.link(before, [row])


async def test_what_append_and_control_chain_is_the_domains_chain_with_keys_and_all_extremes(
    api_engine: AsyncEngine, worker_engine: AsyncEngine, owner_engine: AsyncEngine
) -> None:
    run = await running(api_engine, worker_engine, await new_tenant(owner_engine))
    keys = [None, uuid_utils.compat.uuid7(), None]
    listed = [
        Recorded(run, 3, 1, "token", 1, 0, 0, 0, None, b"", b""),
        Recorded(run, 4, 1, "reasoning", 2**15 - 1, 2**63 - 1, 0, 2**15 - 1, keys[1], bytes(range(256)), b""),
        Recorded(run, 5, 1, "token", -1, -(2**63), 0, -1, None, "é".encode(), b""),
    ]
    async with worker_engine.begin() as connection:
        await rows(
            connection,
            "append",
            {
                "runs": [run], "epochs": [1], "batches": [2], "counts": [3], "lease_s": 1.0, "keys": keys,
                "listings": [second_opinion.listing([chain.item(event) for event in listed])],
                "types": [event.type for event in listed], "versions": [event.version for event in listed],
                "occurred": [event.occurred_us for event in listed], "encodings": [event.encoding for event in listed],
                "bodies": [event.body for event in listed],
            },
        )  # fmt: skip
    async with api_engine.begin() as connection:
        asked = CancelRequested(by=Person(subject="ada", role="user"), reason="é")
        assert (await log.control(connection, run, new_event(asked, -1))).verdict == "ok"
        events = await events_of(connection, run)
        head = await log.head(connection, run)
    assert head is not None
    assert [event.key_id for event in events[2:5]] == keys
    assert chain.verify(run, head.tenant_id, events, head.seq, head.chain) == chain.Verification(True, 6, head.chain)


async def test_an_edit_past_the_triggers_is_found_by_the_chain(
    owner_engine: AsyncEngine, api_engine: AsyncEngine, worker_engine: AsyncEngine
) -> None:
    run = await running(api_engine, worker_engine, await new_tenant(owner_engine), token("a"), token("b"))
    async with owner_engine.connect() as connection:
        head = await log.head(connection, run)
        assert head is not None
        for change, fault_seq in (
            ("UPDATE runwire.event SET body = '{}' WHERE run_id = %s AND seq = 3", 2),
            ("UPDATE runwire.event SET version = -1 WHERE run_id = %s AND seq = 2", 2),
            ("DELETE FROM runwire.event WHERE run_id = %s AND seq = 3", 4),
            ("UPDATE runwire.event SET recorded_us = recorded_us + 1 WHERE run_id = %s AND seq = 3", 3),
            ("UPDATE runwire.event SET epoch = 7 WHERE run_id = %s AND seq = 4", 4),
            ("UPDATE runwire.event SET chain = sha256('') WHERE run_id = %s AND seq = 3", 2),
            ("DELETE FROM runwire.event WHERE run_id = %s AND seq = 4", 2),
            ("UPDATE runwire.event SET type = repeat('x', 70000) WHERE run_id = %s AND seq = 1", 1),
        ):
            await connection.exec_driver_sql("ALTER TABLE runwire.event DISABLE TRIGGER refuse_change")
            await connection.exec_driver_sql(change, (run,))
            events = await events_of(connection, run)
            found = chain.verify(run, head.tenant_id, events, head.seq, head.chain)
            assert (found.ok, found.fault_seq) == (False, fault_seq)
            await connection.rollback()
        assert (await claim(worker_engine, run)).verdict == "held"
        [answer] = await append(worker_engine, batch(run, 1, 2, started(2)))
        assert answer.verdict == "ok"
