"""What was sealed is walked again a little later: a run that does not fit its chain is told, once, by name."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch
from uuid import UUID

import pytest
import pytest_asyncio
from sqlalchemy import text

from eventstore.domain import chain
from eventstore.following import Followed, Follower
from eventstore.sql import rows
from ops.services import Endpoints
from tests.conftest import new_database
from tests.sealing import Desk, desk
from tests.tampering import past_the_triggers

MANY = "many words " * 20


@pytest_asyncio.fixture(loop_scope="session")
async def d(services: Endpoints, template: str, tmp_path: Path) -> AsyncIterator[Desk]:
    async with desk(new_database(services, template), tmp_path) as made:
        yield made


async def walked(follower: Follower) -> tuple[int, int]:
    """Everything that is sealed and not walked yet: events and mismatches."""
    events = mismatches = 0
    while (step := await follower.step()) != Followed():
        events, mismatches = events + step.events, mismatches + step.mismatches
    return events, mismatches


async def mismatches(d: Desk) -> list[tuple[UUID, int, int, str]]:
    async with d.api.connect() as connection:
        return [(row[0], row[1], row[2], row[3]) for row in await rows(connection, "mismatches", {"limit": 10})]


@contextmanager
def lying() -> Iterator[None]:
    """A writer that lists something else than it stores."""
    with patch.object(chain, "listing", lambda events: bytes(32)):
        yield


@pytest.mark.parametrize(("runs", "events", "bytes_"), [(500, 1000, 2**22), (1, 1, 2**22), (2, 3, 1), (3, 2, 500)])
async def test_every_sealed_event_is_walked_once_whatever_the_size_of_a_step(
    d: Desk, runs: int, events: int, bytes_: int
) -> None:
    sealer, follower = d.sealer(runs=3), Follower(d.sealers, runs_max=runs, events_max=events, bytes_max=bytes_)
    assert await follower.step() == Followed()
    those = [await d.run(*(MANY for _ in range(count))) for count in (0, 1, 5, 2, 9)]
    await sealer.tick()
    assert await walked(follower) == (2 * 5 + 17, 0)
    await d.add(those[2], 2, "b", MANY, "c")
    await d.add(those[0], 2, "b")
    await sealer.tick()
    await d.add(those[2], 3, "d")
    await sealer.tick()
    again = Follower(d.sealers, runs_max=runs, events_max=events, bytes_max=bytes_)  # another process goes on
    assert await walked(again) == (5, 0)
    assert await walked(follower) == (0, 0)
    assert await mismatches(d) == []


async def test_a_writer_whose_listing_is_not_of_what_it_stored_is_told_by_name(d: Desk) -> None:
    sealer, follower = d.sealer(), Follower(d.sealers)
    honest, liar = await d.run("a"), await d.run("a")
    with lying():
        assert await d.add(liar, 2, "b", "c") == "ok"
    await d.add(honest, 2, "b")
    await sealer.tick()
    assert (await follower.step()).mismatches == 1
    [(run_id, block_no, seq, fault)] = await mismatches(d)
    assert (run_id, block_no, seq) == (liar, 1, 4)
    assert fault == "events 4 to 5 do not match their chain hash"
    await d.add(liar, 3, "d")  # what hangs on it is well, and is not told again
    await sealer.tick()
    assert await walked(follower) == (1, 0)


@pytest.mark.parametrize(
    ("damage", "seq"),
    [
        ("UPDATE runwire.event SET body = '{}' WHERE run_id = :run AND seq = 5", 4),
        ("DELETE FROM runwire.event WHERE run_id = :run AND seq = 6", 6),
        ("DELETE FROM runwire.event WHERE run_id = :run AND seq = 4", 5),
        ("DELETE FROM runwire.event WHERE run_id = :run AND seq = 3", 3),
        ("DELETE FROM runwire.event WHERE run_id = :run AND seq > 3", 4),
        ("DELETE FROM runwire.event WHERE run_id = :run", 3),
        ("UPDATE runwire.event SET chain = sha256('') WHERE run_id = :run AND seq = 3", 4),
    ],
)
async def test_what_was_changed_between_its_block_and_the_walk_is_found(d: Desk, damage: str, seq: int) -> None:
    sealer, follower = d.sealer(), Follower(d.sealers)
    run = await d.run("a")
    await sealer.tick()
    await walked(follower)
    await d.add(run, 2, "b", "c")
    await d.add(run, 3, "d")
    await sealer.tick()
    async with past_the_triggers(d) as connection:
        await connection.execute(text(damage), {"run": run})
    assert (await walked(follower))[1] == 1
    assert [(told[0], told[2]) for told in await mismatches(d)] == [(run, seq)]


async def test_losses_that_an_operator_has_acknowledged_are_not_told(d: Desk) -> None:
    sealer = d.sealer()
    run, other = await d.run("a"), await d.run("a")
    await sealer.tick()
    await d.add(run, 2, "b")
    await sealer.tick()
    async with past_the_triggers(d) as connection:
        await connection.execute(text("DELETE FROM runwire.event WHERE run_id = :run AND seq > 3"), {"run": run})
        await connection.execute(
            text("""UPDATE runwire.head SET seq = 3, batch_no = 1, batch_last = 3,
                    chain = (SELECT chain FROM runwire.event WHERE run_id = :run AND seq = 3) WHERE run_id = :run"""),
            {"run": run},
        )
    again = d.sealer()
    assert (await again.tick()).fault == "shut"
    await d.acknowledge()
    await d.add(run, 2, "c")
    await d.add(other, 2, "b")
    await d.sealer().tick()
    follower = Follower(d.sealers)
    assert (await walked(follower))[1] == 0
    assert await mismatches(d) == []


async def test_two_followers_at_once_leave_one_mark_and_one_mismatch(d: Desk) -> None:
    sealer = d.sealer(runs=1)
    one, other = Follower(d.sealers), Follower(d.sealers)
    liar = await d.run("a")
    with lying():
        await d.add(liar, 2, "b")
    await sealer.tick()
    await d.run("b")
    await sealer.tick()
    async with d.sealers.connect() as connection:
        [before] = await rows(connection, "followed")
    assert before[0] == 0
    assert (await one.step()).mismatches == 1
    async with d.sealers.begin() as connection:  # as if the other had begun before and is slower
        assert await rows(connection, "follow_on", {"no": 0, "place": 0, "to_no": 1, "to_place": 0}) == []
    assert await walked(other) == (3, 0)
    assert await walked(one) == (0, 0)
    assert len(await mismatches(d)) == 1
