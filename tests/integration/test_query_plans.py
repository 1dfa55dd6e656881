"""The statements of the hot paths reach their rows through an index, and touch the one partition that holds them."""

import random
from collections.abc import AsyncIterator, Iterator, Mapping
from itertools import chain
from typing import Any
from uuid import UUID

import psycopg
import pytest
import pytest_asyncio
from psycopg import sql
from sqlalchemy.engine import make_url

from eventstore.database import SESSION
from eventstore.log import PAGE_BYTES_MAX, PAGE_EVENTS_MAX
from eventstore.sql import STATEMENTS

RUNS, EVENTS, SUBJECTS = 2_000, 8, 50
TENANT = UUID(int=1)
PAGE = {"limit": PAGE_EVENTS_MAX, "bytes": PAGE_BYTES_MAX}
SPREAD = "SELECT runwire.uuid_floor(clock_timestamp() + make_interval(days => n)) FROM generate_series(-6, 22) n"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def filled(database_url: str) -> AsyncIterator[tuple[psycopg.AsyncConnection, list[UUID]]]:
    """A connection as the API, on a log with runs in every partition and statistics that are true."""
    url = make_url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)
    dice = random.Random(7)
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        days = [row[0] for row in await (await connection.execute(SPREAD)).fetchall()]
        runs = sorted(UUID(int=dice.choice(days).int | dice.getrandbits(74)) for _ in range(RUNS))
        tenants = [TENANT, *(UUID(int=n) for n in range(2, 21))]
        for tenant in tenants:
            await connection.execute("INSERT INTO runwire.tenant VALUES (%s, %s)", (tenant, str(tenant)))
        async with connection.cursor() as cursor:
            async with cursor.copy("COPY runwire.run FROM STDIN") as copy:
                for n, run in enumerate(runs):
                    await copy.write_row((run, tenants[n % 20], f"s{n // 20 % SUBJECTS}", "w", "t", 0))
            async with cursor.copy(
                "COPY runwire.head (run_id, tenant_id, status, seq, chain, recorded_us, handed_at) FROM STDIN"
            ) as copy:
                for n, run in enumerate(runs):
                    await copy.write_row((run, tenants[n % 20], "running", EVENTS, b"", 0, "-infinity"))
            async with cursor.copy("COPY runwire.event FROM STDIN") as copy:
                for run in runs:
                    for seq in range(1, EVENTS + 1):
                        await copy.write_row((run, seq, 1, 1, 0, "token", 0, 0, None, bytes(32), b"x" * 190))
        await connection.execute("ANALYZE")
        for name, value in {**SESSION, "role": "runwire_api"}.items():
            await connection.execute("SELECT set_config(%s, %s, false)", (name, value))
        yield connection, runs


def nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield plan
    yield from chain.from_iterable(nodes(part) for part in plan.get("Plans", ()))


async def run_plan(
    connection: psycopg.AsyncConnection, name: str, parameters: Mapping[str, Any]
) -> list[Mapping[str, Any]]:
    """The nodes of this statement's plan that were really executed."""
    statement = sql.SQL("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {}").format(sql.SQL(STATEMENTS[name]))
    row = await (await connection.execute(statement, parameters)).fetchone()
    assert row is not None
    return [node for node in nodes(row[0][0]["Plan"]) if node["Actual Loops"] > 0]


def relations(plan: list[Mapping[str, Any]]) -> set[str]:
    return {node["Relation Name"] for node in plan if "Relation Name" in node}


def assert_by_index(plan: list[Mapping[str, Any]]) -> None:
    scans = [(node["Node Type"], node["Relation Name"]) for node in plan if "Relation Name" in node]
    assert scans
    assert {kind for kind, _ in scans} <= {"Index Scan", "Index Only Scan"}, scans


async def partition_of(connection: psycopg.AsyncConnection, run: UUID) -> str:
    row = await (
        await connection.execute(
            "SELECT relname FROM pg_class WHERE oid = (SELECT tableoid FROM runwire.event WHERE run_id = %s LIMIT 1)",
            (run,),
        )
    ).fetchone()
    assert row is not None
    return str(row[0])


Filled = tuple[psycopg.AsyncConnection, list[UUID]]


