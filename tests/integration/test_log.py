"""The append protocol on a real database: seq, chain, fence, batch numbers, verdicts."""

import itertools
from uuid import UUID

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.exc import DataError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine

from eventstore import catalogue, log
from eventstore.domain import chain
from eventstore.domain.events import Body, CancelRequested, Person, new_event
from eventstore.domain.lifecycle import CONTROL_TYPES, TABLE
from eventstore.domain.record import Recorded
from eventstore.sql import hot_rows, rows
from tests.writing import NOW_US, append, batch, claim, events_of, new_tenant, open_run, result, running, started, token

CANCEL = new_event(CancelRequested(by=Person(subject="ada", role="user"), reason="enough"), NOW_US)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def tenant(owner_engine: AsyncEngine) -> UUID:
    return await new_tenant(owner_engine)


async def read(engine: AsyncEngine, run_id: UUID, after: int = 0) -> list[Recorded]:
    async with engine.connect() as connection:
        return await events_of(connection, run_id, after)


async def test_the_database_holds_the_life_cycle_table_of_the_domain(owner_engine: AsyncEngine) -> None:
    async with owner_engine.connect() as connection:
        found = await connection.execute(text("SELECT status, type, next, writer FROM runwire.transition"))
        stored = {(status, type_): (next_, writer) for status, type_, next_, writer in found}
    assert stored == {
        (status, type_): (next_, "api" if type_ in CONTROL_TYPES else "worker")
        for status, row in TABLE.items()
        for type_, next_ in row.items()
    }


async def test_a_run_gets_a_gapless_chained_log_from_accepted_to_result(
    api_engine: AsyncEngine, worker_engine: AsyncEngine, tenant: UUID
) -> None:
    run_id = await running(api_engine, worker_engine, tenant, token("a"), token("b"))
    [answer] = await append(worker_engine, batch(run_id, 1, 2, token("c"), result()))
    assert (answer.verdict, answer.first_seq, answer.last_seq, answer.status) == ("ok", 5, 6, "completed")
    events = await read(api_engine, run_id)
    assert [event.seq for event in events] == [1, 2, 3, 4, 5, 6]
    assert [event.epoch for event in events] == [0, 1, 1, 1, 1, 1]
    async with api_engine.connect() as connection:
        head = await log.head(connection, run_id)
    assert head is not None
    assert chain.verify(run_id, tenant, events, head.seq, head.chain).ok


async def test_a_batch_sent_twice_is_stored_once_and_answers_the_stored_range(
    api_engine: AsyncEngine, worker_engine: AsyncEngine, tenant: UUID
) -> None:
    run_id = await running(api_engine, worker_engine, tenant)
    again = batch(run_id, 1, 2, token("a"), token("b"))
    [first] = await append(worker_engine, again)
    async with api_engine.begin() as connection:  # a control event in between must not move the answer
        await log.control(connection, run_id, CANCEL)
    [second] = await append(worker_engine, again)
    assert (second.verdict, second.first_seq, second.last_seq) == ("duplicate", first.first_seq, first.last_seq)
    assert second.recorded_us == first.recorded_us
    assert second.cancel
    assert len(await read(api_engine, run_id)) == 5


async def test_a_closing_batch_sent_twice_is_a_duplicate_and_a_later_one_meets_closed(
    api_engine: AsyncEngine, worker_engine: AsyncEngine, tenant: UUID
) -> None:
    run_id = await running(api_engine, worker_engine, tenant)
    closing = batch(run_id, 1, 2, result())
    assert [a.verdict for a in await append(worker_engine, closing)] == ["ok"]
    assert [a.verdict for a in await append(worker_engine, closing)] == ["duplicate"]
    assert [a.verdict for a in await append(worker_engine, batch(run_id, 1, 3, token("late")))] == ["closed"]


async def test_an_owner_that_lost_its_claim_adds_nothing(
    api_engine: AsyncEngine, worker_engine: AsyncEngine, tenant: UUID
) -> None:
    opened = await open_run(api_engine, tenant)
    assert (await claim(worker_engine, opened.run_id, lease_s=0.0)).epoch == 1
    assert (await claim(worker_engine, opened.run_id)).epoch == 2
    [old] = await append(worker_engine, batch(opened.run_id, 1, 1, started()))
    assert old.verdict == "fenced"
    [new] = await append(worker_engine, batch(opened.run_id, 2, 1, started()))
    assert new.verdict == "ok"
    assert len(await read(api_engine, opened.run_id)) == 2


@pytest.mark.parametrize("epoch", [0, 2, -1])
async def test_a_wrong_epoch_does_not_pass_the_fence(
    api_engine: AsyncEngine, worker_engine: AsyncEngine, tenant: UUID, epoch: int
) -> None:
    run_id = await running(api_engine, worker_engine, tenant)
    [answer] = await append(worker_engine, batch(run_id, epoch, 2, token("x")))
    assert answer.verdict == "fenced"


