"""A database that no longer holds what was sealed takes no events until somebody has said what was lost."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError

from eventstore import blocks, incarnation, signing
from eventstore.checkpoints import Directory
from eventstore.domain import block, merkle, note
from eventstore.incarnation import NotThisLog
from eventstore.mending import CannotAcknowledge
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
    run, other = await d.run("a"), await d.run("c")
    await d.add(run, 2, "b", "c")
    await d.sealer().tick()
    async with past_the_triggers(d) as connection:
        await connection.execute(text("DELETE FROM runwire.event WHERE run_id = :run AND seq > 3"), {"run": run})
        await connection.execute(
            text("""UPDATE runwire.head h SET seq = 3, batch_no = 1, batch_last = 3, chain = e.chain
                    FROM runwire.event e WHERE h.run_id = :run AND e.run_id = :run AND e.seq = 3"""),
            {"run": run},
        )
    standing = await d.standing()
    assert (standing.fault, [str(each) for each in standing.damaged]) == (
        "damaged",
        [f"{run}: events 4 to 5 are missing"],
    )
    assert (await d.sealer("b").tick()).fault == "shut"
    await d.acknowledge()
    assert await d.add(run, 2, "x") == await d.add(other, 2, "y") == "ok"
    assert (await d.sealer("c").tick()).signed == 3
    assert (await d.verify()).ok


async def forge(d: Desk, block_no: int) -> None:
    """Another block in a block's place, with a node that fits it."""
    async with past_the_triggers(d) as connection:
        found = await connection.execute(
            text("SELECT header FROM runwire.block WHERE block_no = :no"), {"no": block_no}
        )
        true = block.decode_header(found.scalar_one())
        other = block.Header(true.kind, block_no, true.sealed_us + 1, true.count, true.root).encode()
        await connection.execute(
            text("UPDATE runwire.block SET header = :header, nodes = :nodes WHERE block_no = :no"),
            {"header": other, "nodes": merkle.leaf_hash(other), "no": block_no},
        )


async def test_other_blocks_than_were_signed_are_set_aside_and_the_signed_ones_take_their_place(d: Desk) -> None:
    run, other = await d.run("a"), await d.run("b")
    sealer = d.sealer()
    for number in range(2, 4):
        await sealer.tick()
        await d.add(run, number, "x")
    await sealer.tick()
    before = d.notes()
    await forge(d, 3)
    standing = await d.standing()
    assert (standing.fault, standing.detail) == ("differs", "block 3 is another one than was published")
    assert (await d.sealer("b").tick()).fault == "shut"
    with pytest.raises(OperationalError):
        await d.add(run, 4, "y")

    standing = await d.acknowledge("somebody was in the database")
    assert standing.aside is not None
    assert (standing.aside.first, standing.aside.count, standing.damaged) == (3, 1, [])
    assert await count(d, "block_set_aside") == 1
    assert await d.add(run, 4, "y") == await d.add(other, 2, "z") == "ok"
    assert (await d.sealer("c").tick()).signed == 5
    report = await d.verify(before + d.notes())  # every checkpoint that was ever signed holds
    assert report.ok, report.findings
    [statement] = report.incarnations
    assert b'"fault":"differs"' in statement
    assert f'"from_block":3,"blocks":1,"headers_sha256":"{standing.aside.headers.hex()}"'.encode() in statement
    ranges = [(each.run_id, each.first_seq, each.last_seq) for step in await feed(d) for each in step.ranges]
    assert sorted(ranges) == sorted([(run, 1, 3), (other, 1, 3), (run, 4, 4), (run, 5, 5), (run, 6, 6), (other, 4, 4)])
    for refused in ("UPDATE runwire.block_set_aside SET block_no = 9", "DELETE FROM runwire.block_set_aside"):
        with pytest.raises(DBAPIError, match="append-only"):
            async with d.owner.begin() as connection:
                await connection.exec_driver_sql(refused)


async def test_a_tree_that_does_not_fit_its_own_blocks_is_made_again(d: Desk) -> None:
    run = await d.run("a")
    sealer = d.sealer()
    await sealer.tick()
    await d.add(run, 2, "b")
    await sealer.tick()
    async with past_the_triggers(d) as connection:
        await connection.exec_driver_sql(
            "UPDATE runwire.block SET nodes = sha256(nodes) || sha256(nodes) WHERE block_no = 2"
        )
    assert (await d.standing()).fault == "differs"
    standing = await d.acknowledge()
    assert standing.aside is not None
    assert (standing.aside.first, standing.aside.count) == (1, 2)
    assert (await d.sealer("b").tick()).signed == 3
    assert (await d.verify()).ok


async def test_a_block_that_is_missing_outside_is_taken_from_the_database_if_the_signed_root_says_so(d: Desk) -> None:
    run = await d.run("a")
    sealer = d.sealer()
    for number in range(2, 5):
        await sealer.tick()
        await d.add(run, number, "x")
    copies = sorted((d.outside / "blocks").rglob("*[0-9]"))
    (lost := copies[-1]).unlink()  # number 3; 1 and 2 are in the same folder
    assert lost.name.endswith("3")
    await forge(d, 1)
    assert (await d.standing()).fault is None  # a start asks the tree's peaks only; who acknowledges asks every block
    assert (await d.acknowledge()).detail == "the first 3 blocks are not those that were signed"
    assert (await d.verify()).ok

    await forge(d, 3)
    with pytest.raises(CannotAcknowledge, match="cannot be made whole from what is kept outside: the first 3 blocks"):
        await d.acknowledge()
    async with d.owner.connect() as connection:
        assert (await connection.exec_driver_sql("SELECT max(block_no) FROM runwire.block")).scalar_one() == 4


