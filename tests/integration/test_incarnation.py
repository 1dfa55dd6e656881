"""A database that no longer holds what was sealed takes no events until somebody has said what was lost."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from eventstore import incarnation, signing
from eventstore.domain import block, merkle, note
from eventstore.incarnation import CannotAcknowledge, NotThisLog
from ops.services import Endpoints
from tests.conftest import new_database
from tests.sealing import NAME, Desk, count, desk, feed
from tests.tampering import backup, past_the_triggers, restore
from tests.writing import append, batch, token


@pytest.fixture
def database_url(services: Endpoints, template: str) -> str:
    """A database for each test: a log is sealed from its beginning."""
    return new_database(services, template)


@pytest_asyncio.fixture(loop_scope="session")
async def d(database_url: str, tmp_path: Path) -> AsyncIterator[Desk]:
    async with desk(database_url, tmp_path) as made:
        yield made


async def test_a_restored_database_takes_no_events_until_somebody_says_what_was_lost(d: Desk) -> None:
    kept, short, gone = await d.run("a"), await d.run("b"), None
    sealer = d.sealer("a")
    assert (await sealer.tick()).size == 1
    copy = await backup(d)
    await d.add(short, 2, "c", "d")
    gone = await d.run("e")
    await sealer.tick()
    await d.add(short, 3, "f")
    assert (await sealer.tick()).size == 3
    before = d.notes()
    await restore(d, copy)

    standing = await d.standing()
    assert (standing.fault, [each.run_id for each in standing.damaged]) == ("behind", sorted([short, gone]))
    told = [str(each) for each in standing.damaged]
    assert f"{short}: events 4 to 6 are missing" in told
    assert f"{gone}: missing, 3 events were sealed" in told
    b = d.sealer("b")
    assert (await b.tick()).fault == "shut"
    for attempt in (d.add(kept, 2, "g"), d.run("h")):
        with pytest.raises(OperationalError, match="until an operator acknowledges"):
            await attempt
    async with d.api.connect() as connection:
        why = await incarnation.is_shut(connection)
    assert why is not None
    assert "blocks 2 to 3 are missing, 2 runs are missing or short" in why
    assert (await b.tick()).fault == (await d.sealer("c").tick()).fault == "shut"
    assert (await count(d, "block"), await count(d, "checkpoint")) == (1, 1)

    assert (await d.acknowledge("the disk burned")).fault == "behind"
    assert await d.add(kept, 2, "g") == "ok"
    assert await d.add(short, 2, "new") == "ok"
    tick = await d.sealer("d").tick()
    assert (tick.leading, tick.size, tick.signed, tick.fault) == (True, 5, 5, None)
    report = await d.verify(before + d.notes())  # the same tree: every older checkpoint still holds
    assert report.ok, report.findings
    assert (report.checkpoints[-1], report.acknowledged) == (5, 3)
    [statement] = report.incarnations
    assert b'"by":"olga","why":"the disk burned"' in statement
    assert f'"run_id":"{gone}","sealed_seq":3,"kept_seq":0'.encode() in statement
    again = [each for each in (await feed(d))[3].ranges if each.again]
    assert {each.run_id: each.last_seq for each in again} == {short: 3, gone: 0}
    assert (await d.standing()).fault is None


async def test_the_gate_stays_shut_for_a_sealer_that_finds_everything_in_order(d: Desk) -> None:
    run = await d.run("a")
    assert (await d.sealer().tick()).size == 1
    async with d.sealers.begin() as connection:
        assert (await connection.exec_driver_sql("SELECT runwire.shut_gate('by hand')")).scalar_one()
    assert (await d.sealer("b").tick()).fault == "shut"
    with pytest.raises(OperationalError):
        await d.add(run, 2, "b")
    assert (await d.acknowledge()).fault is None
    assert await d.add(run, 2, "b") == "ok"
    with pytest.raises(CannotAcknowledge, match="nothing to acknowledge"):
        await d.acknowledge()


async def test_the_gate_stops_a_group_whole_and_the_writer_sends_the_same_batch_again(d: Desk) -> None:
    runs = [await d.run() for _ in range(2)]
    async with d.sealers.begin() as connection:
        await connection.exec_driver_sql("SELECT runwire.shut_gate('by hand')")
    batches = [batch(run, 1, 2, token("x")) for run in runs]
    with pytest.raises(OperationalError) as caught:
        await append(d.worker, *batches)
    assert getattr(caught.value.orig, "sqlstate", None) == "57000"
    assert {answer.verdict for answer in await append(d.worker, *(batch(run, 1, 0) for run in runs))} == {"ok"}
    await d.acknowledge()
    assert {answer.verdict for answer in await append(d.worker, *batches)} == {"ok"}


async def test_a_leader_whose_database_was_failed_over_to_an_older_copy_shuts_the_gate(d: Desk) -> None:
    run = await d.run("a")
    sealer = d.sealer()
    await sealer.tick()
    copy = await backup(d)
    await d.add(run, 2, "b")
    assert (await sealer.tick()).size == 2
    await restore(d, copy)
    await d.add(run, 2, "another")
    assert (await sealer.tick()).blocks == 0  # the number that it believes to be next is not
    assert (await sealer.tick()).fault == "shut"
    with pytest.raises(OperationalError):
        await d.add(run, 3, "c")


async def test_a_sealer_that_takes_the_lead_looks_again_at_what_it_found_in_order_before(d: Desk) -> None:
    run = await d.run("a")
    a, b = d.sealer("a"), d.sealer("b")
    assert (await a.tick()).size == 1
    copy = await backup(d)
    await d.add(run, 2, "b")
    assert (await a.tick()).size == 2
    assert (await b.tick()).fault is None  # it waits, and everything is as it was sealed
    await restore(d, copy)
    await d.add(run, 2, "another")
    async with d.owner.begin() as connection:
        await connection.execute(text("UPDATE runwire.sealer SET lease_until = NULL"))
    assert not (await b.tick()).leading
    assert (await b.tick()).fault == "shut"
    assert await count(d, "block") == 1


async def test_runs_that_were_cut_under_an_intact_log_of_blocks_are_found_at_the_start(d: Desk) -> None:
    run, other = await d.run("a", "b"), await d.run("c")
    await d.sealer().tick()
    async with past_the_triggers(d) as connection:
        await connection.execute(text("DELETE FROM runwire.event WHERE run_id = :run AND seq > 2"), {"run": run})
        await connection.execute(
            text("""UPDATE runwire.head h SET seq = 2, batch_last = 2, chain = e.chain FROM runwire.event e
                    WHERE h.run_id = :run AND e.run_id = :run AND e.seq = 2"""),
            {"run": run},
        )
    standing = await d.standing()
    assert (standing.fault, [str(each) for each in standing.damaged]) == (
        "damaged",
        [f"{run}: events 3 to 4 are missing"],
    )
    assert (await d.sealer("b").tick()).fault == "shut"
    await d.acknowledge()
    assert await d.add(run, 2, "x") == await d.add(other, 2, "y") == "ok"
    assert (await d.sealer("c").tick()).signed == 3
    assert (await d.verify()).ok


async def test_another_history_under_the_same_numbers_cannot_be_acknowledged(d: Desk) -> None:
    await d.run("a")
    await d.sealer().tick()
    async with past_the_triggers(d) as connection:
        raw = (await connection.exec_driver_sql("SELECT header FROM runwire.block")).scalar_one()
        forged = block.decode_header(raw)
        other = block.Header(forged.kind, 1, forged.sealed_us + 1, forged.count, forged.root).encode()
        await connection.exec_driver_sql(
            "UPDATE runwire.block SET header = %s, nodes = %s", (other, merkle.leaf_hash(other))
        )
    standing = await d.standing()
    assert (standing.fault, standing.detail) == ("differs", "block 1 is another one than was published")
    assert (await d.sealer("b").tick()).fault == "shut"
    with pytest.raises(CannotAcknowledge, match="not those that were signed"):
        await d.acknowledge()


async def test_a_checkpoint_of_another_log_or_of_an_unknown_key_stops_the_start(d: Desk) -> None:
    await d.run("a")
    d.store.publish(7, d.keys().sign(note.Checkpoint(f"{NAME}/another", 7, bytes(32))))
    with pytest.raises(NotThisLog, match="another"):
        await d.sealer().tick()
    stranger = signing.SealKey.new(NAME)
    text_ = note.Checkpoint(await d.origin(), 9, bytes(32)).text()
    d.store.publish(9, note.compose(text_, [stranger.sign(text_)]))
    with pytest.raises(note.BadNote, match="none of the keys"):
        await d.sealer().tick()
    assert await count(d, "block") == 0