async def test_a_missing_epoch_does_not_pass_the_fence(
    api_engine: AsyncEngine, worker_engine: AsyncEngine, tenant: UUID
) -> None:
    run_id = await running(api_engine, worker_engine, tenant)
    call = """SELECT verdict FROM runwire.append(ARRAY[%(run)s]::uuid[], ARRAY[NULL]::integer[], ARRAY[2], ARRAY[1],
        ARRAY[sha256('')], ARRAY['token'], ARRAY[1]::smallint[], ARRAY[1]::bigint[], ARRAY[0]::smallint[],
        ARRAY[NULL]::uuid[], ARRAY['{}']::bytea[], 30)"""
    async with worker_engine.begin() as connection:
        assert (await connection.exec_driver_sql(call, {"run": run_id})).scalar_one() == "fenced"


async def test_a_run_that_nobody_claimed_takes_no_worker_events(
    api_engine: AsyncEngine, worker_engine: AsyncEngine, tenant: UUID
) -> None:
    opened = await open_run(api_engine, tenant)
    [answer] = await append(worker_engine, batch(opened.run_id, 0, 1, started()))
    assert answer.verdict == "fenced"


async def test_a_live_lease_holds_and_a_released_one_is_free(
    api_engine: AsyncEngine, worker_engine: AsyncEngine, tenant: UUID
) -> None:
    opened = await open_run(api_engine, tenant)
    first = await claim(worker_engine, opened.run_id)
    assert (await claim(worker_engine, opened.run_id)).verdict == "held"
    async with worker_engine.begin() as connection:
        await log.release(connection, opened.run_id, first.epoch or 0)
    assert (await claim(worker_engine, opened.run_id)).verdict == "claimed"


async def test_every_verdict_in_every_place_of_a_group_leaves_its_neighbours_whole(
    api_engine: AsyncEngine, worker_engine: AsyncEngine, tenant: UUID
) -> None:
    """Six verdicts and two good runs, in all orders of a sample: nobody's event lands in another run."""
    for order in itertools.islice(itertools.permutations(range(8)), 0, None, 1009):
        kinds = ["ok", "ok", "duplicate", "out_of_order", "fenced", "closed", "refused", "unknown"]
        wanted = {}
        batches = []
        for kind in kinds:
            run_id = await running(api_engine, worker_engine, tenant)
            number, epoch = 2, 1
            bodies: list[Body] = [token(f"{kind} {n}") for n in range(3)]
            if kind == "duplicate":
                number, bodies = 1, [started()]
            elif kind == "out_of_order":
                number = 7
            elif kind == "fenced":
                epoch = 9
            elif kind == "closed":
                await append(worker_engine, batch(run_id, 1, 2, result()))
                number = 3
            elif kind == "refused":
                async with api_engine.begin() as connection:
                    await log.control(connection, run_id, CANCEL)
                bodies = [token("refused 0"), result()]
            elif kind == "unknown":
                run_id = (await open_run(api_engine, tenant)).run_id.__class__(int=run_id.int ^ 1)
            batches.append(batch(run_id, epoch, number, *bodies))
            wanted[run_id] = kind
        shuffled = [batches[index] for index in order]
        answers = await append(worker_engine, *shuffled)
        assert [answer.verdict for answer in answers] == [wanted[one.run_id] for one in shuffled]
        for one in shuffled:
            texts = [event.fact().data["text"] for event in await read(api_engine, one.run_id) if event.type == "token"]
            kind = wanted[one.run_id]
            assert texts == ([f"{kind} {n}" for n in range(3)] if kind == "ok" else [])


async def test_a_result_after_a_cancel_request_is_refused_whole(
    api_engine: AsyncEngine, worker_engine: AsyncEngine, tenant: UUID
) -> None:
    run_id = await running(api_engine, worker_engine, tenant)
    async with api_engine.begin() as connection:
        asked = await log.control(connection, run_id, CANCEL)
    assert (asked.verdict, asked.status, asked.owned) == ("ok", "stopping", True)
    [answer] = await append(worker_engine, batch(run_id, 1, 2, token("x"), result()))
    assert (answer.verdict, answer.cancel) == ("refused", True)
    assert [event.type for event in await read(api_engine, run_id)] == ["accepted", "started", "cancel_requested"]


async def test_nothing_follows_a_terminal_event_even_in_its_own_batch(
    api_engine: AsyncEngine, worker_engine: AsyncEngine, tenant: UUID
) -> None:
    run_id = await running(api_engine, worker_engine, tenant)
    [answer] = await append(worker_engine, batch(run_id, 1, 2, result(), result()))
    assert answer.verdict == "refused"


async def test_a_worker_cannot_write_what_only_the_api_may(
    api_engine: AsyncEngine, worker_engine: AsyncEngine, tenant: UUID
) -> None:
    run_id = await running(api_engine, worker_engine, tenant)
    forged = log.Batch(run_id, 1, 2, [CANCEL])
    assert [answer.verdict for answer in await append(worker_engine, forged)] == ["refused"]


