"""The recorder against a real log: groups, joined pieces, lost answers, lost claims; readers are told afterwards."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID

import psycopg
import pytest
import pytest_asyncio
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from eventstore import log
from eventstore.domain.errors import AppendRefused, EventStoreError, Fenced, NotStorable, RunClosed, UnknownRun
from eventstore.domain.events import Body, CancelObserved, CancelRequested, Person, Usage, new_event
from eventstore.domain.record import NewEvent, Recorded
from eventstore.recorder import Recorder
from eventstore.run_writer import BUFFER_CHARS_MAX, PIECE_CHARS_MAX, Entry, RunWriter
from eventstore.wakeups import MOVED, listen, parse_moved
from ops.services import Endpoints
from tests.recording import Claimed, claiming, held, recording, stored
from tests.waiting import until
from tests.writing import NOW_US, claim, new_tenant, result, started, token

CANCEL = new_event(CancelRequested(by=Person(subject="ada", role="user"), reason="enough"), NOW_US)
JOINS = ("token", "draft#1")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def tenant(owner_engine: AsyncEngine) -> UUID:
    return await new_tenant(owner_engine)


@pytest_asyncio.fixture(loop_scope="session")
async def at_work(worker_engine: AsyncEngine, redis: Redis) -> AsyncIterator[Recorder]:
    async with recording(worker_engine, redis) as made:
        yield made


@pytest.fixture
def claimed(api_engine: AsyncEngine, worker_engine: AsyncEngine, tenant: UUID) -> Claimed:
    return claiming(api_engine, worker_engine, tenant)


def texts(events: Sequence[Recorded]) -> list[str]:
    return [event.fact().data["text"] for event in events if event.type == "token"]


async def piece(writer: RunWriter, said: str) -> Entry:
    return await writer.push_piece(JOINS, said, token)


async def test_an_idle_recorder_stores_an_event_at_once_and_tells_its_place(
    at_work: Recorder, api_engine: AsyncEngine, claimed: Claimed
) -> None:
    writer = at_work.open(await claimed(), 1)
    async with asyncio.timeout(2):  # no timer can be behind it: the next heartbeat is an hour away
        first = await writer.record(started())
        second = await writer.stored(await piece(writer, "a"))
    events = await stored(api_engine, writer.run_id)
    assert [(event.seq, event.recorded_us) for event in events[1:]] == [
        (first.seq, first.recorded_us),
        (second.seq, second.recorded_us),
    ]
    assert writer.last_us == second.recorded_us


async def test_pieces_that_come_while_a_commit_is_in_flight_are_joined_and_none_is_lost(
    at_work: Recorder, api_engine: AsyncEngine, owner_engine: AsyncEngine, claimed: Claimed
) -> None:
    writer = at_work.open(await claimed(), 1)
    await writer.record(started())
    async with held(owner_engine, writer.run_id) as waits:
        first = await piece(writer, "first ")
        await until(waits)
        entries = [await piece(writer, f"{n} ") for n in range(100)]
        assert len(set(map(id, entries))) == 1
        between = writer.push(token("between "))
        last = await piece(writer, "last")
    await writer.flush()
    events = await stored(api_engine, writer.run_id)
    joined = "".join(f"{n} " for n in range(100))
    assert texts(events) == ["first ", joined, "between ", "last"]
    assert [first.seq, entries[0].seq, between.seq, last.seq] == [3, 4, 5, 6]


async def test_pieces_of_another_kind_and_pieces_that_grow_too_long_are_not_joined(
    at_work: Recorder, api_engine: AsyncEngine, owner_engine: AsyncEngine, claimed: Claimed
) -> None:
    writer = at_work.open(await claimed(), 1)
    await writer.record(started())
    half = "x" * (PIECE_CHARS_MAX // 2)
    async with held(owner_engine, writer.run_id) as waits:
        await piece(writer, "in flight")
        await until(waits)
        for said in (half, half, "y"):
            await piece(writer, said)
        await writer.push_piece(("token", "other"), "z", token)
        await piece(writer, "y")
    await writer.flush()
    assert texts(await stored(api_engine, writer.run_id)) == ["in flight", half + half, "y", "z", "y"]


async def test_a_storm_of_writers_loses_nothing_doubles_nothing_and_keeps_every_order(
    at_work: Recorder, api_engine: AsyncEngine, claimed: Claimed
) -> None:
    async def write(writer: RunWriter) -> str:
        await writer.record(started())
        said = []
        for n in range(300):
            said.append(f"{n}-{writer.run_id.hex[-4:]} ")
            await piece(writer, said[-1])
            if n % 7 == 0:
                await asyncio.sleep(0)
            if n % 100 == 50:
                await writer.flush()
        await writer.record(result())
        return "".join(said)

    writers = [at_work.open(await claimed(), 1) for _ in range(15)]
    wanted = await asyncio.gather(*map(write, writers))
    for writer, said in zip(writers, wanted, strict=True):
        events = await stored(api_engine, writer.run_id)
        assert "".join(texts(events)) == said
        assert events[-1].type == "result"


async def test_a_heartbeat_renews_the_lease_of_a_silent_run(
    worker_engine: AsyncEngine, owner_engine: AsyncEngine, redis: Redis, claimed: Claimed
) -> None:
    run_id = await claimed()

    async def lease() -> Any:
        async with owner_engine.connect() as connection:
            found = await connection.execute(
                text("SELECT lease_until, seq FROM runwire.head WHERE run_id = :run"), {"run": run_id}
            )
            return found.one()

    before = await lease()
    async with recording(worker_engine, redis, lease_s=300, heartbeat_s=0.02) as made:
        made.open(run_id, 1)

        async def moved() -> bool:
            return bool((await lease()).lease_until > before.lease_until)

        await until(moved)
        again = await lease()

        async def moved_again() -> bool:
            return bool((await lease()).lease_until > again.lease_until)

        await until(moved_again)
    assert (await lease()).seq == before.seq


async def test_an_owner_that_lost_its_claim_is_told_everywhere_and_adds_nothing(
    at_work: Recorder, worker_engine: AsyncEngine, api_engine: AsyncEngine, owner_engine: AsyncEngine, claimed: Claimed
) -> None:
    writer = at_work.open(await claimed(), 1)
    await writer.record(started())
    async with worker_engine.begin() as connection:
        await log.release(connection, writer.run_id, 1)
    assert (await claim(worker_engine, writer.run_id)).epoch == 2
    waiting = writer.push(token("late"))
    with pytest.raises(Fenced):
        await writer.record(token("later"))
    with pytest.raises(Fenced):
        await writer.stored(waiting)
    with pytest.raises(Fenced):
        await writer.flush()
    with pytest.raises(Fenced):
        await piece(writer, "latest")
    assert isinstance(writer.drop_refused(), Fenced)
    assert isinstance(writer.fault, Fenced)
    assert texts(await stored(api_engine, writer.run_id)) == []


async def test_a_run_that_was_given_back_is_free_whatever_heartbeat_was_on_its_way(
    worker_engine: AsyncEngine, claimed: Claimed
) -> None:
    run_id = await claimed()
    async with worker_engine.begin() as connection:
        await log.release(connection, run_id, 1)
        assert [a.verdict for a in await log.append(connection, [log.Batch(run_id, 1, 0, [])], 30.0)] == ["ok"]
    assert (await claim(worker_engine, run_id)).verdict == "claimed"


async def test_a_silent_owner_learns_of_its_lost_claim_by_heartbeat(
    worker_engine: AsyncEngine, redis: Redis, claimed: Claimed
) -> None:
    async with recording(worker_engine, redis, heartbeat_s=0.02) as made:
        writer = made.open(await claimed(), 1)
        async with worker_engine.begin() as connection:
            await log.release(connection, writer.run_id, 1)
        await claim(worker_engine, writer.run_id)
        await asyncio.wait_for(writer.broken(), 5)
        with pytest.raises(Fenced):
            await writer.flush()


async def test_a_cancel_request_reaches_the_writer_with_the_next_answer_or_the_next_nudge(
    at_work: Recorder, api_engine: AsyncEngine, claimed: Claimed
) -> None:
    talking, silent = at_work.open(await claimed(), 1), at_work.open(await claimed(), 1)
    await talking.record(started())
    async with api_engine.begin() as connection:
        for writer in (talking, silent):
            assert (await log.control(connection, writer.run_id, CANCEL)).verdict == "ok"
    await talking.record(token("a"))
    assert talking.cancel.is_set()
    assert not silent.cancel.is_set()
    at_work.nudge(None)
    await asyncio.wait_for(silent.cancel.wait(), 5)


async def test_after_a_refusal_the_owner_can_drop_what_waited_and_go_on(
    at_work: Recorder, api_engine: AsyncEngine, claimed: Claimed
) -> None:
    writer = at_work.open(await claimed(), 1)
    await writer.record(started())
    async with api_engine.begin() as connection:
        await log.control(connection, writer.run_id, CANCEL)
    writer.push(token("lost with the result"))
    with pytest.raises(AppendRefused, match="refused"):
        await writer.record(result())
    assert isinstance(writer.drop_refused(), AppendRefused)
    assert writer.drop_refused() is None
    await writer.record(CancelObserved(seen_us=NOW_US, usage=Usage()))
    types = [event.type for event in await stored(api_engine, writer.run_id)]
    assert types == ["accepted", "started", "cancel_requested", "cancel_observed"]


async def test_everybody_who_waits_for_a_dropped_event_is_told(
    at_work: Recorder, api_engine: AsyncEngine, claimed: Claimed
) -> None:
    writer = at_work.open(await claimed(), 1)
    await writer.record(started())
    async with api_engine.begin() as connection:
        await log.control(connection, writer.run_id, CANCEL)

    async def first() -> None:
        try:
            await writer.record(result())
        except AppendRefused:
            writer.drop_refused()
            raise

    async def other() -> None:
        await writer.record(token("a"))

    told = await asyncio.wait_for(asyncio.gather(first(), other(), other(), return_exceptions=True), 5)
    assert [type(fault) for fault in told] == [AppendRefused] * 3


async def test_a_closed_or_replaced_writer_leaves_nobody_waiting(
    at_work: Recorder, owner_engine: AsyncEngine, claimed: Claimed
) -> None:
    run_id = await claimed()
    old = at_work.open(run_id, 1)
    new = at_work.open(run_id, 2)
    with pytest.raises(Fenced):
        await asyncio.wait_for(old.record(started()), 5)
    at_work.close(old)
    at_work.close(new)
    with pytest.raises(EventStoreError):
        await asyncio.wait_for(new.record(started()), 5)


async def test_an_ended_or_unknown_run_is_told_as_such(at_work: Recorder, claimed: Claimed) -> None:
    writer = at_work.open(await claimed(), 1)
    writer.push(started())
    await writer.record(result())
    with pytest.raises(RunClosed):
        await writer.record(token("late"))
    stranger = at_work.open(UUID(int=writer.run_id.int ^ 1), 1)
    with pytest.raises(UnknownRun):
        await stranger.record(started())


async def test_one_runs_bad_event_is_no_other_runs_trouble(
    at_work: Recorder, api_engine: AsyncEngine, owner_engine: AsyncEngine, claimed: Claimed
) -> None:
    good, bad, worse = [at_work.open(await claimed(), 1) for _ in range(3)]

    def impossible(said: str) -> Body:
        raise ValueError(said)

    with pytest.raises(NotStorable):
        await piece(bad, "half a pair \ud83d")
    assert bad.fault is None
    async with held(owner_engine, good.run_id) as waits:
        good.push(started())
        await until(waits)
        bad.push(started())
        await bad.push_piece(JOINS, "text", impossible)
        worse._add(Entry(lambda: NewEvent("started", 10**6, 1, b"{}"), 1))
        good.push(token("a"))
    await good.flush()
    for writer in (bad, worse):
        with pytest.raises(AppendRefused, match="unstorable"):
            await writer.flush()
    assert texts(await stored(api_engine, good.run_id)) == ["a"]


@pytest.mark.parametrize("lost", ["answer", "answer twice", "question"])
async def test_when_an_answer_is_lost_the_same_batch_is_sent_again_and_stored_once(
    at_work: Recorder, api_engine: AsyncEngine, claimed: Claimed, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    real, sent = log.append, []
    faults = 2 if lost == "answer twice" else 1

    async def unlucky(connection: AsyncConnection, batches: Sequence[log.Batch], lease_s: float) -> list[log.Answer]:
        sent.append(list(batches))
        if len(sent) <= faults:
            if lost != "question":
                assert all(a.verdict in ("ok", "duplicate") for a in await real(connection, batches, lease_s))
            raise OperationalError("append", {}, psycopg.OperationalError("the connection is lost"))
        return await real(connection, batches, lease_s)

    writers = [at_work.open(await claimed(), 1) for _ in range(3)]
    for writer in writers:
        await writer.record(started())
    monkeypatch.setattr(log, "append", unlucky)
    for writer in writers:
        writer.push(token("once"))
        await piece(writer, "and this")
    entries = [await writer.record(token("too")) for writer in writers]
    assert sent[0] == sent[faults], "another batch under the same name"
    for writer, entry in zip(writers, entries, strict=True):
        events = await stored(api_engine, writer.run_id)
        assert texts(events) == ["once", "and this", "too"]
        assert (entry.seq, entry.recorded_us) == (events[-1].seq, events[-1].recorded_us)


async def test_a_cut_connection_in_the_middle_of_a_commit_costs_nothing(
    at_work: Recorder, api_engine: AsyncEngine, owner_engine: AsyncEngine, claimed: Claimed
) -> None:
    writer = at_work.open(await claimed(), 1)
    await writer.record(started())
    async with held(owner_engine, writer.run_id) as waits:
        entry = writer.push(token("a"))
        await until(waits)
        async with owner_engine.connect() as connection:
            cut = text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tests-worker'")
            assert (await connection.execute(cut)).all()
        writer.push(token("b"))
    await writer.flush()
    assert texts(await stored(api_engine, writer.run_id)) == ["a", "b"]
    assert entry.seq == 3


async def test_while_the_database_is_away_everything_waits_and_nothing_is_lost(
    at_work: Recorder, api_engine: AsyncEngine, services: Endpoints, database_url: str, claimed: Claimed
) -> None:
    writers = [at_work.open(await claimed(), 1) for _ in range(3)]
    for writer in writers:
        await writer.record(started())
    name = make_url(database_url).database
    admin = make_url(services.database_url).set(drivername="postgresql").render_as_string(hide_password=False)
    async with await psycopg.AsyncConnection.connect(admin, autocommit=True) as connection:
        door = psycopg.sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
        identifier = psycopg.sql.Identifier(name or "")
        await connection.execute(door.format(identifier, psycopg.sql.SQL("false")))
        try:
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,)
            )
            said = [[f"{n} " for n in range(50)] for _ in writers]
            for writer, pieces in zip(writers, said, strict=True):
                for one in pieces:
                    await piece(writer, one)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(writers[0].flush(), 0.3)
        finally:
            await connection.execute(door.format(identifier, psycopg.sql.SQL("true")))
    await asyncio.wait_for(asyncio.gather(*(writer.flush() for writer in writers)), 10)
    for writer, pieces in zip(writers, said, strict=True):
        assert "".join(texts(await stored(api_engine, writer.run_id))) == "".join(pieces)


async def test_a_producer_waits_while_its_buffer_is_full(
    at_work: Recorder, api_engine: AsyncEngine, owner_engine: AsyncEngine, claimed: Claimed
) -> None:
    writer, other = at_work.open(await claimed(), 1), at_work.open(await claimed(), 1)
    await writer.record(started())
    said = 0

    async def produce() -> None:
        nonlocal said
        for _ in range(200):
            await piece(writer, "x" * 5_000)
            said += 5_000

    async with held(owner_engine, writer.run_id):
        producer = asyncio.create_task(produce())
        await until(lambda: said > BUFFER_CHARS_MAX)
        await asyncio.wait([producer], timeout=0.05)
        assert not producer.done()
        assert said <= BUFFER_CHARS_MAX + 5_000
        await other.push_piece(JOINS, "a full neighbour stops nobody else", token)
    await asyncio.wait_for(producer, 20)
    await writer.flush()
    assert writer._chars == 0
    assert sum(map(len, texts(await stored(api_engine, writer.run_id)))) == 200 * 5_000


async def test_a_producer_that_waits_for_room_learns_that_it_is_fenced(
    at_work: Recorder, worker_engine: AsyncEngine, owner_engine: AsyncEngine, claimed: Claimed
) -> None:
    writer = at_work.open(await claimed(), 1)
    await writer.record(started())

    async def produce() -> None:
        while True:
            await piece(writer, "x" * 8_000)

    async with held(owner_engine, writer.run_id) as waits:
        producer = asyncio.create_task(produce())
        await until(waits)
        await until(lambda: writer._chars > BUFFER_CHARS_MAX)
        async with AsyncExitStack():
            writer.fail(Fenced())
    with pytest.raises(Fenced):
        await asyncio.wait_for(producer, 5)


async def test_readers_are_told_only_of_what_can_be_read(
    at_work: Recorder, api_engine: AsyncEngine, owner_engine: AsyncEngine, redis: Redis, claimed: Claimed
) -> None:
    writer = at_work.open(await claimed(), 1)
    told: list[int] = []
    listening = asyncio.Event()

    async def hear() -> None:
        async for _, payload in listen(redis, MOVED):
            listening.set()
            for run_id, seq in parse_moved(payload):
                if run_id == writer.run_id:
                    async with api_engine.connect() as connection:
                        head = await log.head(connection, run_id)
                    assert head is not None
                    assert head.seq >= seq
                    told.append(seq)

    hearing = asyncio.create_task(hear())
    await asyncio.wait_for(listening.wait(), 5)
    await writer.record(started())
    async with held(owner_engine, writer.run_id) as waits:
        await until(lambda: told == [2])
        writer.push(token("a"))
        await until(waits)
        assert told == [2], "told before it was stored"
    for _ in range(30):
        await writer.record(token("b"))
    await until(lambda: told[-1:] == [33])
    assert told == sorted(told)
    assert not hearing.done()
    hearing.cancel()
    await asyncio.wait([hearing])


async def test_without_redis_everything_is_stored_all_the_same(
    worker_engine: AsyncEngine, api_engine: AsyncEngine, claimed: Claimed
) -> None:
    away = Redis.from_url("redis://127.0.0.1:1/0", socket_connect_timeout=0.5)
    async with recording(worker_engine, away) as made:
        writer = made.open(await claimed(), 1)
        await writer.record(started())
        for n in range(10):
            await writer.record(token(str(n)))
    await away.aclose()
    assert len(await stored(api_engine, writer.run_id)) == 12