async def test_the_rows_lie_in_many_partitions(filled: Filled) -> None:
    connection, runs = filled
    assert len({await partition_of(connection, run) for run in runs[:: len(runs) // 30]}) >= 4


@pytest.mark.parametrize("after", [0, EVENTS - 1, EVENTS])
async def test_the_next_events_of_a_run_come_from_its_one_partition_by_index(filled: Filled, after: int) -> None:
    connection, runs = filled
    for run in (runs[0], runs[RUNS // 2], runs[-1]):
        plan = await run_plan(connection, "read_after", {"run": run, "after": after, **PAGE})
        assert_by_index(plan)
        assert relations(plan) == {await partition_of(connection, run)}
        assert not [node for node in plan if node["Node Type"] == "Sort"]


async def test_the_next_events_of_many_runs_come_from_their_partitions_by_index(filled: Filled) -> None:
    connection, runs = filled
    asked = [runs[3], runs[RUNS // 2], runs[RUNS // 2 + 1]]
    plan = await run_plan(connection, "read_many", {"runs": asked, "afters": [0, 3, EVENTS], **PAGE})
    assert_by_index(plan)
    assert relations(plan) == {await partition_of(connection, run) for run in asked}


@pytest.mark.parametrize("limit", [1, 5, 500])
async def test_asking_for_five_hundred_runs_at_once_reads_no_partition_whole(filled: Filled, limit: int) -> None:
    connection, runs = filled
    asked = runs[:500]
    parameters = {"runs": asked, "afters": [EVENTS - 1] * 500, **PAGE, "limit": limit}
    plan = await run_plan(connection, "read_many", parameters)
    assert_by_index(plan)
    reads = sum(node["Actual Rows"] * node["Actual Loops"] for node in plan if "Relation Name" in node)
    assert reads <= limit + 1, "the runs behind the cut were read too"


@pytest.mark.parametrize("name", ["read_after", "read_many", "verify_events"])
async def test_a_body_that_does_not_fit_into_the_page_is_neither_sent_nor_fetched(filled: Filled, name: str) -> None:
    connection, runs = filled
    run, large, count = UUID(int=runs[RUNS // 2].int ^ 1), random.Random(8).randbytes(300_000), 30
    await connection.execute("RESET role")
    async with connection.transaction(force_rollback=True), connection.cursor() as cursor:
        async with cursor.copy("COPY runwire.event FROM STDIN") as copy:
            for seq in range(1, count + 1):
                await copy.write_row((run, seq, 1, 1, 0, "step", 0, 0, None, bytes(32), large))
        asked = {"run": run, "after": 0, "runs": [run, runs[0]], "afters": [0, 0], "seq": 0, **PAGE}
        sent = await (await cursor.execute(STATEMENTS[name], asked)).fetchall()
        assert [(row[1], row[9] and len(row[9])) for row in sent[:3]] == [(seq, len(large)) for seq in (1, 2, 3)]
        assert [(row[1], row[9]) for row in sent[3:]] == ([] if name == "verify_events" else [(4, None)])
        plan = await run_plan(connection, name, asked)
    # Sending fetches what is sent; what this counts was read to decide on it, and a body alone is 150 blocks.
    assert plan[0]["Shared Hit Blocks"] + plan[0]["Shared Read Blocks"] < 100


async def test_what_was_sealed_is_read_again_by_index(filled: Filled) -> None:
    connection, runs = filled
    asked = {"runs": runs[:500], "afters": [0] * 500, "lasts": [EVENTS] * 500, "bytes": 4_000_000}
    assert_by_index(await run_plan(connection, "follow", asked))


@pytest.mark.parametrize("name", ["head", "run", "input"])
async def test_one_run_is_found_by_its_primary_key(filled: Filled, name: str) -> None:
    connection, runs = filled
    plan = await run_plan(connection, name, {"run": runs[40], "tenant": TENANT})
    if name != "input":  # it holds no row here, and an empty table is read whole
        assert_by_index(plan)
    assert len(relations(plan)) <= 2


@pytest.mark.parametrize("subject", [None, "s4"])
@pytest.mark.parametrize("paged", [False, True])
async def test_a_page_of_runs_is_read_from_its_index_and_not_sorted(
    filled: Filled, subject: str | None, paged: bool
) -> None:
    connection, runs = filled
    before = runs[RUNS // 2] if paged else None
    page = {"tenant": TENANT, "subject": subject, "workflow": None, "status": None, "before": before, "limit": 5}
    plan = await run_plan(connection, "runs", page)
    assert_by_index(plan)
    assert not [node for node in plan if node["Node Type"] == "Sort"]
    used = {node["Index Name"] for node in plan if node.get("Relation Name") == "run"}
    assert used == {"run_newest_of_subject" if subject else "run_newest"}


async def test_a_repeated_idempotency_key_is_found_by_index(filled: Filled) -> None:
    connection, _ = filled
    await connection.execute("RESET role")
    indexes = await (
        await connection.execute("SELECT indexdef FROM pg_indexes WHERE tablename = 'idempotency'")
    ).fetchall()
    assert [row[0].partition("(")[2] for row in indexes] == ["tenant_id, subject, key)"]


LANE = """
    INSERT INTO runwire.queue (run_id, tenant_id, subject, workflow, version, owner, waits, fresh, due_at)
    SELECT runwire.uuid_floor(clock_timestamp() + n * interval '1 ms'), ('00000000-0000-0000-0000-0000000000' ||
        lpad(to_hex(n %% 20 + 1), 2, '0'))::uuid, 's' || n %% 3, 'w', 1,
        CASE WHEN n %% 10 = 0 THEN 'o' || n %% 7 END, n %% 10 NOT IN (0, 1), n %% 10 <> 0,
        CASE WHEN n %% 10 = 1 THEN clock_timestamp() + interval '1 day' END
    FROM generate_series(%(first)s::integer, %(last)s::integer) n ON CONFLICT DO NOTHING"""


async def blocks(connection: psycopg.AsyncConnection, statement: str, parameters: Mapping[str, Any]) -> int:
    """How much is read for a statement, in whatever functions it says it."""
    explain = sql.SQL("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {}").format(sql.SQL(statement))
    row = await (await connection.execute(explain, parameters)).fetchone()
    assert row is not None
    plan = row[0][0]["Plan"]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


async def test_a_place_in_line_and_the_next_runs_are_found_at_a_cost_that_does_not_grow_with_the_line(
    filled: Filled,
) -> None:
    connection, _ = filled
    await connection.execute("RESET role")
    await connection.execute("DELETE FROM runwire.queue")
    await connection.execute("INSERT INTO runwire.coverage (workflow, version) VALUES ('w', 1)")
    bounds = {"tenant_max": 1_000_000, "caller_max": 1_000_000}
    asked = {"rows": 2_000, "live_s": 3_600, **bounds}
    cost = []
    for first, last in ((1, 10_000), (10_001, 40_000)):
        await connection.execute(LANE, {"first": first, "last": last})
        await connection.execute("UPDATE runwire.queue SET waits = true, owner = NULL WHERE owner IS NOT NULL")
        await connection.execute("VACUUM ANALYZE runwire.queue")
        waiting = await (
            await connection.execute("SELECT run_id FROM runwire.queue WHERE waits ORDER BY run_id DESC LIMIT 1")
        ).fetchone()
        assert waiting is not None
        cost.append(await blocks(connection, STATEMENTS["places"], {"runs": [waiting[0]], **asked}))
    assert cost[1] < 4_000, cost
    assert cost[1] < 1.5 * cost[0], cost
    count = {"tenant": TENANT, "subject": "s1", "tenant_max": 100, "caller_max": 100}
    assert await blocks(connection, STATEMENTS["queued"], count) < 400
    for statement, reads in (
        ("SELECT FROM runwire.queue WHERE due_at <= clock_timestamp()", "queue_due"),
        ("SELECT FROM runwire.queue WHERE waits AND cancel LIMIT 50", "queue_stopped"),
        ("SELECT FROM runwire.queue WHERE waits AND suspect LIMIT 50", "queue_suspects"),
    ):
        explained = await (await connection.execute("EXPLAIN " + statement)).fetchall()
        assert any(reads in row[0] for row in explained), explained