async def test_asking_twice_to_stop_is_asking_once_and_after_the_end_nothing_happens(
    api_engine: AsyncEngine, worker_engine: AsyncEngine, tenant: UUID
) -> None:
    run_id = await running(api_engine, worker_engine, tenant)
    async with api_engine.begin() as connection:
        verdicts = [(await log.control(connection, run_id, CANCEL)).verdict for _ in range(2)]
    assert verdicts == ["ok", "already"]
    done = await running(api_engine, worker_engine, tenant)
    await append(worker_engine, batch(done, 1, 2, result()))
    async with api_engine.begin() as connection:
        assert (await log.control(connection, done, CANCEL)).verdict == "closed"


async def test_the_same_idempotency_key_opens_one_run(api_engine: AsyncEngine, tenant: UUID) -> None:
    first = await open_run(api_engine, tenant, key="k1", digest=b"same")
    again = await open_run(api_engine, tenant, key="k1", digest=b"same")
    other = await open_run(api_engine, tenant, key="k1", digest=b"other")
    assert (again.verdict, again.run_id) == ("replayed", first.run_id)
    assert other.verdict == "mismatch"


async def test_recorded_time_never_decreases_within_a_run(
    api_engine: AsyncEngine, worker_engine: AsyncEngine, owner_engine: AsyncEngine, tenant: UUID
) -> None:
    run_id = await running(api_engine, worker_engine, tenant)
    async with owner_engine.begin() as connection:  # as if the clock had been an hour ahead and was set right
        await connection.execute(
            text("UPDATE runwire.head SET recorded_us = recorded_us + 3600000000 WHERE run_id = :run"), {"run": run_id}
        )
    [answer] = await append(worker_engine, batch(run_id, 1, 2, token("x")))
    events = await read(api_engine, run_id)
    assert answer.recorded_us == events[-1].recorded_us
    assert events[-1].recorded_us - events[-2].recorded_us == 3_600_000_000


async def test_forgotten_runs_are_offered_once_per_interval(
    api_engine: AsyncEngine, worker_engine: AsyncEngine, tenant: UUID
) -> None:
    opened = await open_run(api_engine, tenant)
    async with worker_engine.begin() as connection:
        mine = [lost for lost in await log.forgotten(connection, 0.0, 1000) if lost.run_id == opened.run_id]
        again = [lost for lost in await log.forgotten(connection, 60.0, 1000) if lost.run_id == opened.run_id]
    assert [lost.status for lost in mine] == ["queued"]
    assert again == []


async def test_another_tenants_run_looks_like_none(
    api_engine: AsyncEngine, owner_engine: AsyncEngine, tenant: UUID
) -> None:
    opened = await open_run(api_engine, tenant)
    stranger = await new_tenant(owner_engine)
    async with api_engine.connect() as connection:
        assert await catalogue.find_run(connection, tenant, opened.run_id) is not None
        assert await catalogue.find_run(connection, stranger, opened.run_id) is None


async def test_the_straight_way_to_the_driver_answers_and_fails_as_the_other_one(
    api_engine: AsyncEngine, worker_engine: AsyncEngine, tenant: UUID
) -> None:
    run_id = await running(api_engine, worker_engine, tenant, token("a"))
    asked = {"run": run_id, "after": 0, "limit": 10, "bytes": 10_000}
    async with api_engine.connect() as connection:
        assert await hot_rows(connection, "read_after", asked) == [
            tuple(row) for row in await rows(connection, "read_after", asked)
        ]
        for say in (rows, hot_rows):
            with pytest.raises(DataError) as fault:
                await say(connection, "read_after", {**asked, "limit": -9})
            assert str(run_id) not in str(fault.value)
            await connection.rollback()
        assert len(await hot_rows(connection, "read_after", asked)) == 3


async def test_a_connection_that_was_cut_is_told_in_the_same_way(
    api_engine: AsyncEngine, owner_engine: AsyncEngine, tenant: UUID
) -> None:
    async with api_engine.connect() as connection:
        [[backend]] = await connection.execute(text("SELECT pg_backend_pid()"))
        async with owner_engine.begin() as owner:
            await owner.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": backend})
        with pytest.raises(OperationalError):
            await hot_rows(connection, "read_after", {"run": tenant, "after": 0, "limit": 1, "bytes": 1})
        await connection.invalidate()


async def test_a_statement_straight_to_the_driver_begins_a_transaction_as_any_other(
    api_engine: AsyncEngine, tenant: UUID
) -> None:
    asked = {"run": tenant, "after": 0, "limit": 1, "bytes": 1}
    async with api_engine.connect() as connection:
        await hot_rows(connection, "read_after", asked)
        assert connection.in_transaction(), "nobody could commit it"
    async with api_engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        await hot_rows(connection, "read_after", asked)
        assert not connection.in_transaction()