async def test_a_block_that_was_copied_outside_before_its_checkpoint_counts_as_what_this_log_was(d: Desk) -> None:
    """The sealer was cut off between the two, then the database was restored: nothing that was signed is missing."""
    run = await d.run("a")
    assert (await d.sealer("a", lease_s=0.001).tick()).size == 1
    copy = await backup(d)
    await d.add(run, 2, "b")
    store = Unpublished(d.outside)
    assert (await d.sealer("a", store=store).tick()).fault == "unsigned"
    await restore(d, copy)
    standing = await d.standing()
    assert (standing.fault, [str(each) for each in standing.damaged]) == (
        "behind",
        [f"{run}: events 4 to 4 are missing"],
    )
    await d.add(run, 2, "another")
    async with d.owner.begin() as connection:
        await connection.execute(text("UPDATE runwire.sealer SET lease_until = NULL"))
    assert (await d.sealer("b").tick()).fault == "shut"
    await d.acknowledge()
    assert (await d.sealer("c").tick()).signed == 3
    assert (await d.verify()).ok


async def test_two_blocks_for_one_number_end_in_an_acknowledged_log_and_not_in_a_circle(d: Desk) -> None:
    """A sealer that leads finds its next block's place outside taken by another one."""
    run = await d.run("a")
    sealer = d.sealer()
    await sealer.tick()
    async with d.owner.connect() as connection:
        [stored] = await blocks.page(connection, 0, 1)
    other = block.new_block(2, stored.decoded().sealed_us, b"").encode()
    d.store.keep_blocks({2: other})
    await d.add(run, 2, "b")
    assert (await sealer.tick()).fault == "shut"
    standing = await d.acknowledge("two sealers, one of them over a copy")
    assert (standing.fault, standing.aside and standing.aside.first) == ("differs", 2)
    assert (await d.sealer("b").tick()).signed == 4  # theirs, the acknowledgement, ours
    assert (await d.verify()).ok


class Unpublished(Directory):
    """A folder in which the sealer is cut off after the blocks."""

    def publish(self, size: int, note: str) -> None:
        raise OSError(size, note)


async def test_an_emptied_folder_is_no_first_start(d: Desk) -> None:
    run = await d.run("a")
    sealer = d.sealer()
    await sealer.tick()
    await d.add(run, 2, "b")
    assert (await sealer.tick()).signed == 2
    shutil.rmtree(d.outside)
    standing = await d.standing()
    assert (standing.fault, standing.detail) == (
        "withdrawn",
        "a checkpoint of size 2 was published and is not outside any more",
    )
    assert (await d.sealer("b").tick()).fault == "shut"
    with pytest.raises(OperationalError):
        await d.add(run, 3, "c")
    assert (await d.acknowledge("moved to another disk")).fault == "withdrawn"
    assert (await d.standing()).fault is None  # before the next checkpoint too
    assert await d.add(run, 3, "c") == "ok"
    tick = await d.sealer("c").tick()
    assert (tick.fault, tick.signed) == (None, 4)
    assert [d.store.block(number) is not None for number in range(1, 6)] == [True] * 4 + [False]  # all of it again
    report = await d.verify()
    assert (report.ok, [b'"why":"moved to another disk"' in each for each in report.incarnations]) == (True, [True])
    shutil.rmtree(d.outside)
    assert (await d.sealer("d").tick()).fault == "shut"  # one acknowledgement is for one loss


async def test_a_restored_database_beside_a_folder_whose_checkpoints_were_taken_away_is_found(d: Desk) -> None:
    run = await d.run("a")
    sealer = d.sealer()
    await sealer.tick()
    copy = await backup(d)
    await d.add(run, 2, "b")
    await sealer.tick()
    await restore(d, copy)
    shutil.rmtree(d.outside / "checkpoints")
    (d.outside / "latest").unlink()
    standing = await d.standing()
    assert (standing.fault, [str(each) for each in standing.damaged]) == (
        "withdrawn",
        [f"{run}: events 4 to 4 are missing"],  # the blocks are still there
    )


async def test_what_was_written_before_the_first_look_at_a_restored_database_is_named_or_sealed(d: Desk) -> None:
    """Between a start and the sealer's first look events may be stored. A run that had lost events is named by the
    incarnation with all that it holds by then; a run that had not goes on; a run that began then is like any other."""
    hit, kept = await d.run("a"), await d.run("b")
    sealer = d.sealer("a")
    await sealer.tick()
    copy = await backup(d)
    await d.add(hit, 2, "lost")
    await sealer.tick()
    await restore(d, copy)
    await d.add(hit, 2, "in the window", "and more")
    await d.add(kept, 2, "in the window")
    fresh = await d.run("in the window")

    assert (await d.sealer("b").tick()).fault == "shut"
    standing = await d.acknowledge()
    assert [str(each) for each in standing.damaged] == [f"{hit}: its first 4 events are not those that were sealed"]
    await d.sealer("c").tick()
    steps = await feed(d)
    told = {each.run_id: (each.first_seq, each.last_seq, each.again) for step in steps[2:] for each in step.ranges}
    assert told == {hit: (1, 5, True), kept: (4, 4, False), fresh: (1, 3, False)}
    report = await d.verify()
    assert (report.ok, report.unsealed) == (True, 0), report.findings


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
