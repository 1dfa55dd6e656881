"""What an administrator of the database can do to a sealed log, and what shows it: each attack on a real database.

The triggers are off, the forger is careful: chains are computed anew, heads are set to fit. The chain alone (every run
from genesis to its head) is asked first, then the database against the checkpoint that was kept outside. The table at
the end is the one in docs/evidence-format.md.
"""

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from eventstore import signing
from eventstore.domain import block, chain, merkle, note
from eventstore.verification import Report, verify_events
from ops.services import Endpoints
from tests.conftest import new_database
from tests.sealing import NAME, Desk, desk
from tests.tampering import for_a_while, rechain
from tests.writing import append, batch, new_tenant, result, token

DOCS = Path(__file__).parent.parent.parent / "docs" / "evidence-format.md"


@dataclass
class Scene:
    """A log of four runs, sealed in three blocks; `a` and `b` have as many events."""

    d: Desk
    a: UUID
    b: UUID
    done: UUID
    other_tenant: UUID


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def scene(services: Endpoints, template: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    async with desk(new_database(services, template), tmp_path_factory.mktemp("seal")) as d:
        runs = [await d.run("one", "two", "three") for _ in range(4)]
        sealer = d.sealer()
        assert (await sealer.tick()).size == 1
        for run in runs[:2]:
            assert await d.add(run, 2, "four", "five") == "ok"
        assert (await sealer.tick()).size == 2
        [answer] = await append(d.worker, batch(runs[2], 1, 2, result()))
        assert answer.verdict == "ok"
        assert (await sealer.tick()).signed == 3
        yield Scene(d, runs[0], runs[1], runs[2], await new_tenant(d.owner))


Do = Callable[[AsyncConnection, Scene], Awaitable[None]]


async def say(connection: AsyncConnection, statement: str, **values: object) -> None:
    await connection.execute(text(statement), values)


async def edit(c: AsyncConnection, s: Scene) -> None:
    await say(c, "UPDATE runwire.event SET body = '{}' WHERE run_id = :run AND seq = 3", run=s.a)


async def edit_and_rechain(c: AsyncConnection, s: Scene) -> None:
    await edit(c, s)
    await rechain(c, s.a)


async def delete_middle(c: AsyncConnection, s: Scene) -> None:
    await say(c, "DELETE FROM runwire.event WHERE run_id = :run AND seq = 4", run=s.a)


async def delete_and_rechain(c: AsyncConnection, s: Scene) -> None:
    await delete_middle(c, s)
    await rechain(c, s.a)


async def cut_tail(c: AsyncConnection, s: Scene) -> None:
    await say(c, "DELETE FROM runwire.event WHERE run_id = :run AND seq > 5", run=s.a)


async def cut_tail_and_head(c: AsyncConnection, s: Scene) -> None:
    await cut_tail(c, s)
    await say(
        c,
        """UPDATE runwire.head h SET seq = 5, chain = e.chain FROM runwire.event e
           WHERE h.run_id = :run AND e.run_id = :run AND e.seq = 5""",
        run=s.a,
    )


async def cut_prefix(c: AsyncConnection, s: Scene) -> None:
    await say(c, "DELETE FROM runwire.event WHERE run_id = :run AND seq < 3", run=s.a)


async def insert_and_rechain(c: AsyncConnection, s: Scene) -> None:
    await say(c, "UPDATE runwire.event SET seq = seq + 100 WHERE run_id = :run AND seq > 3", run=s.a)
    await say(
        c,
        """INSERT INTO runwire.event
           SELECT run_id, 50, epoch, version, encoding, type, occurred_us, recorded_us, key_id, chain,
                  '{"text":"never said"}' FROM runwire.event WHERE run_id = :run AND seq = 3""",
        run=s.a,
    )
    await rechain(c, s.a)


async def reorder(c: AsyncConnection, s: Scene) -> None:
    for before, after in ((3, 900), (4, 3), (900, 4)):
        await say(
            c, "UPDATE runwire.event SET seq = :after WHERE run_id = :run AND seq = :before",
            run=s.a, before=before, after=after,
        )  # fmt: skip


async def swap(c: AsyncConnection, s: Scene) -> None:
    await say(
        c, "UPDATE runwire.event SET run_id = CASE run_id WHEN :a THEN :b ELSE :a END, seq = seq + 1000 "
        "WHERE run_id IN (:a, :b)", a=s.a, b=s.b,
    )  # fmt: skip
    await say(c, "UPDATE runwire.event SET seq = seq - 1000 WHERE run_id IN (:a, :b)", a=s.a, b=s.b)


async def swap_and_rechain(c: AsyncConnection, s: Scene) -> None:
    await say(c, 'UPDATE runwire.event SET body = \'{"text":"A"}\' WHERE run_id = :a AND seq = 3', a=s.a)
    await swap(c, s)
    await rechain(c, s.a)
    await rechain(c, s.b)


async def replace_run(c: AsyncConnection, s: Scene) -> None:
    await say(
        c, """UPDATE runwire.event SET body = '{"text":"a better answer"}', recorded_us = recorded_us - seq
              WHERE run_id = :run AND type = 'token'""", run=s.done,
    )  # fmt: skip
    await say(c, "UPDATE runwire.event SET recorded_us = 1000 * seq WHERE run_id = :run", run=s.done)
    await rechain(c, s.done)


async def delete_run(c: AsyncConnection, s: Scene) -> None:
    for table in ("event", "head", "input", "run", "sealed"):
        await say(c, f"DELETE FROM runwire.{table} WHERE run_id = :run", run=s.done)


async def drop_partition(c: AsyncConnection, s: Scene) -> None:
    found = await c.execute(
        text("SELECT tableoid::regclass::text FROM runwire.event WHERE run_id = :run LIMIT 1"), {"run": s.a}
    )
    await say(c, f"DROP TABLE {found.scalar_one()}")
    for table in ("head", "input", "run", "sealed"):
        await say(c, f"DELETE FROM runwire.{table}")


async def move_tenant(c: AsyncConnection, s: Scene) -> None:
    for table in ("head", "run"):
        await say(c, f"UPDATE runwire.{table} SET tenant_id = :to WHERE run_id = :run", to=s.other_tenant, run=s.a)


async def move_tenant_in_the_catalogue(c: AsyncConnection, s: Scene) -> None:
    await say(c, "UPDATE runwire.run SET tenant_id = :to WHERE run_id = :run", to=s.other_tenant, run=s.a)


async def move_tenant_and_rechain(c: AsyncConnection, s: Scene) -> None:
    await move_tenant(c, s)
    await rechain(c, s.a)


async def back_date_one(c: AsyncConnection, s: Scene) -> None:
    await say(c, "UPDATE runwire.event SET recorded_us = recorded_us - 1 WHERE run_id = :run AND seq = 1", run=s.a)


async def back_date_run(c: AsyncConnection, s: Scene) -> None:
    await say(c, "UPDATE runwire.event SET recorded_us = recorded_us - 86400000000 WHERE run_id = :run", run=s.a)
    await rechain(c, s.a)


async def restore_older(c: AsyncConnection, s: Scene) -> None:
    await say(c, "DELETE FROM runwire.block WHERE block_no > 1")
    await say(c, "DELETE FROM runwire.checkpoint WHERE size > 1")
    for run, last in ((s.a, 5), (s.b, 5), (s.done, 5)):
        await say(c, "DELETE FROM runwire.event WHERE run_id = :run AND seq > :last", run=run, last=last)
        await rechain(c, run)


async def rewrite_and_reseal(c: AsyncConnection, s: Scene) -> None:
    """Edit, chain anew, and make blocks, nodes and sealed rows fit: everything that lies in the database."""
    await edit_and_rechain(c, s)
    peaks = merkle.Peaks()
    found = await c.execute(text("SELECT block_no, header, entries FROM runwire.block ORDER BY block_no"))
    for block_no, header, entries in found.all():
        told = []
        for entry in block.decode_entries(bytes(entries)):
            row = await c.execute(
                text("SELECT chain FROM runwire.event WHERE run_id = :run AND seq = :seq"),
                {"run": entry.run_id, "seq": entry.seq},
            )
            told.append(block.Entry(entry.run_id, entry.tenant_id, entry.seq, row.scalar_one(), entry.closed).encode())
        raw = b"".join(told)
        fresh = block.new_block(block_no, block.decode_header(bytes(header)).sealed_us, raw).encode()
        nodes = b"".join(peaks.append(merkle.leaf_hash(fresh)))
        await say(
            c, "UPDATE runwire.block SET header = :header, entries = :entries, nodes = :nodes WHERE block_no = :no",
            header=fresh, entries=raw, nodes=nodes, no=block_no,
        )  # fmt: skip


async def drop_first_block(c: AsyncConnection, s: Scene) -> None:
    await say(c, "DELETE FROM runwire.block WHERE block_no = 1")


async def edit_statement_of_feed(c: AsyncConnection, s: Scene) -> None:
    await say(c, "UPDATE runwire.block SET firsts = decode(repeat('00000002', octet_length(firsts) / 4), 'hex')")


# The number in the list of attacks, what is done, whether the chain alone shows it, and the layer of what shows it.
ATTACKS: list[tuple[str, str, Do, bool, set[str]]] = [
    ("1", "edit an event", edit, True, {"chain"}),
    ("2", "edit an event, chain anew", edit_and_rechain, False, {"block"}),
    ("3", "delete an event", delete_middle, True, {"chain"}),
    ("4", "delete an event, number and chain anew", delete_and_rechain, False, {"block"}),
    ("5", "cut the end off", cut_tail, True, {"block", "head"}),
    ("6", "cut the end off, set the head back", cut_tail_and_head, False, {"block"}),
    ("7", "cut the beginning off", cut_prefix, True, {"chain"}),
    ("8", "insert an event, chain anew", insert_and_rechain, False, {"block"}),
    ("9", "reorder two events", reorder, True, {"chain"}),
    ("10", "swap the events of two runs", swap, True, {"block", "chain"}),
    ("11", "swap the events of two runs, chain anew", swap_and_rechain, False, {"block"}),
    ("12", "put another run in a run's place", replace_run, False, {"block"}),
    ("13", "delete a run with all that belongs to it", delete_run, False, {"block"}),
    ("14", "drop a partition and its heads", drop_partition, False, {"block"}),
    ("15", "move a run to another tenant", move_tenant, True, {"chain"}),
    ("15a", "move a run to another tenant, chain anew", move_tenant_and_rechain, False, {"block"}),
    ("15b", "move a run in the catalogue only", move_tenant_in_the_catalogue, True, {"head"}),
    ("16", "back-date an event", back_date_one, True, {"chain"}),
    ("17", "back-date a run, chain anew", back_date_run, False, {"block"}),
    ("21", "restore an older database", restore_older, False, {"checkpoint"}),
    ("24a", "edit, chain, and make all blocks anew", rewrite_and_reseal, False, {"log"}),
    ("24b", "delete a block", drop_first_block, False, {"block", "log", "checkpoint"}),
    ("–", "edit what the feed is derived from", edit_statement_of_feed, False, {"block"}),
]


async def test_nothing_is_found_in_a_log_that_nobody_touched(scene: Scene) -> None:
    report = await scene.d.verify()
    assert report.ok, report.findings
    assert (report.size, report.checkpoints, report.runs, report.unsealed) == (3, [1, 2, 3], 4, 0)


@pytest.mark.parametrize(("number", "what", "do", "by_chain", "layers"), ATTACKS, ids=[each[0] for each in ATTACKS])
async def test_every_attack_is_found_by_the_layer_that_the_table_says(
    scene: Scene, number: str, what: str, do: Do, by_chain: bool, layers: set[str]
) -> None:
    async with for_a_while(scene.d) as connection:
        await do(connection, scene)
        alone = Report()
        await verify_events(connection, alone)
        assert bool(alone.findings) == by_chain, alone.findings
        report = await scene.d.verify([scene.d.notes()[-1]], connection)
        found = {finding.layer for finding in report.findings}
        assert layers <= found, report.findings
        print(f"attack {number}: {what}: chain alone {'shows it' if by_chain else 'fits'}; shown by {sorted(found)}")
    assert (await scene.d.verify()).ok


async def test_one_edit_fills_no_memory_with_findings(scene: Scene) -> None:
    report = Report()
    for place in range(5_000):
        report.found("block", place, "x")
    assert (len(report.findings), report.more, report.ok) == (1_000, 4_000, False)


async def test_a_history_signed_with_a_new_key_does_not_count_for_whoever_holds_the_old_one(scene: Scene) -> None:
    """Attack 25: the bundle comes with its key. A verifier asks with the keys that it holds itself."""
    thief = signing.SealKey.new(NAME)
    async with for_a_while(scene.d) as connection:
        await rewrite_and_reseal(connection, scene)
        root = (await scene.d.verify([], connection)).root
        told = note.Checkpoint(await scene.d.origin(), 3, root).text()
        report = await scene.d.verify([note.compose(told, [thief.sign(told)])], connection)
        assert [finding.layer for finding in report.findings] == ["signature"]


async def test_a_stolen_key_is_shown_only_by_an_older_copy_of_a_checkpoint(scene: Scene) -> None:
    """Attack 24: whoever holds the key and the database can sign another history. It fits alone; next to what somebody
    else kept, it does not."""
    kept = scene.d.notes()
    async with for_a_while(scene.d) as connection:
        await rewrite_and_reseal(connection, scene)
        root = (await scene.d.verify([], connection)).root
        forged = scene.d.keys().sign(note.Checkpoint(await scene.d.origin(), 3, root))
        assert (await scene.d.verify([forged], connection)).ok
        report = await scene.d.verify([*kept[:2], forged], connection)
        assert {finding.layer for finding in report.findings} == {"log"}


async def test_a_checkpoint_of_another_log_is_none_of_this_one(scene: Scene) -> None:
    told = note.Checkpoint(f"{NAME}/{uuid4()}", 1, bytes(32))
    report = await scene.d.verify([scene.d.keys().sign(told)])
    assert {finding.layer for finding in report.findings} == {"checkpoint", "log"}


async def test_what_came_after_the_last_block_rests_on_its_chain_and_is_counted(scene: Scene) -> None:
    async with for_a_while(scene.d) as connection:
        late = batch(scene.a, 1, 3, token("late"))
        await connection.exec_driver_sql(
            """SELECT runwire.append(ARRAY[%s::uuid], ARRAY[1], ARRAY[3], ARRAY[1], ARRAY[%s::bytea], ARRAY['token'],
                                     ARRAY[1::smallint], ARRAY[%s::bigint], ARRAY[0::smallint], ARRAY[NULL::uuid],
                                     ARRAY[%s::bytea], 1)""",
            (scene.a, chain.listing(late.events), late.events[0].occurred_us, late.events[0].body),
        )
        report = await scene.d.verify(None, connection)
        assert (report.ok, report.unsealed) == (True, 1)


def test_the_document_lists_these_attacks_with_these_layers() -> None:
    told = re.findall(r"^\| ([^|]+) \| (shown|fits) \| ([^|]+) \|$", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    ours = [(what, "shown" if chain else "fits", ", ".join(sorted(layers))) for _, what, _, chain, layers in ATTACKS]
    assert told == ours
