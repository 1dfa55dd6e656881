"""Followers of a run: each event once from any cursor, whatever the wake-ups do; slow readers cost nothing."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from uuid import UUID, uuid4

import pytest
import pytest_asyncio
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from eventstore import log, tail
from eventstore.domain.events import Body
from eventstore.log import PAGE_BYTES_MAX, Page
from eventstore.recorder import Recorder
from eventstore.tail import RING_BYTES_MAX, RING_EVENTS_MAX, Tail, Tails
from eventstore.wakeups import MOVED, moved_payload, publish
from tests.waiting import until
from tests.writing import NOW_US, append, batch, new_tenant, open_run, result, running, token

NEVER_S = 3600.0


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def tenant(owner_engine: AsyncEngine) -> UUID:
    return await new_tenant(owner_engine)


@asynccontextmanager
async def following(engine: AsyncEngine, redis: Redis) -> AsyncIterator[Tails]:
    """A process's tails at work."""
    tails = Tails(engine, redis)
    task = asyncio.create_task(tails.run())
    try:
        yield tails
        assert not task.done(), task
    finally:
        task.cancel()
        await asyncio.wait([task])


@pytest_asyncio.fixture(loop_scope="session")
async def tails(api_engine: AsyncEngine, redis: Redis) -> AsyncIterator[Tails]:
    async with following(api_engine, redis) as made:
        yield made


@pytest.fixture
def no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "TIMER_S", NEVER_S)


@pytest.fixture
def quick_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "TIMER_S", 0.02)


@pytest.fixture
def run_of(api_engine: AsyncEngine, worker_engine: AsyncEngine, tenant: UUID) -> Callable[..., Awaitable[UUID]]:
    """Makes claimed runs that hold `accepted`, `started` and these."""

    async def make(*bodies: Body) -> UUID:
        return await running(api_engine, worker_engine, tenant, *bodies)

    return make


RunOf = Callable[..., Awaitable[UUID]]


async def read_to_the_end(
    tails: Tails, run_id: UUID, after: int = 0, *, limit: int = 50, leave_after: int | None = None
) -> list[int]:
    """What one reader is given, from its cursor to the terminal event or until it has had enough."""
    seqs: list[int] = []
    with tails.follow(run_id) as tail_:
        while True:
            page = await tail_.page(after, limit)
            assert len(page) <= limit
            for entry in page:
                assert entry.fact.seq == entry.seq
                seqs.append(entry.seq)
                after = entry.seq
                if entry.fact.type == "result" or len(seqs) == leave_after:
                    return seqs
            if not page:
                await tail_.moved(after, 1.0)


@asynccontextmanager
async def storm(engine: AsyncEngine, redis: Redis, runs: list[UUID], pieces: int) -> AsyncIterator[asyncio.Task[None]]:
    """Writers that write as fast as the log takes it, with real wake-ups, each to its run's end."""
    recorder = Recorder(engine, redis, lease_s=60, heartbeat_s=NEVER_S, clock_us=lambda: NOW_US)
    working = asyncio.create_task(recorder.run())

    async def write(run_id: UUID) -> None:
        writer = recorder.open(run_id, 1)
        writer._batch_no = 1  # the run's first batch is in the log
        for n in range(pieces):
            writer.push(token(f"{n}"))
            if n % 5 == 0:
                await asyncio.sleep(0)
            if n % 20 == 0:
                await writer.flush()
        await writer.record(result())

    async def write_all() -> None:
        await asyncio.gather(*map(write, runs))

    writing = asyncio.create_task(write_all())
    yield writing
    await writing
    working.cancel()
    await asyncio.wait([working])


async def test_readers_at_any_cursor_get_each_event_once_while_it_is_being_written(
    tails: Tails, worker_engine: AsyncEngine, redis: Redis, run_of: RunOf
) -> None:
    runs, pieces = [await run_of() for _ in range(4)], 200
    last = 2 + pieces + 1
    dice = random.Random(4)

    async def come_and_go(run_id: UUID) -> list[int]:
        """Leaves at random places and comes back with its cursor."""
        seqs: list[int] = []
        while not seqs or seqs[-1] < last:
            after = seqs[-1] if seqs else 0
            leave_after, limit = dice.randint(1, 60), dice.randint(1, 80)
            seqs += await read_to_the_end(tails, run_id, after, limit=limit, leave_after=leave_after)
            await asyncio.sleep(0)
        return seqs

    async with asyncio.timeout(30), storm(worker_engine, redis, runs, pieces):
        starts = [(run_id, dice.randint(0, last - 1)) for run_id in runs for _ in range(8)]
        straight = [read_to_the_end(tails, run_id, after, limit=dice.randint(1, 80)) for run_id, after in starts]
        wandering = [come_and_go(run_id) for run_id in runs for _ in range(3)]
        told = await asyncio.gather(*straight, *wandering)
    for (_, after), seqs in zip(starts, told, strict=False):
        assert seqs == list(range(after + 1, last + 1))
    for seqs in told[len(starts) :]:
        assert seqs == list(range(1, last + 1))


@pytest.mark.usefixtures("quick_timer")
async def test_lost_doubled_reordered_and_forged_wake_ups_change_nothing(
    tails: Tails, worker_engine: AsyncEngine, redis: Redis, run_of: RunOf
) -> None:
    runs, pieces = [await run_of() for _ in range(3)], 150
    away = Redis.from_url("redis://127.0.0.1:1/0", socket_connect_timeout=0.5)  # the true ones are lost
    dice = random.Random(5)

    async def lie() -> None:
        while True:
            run_id = dice.choice([*runs, uuid4()])
            seq = dice.choice([0, 1, dice.randint(0, 200), 2**31, 10**30])
            lies = [
                moved_payload([(run_id, seq)] * 2),
                moved_payload([(r, 5) for r in runs]),
                "",
                "rubbish:1 :",
                "\x00",
            ]
            await publish(redis, MOVED, dice.choice(lies))
            await asyncio.sleep(0)

    liar = asyncio.create_task(lie())
    async with asyncio.timeout(30), storm(worker_engine, away, runs, pieces):
        told = await asyncio.gather(*(read_to_the_end(tails, run_id, n) for run_id in runs for n in range(4)))
    assert not liar.done()
    liar.cancel()
    await asyncio.wait([liar])
    await away.aclose()
    for n, seqs in enumerate(told):
        assert seqs == list(range(n % 4 + 1, 2 + pieces + 2))


@pytest.mark.usefixtures("quick_timer")
async def test_without_redis_the_timer_delivers(
    api_engine: AsyncEngine, worker_engine: AsyncEngine, run_of: RunOf
) -> None:
    away = Redis.from_url("redis://127.0.0.1:1/0", socket_connect_timeout=0.5)
    run_id = await run_of()
    async with following(api_engine, away) as tails, asyncio.timeout(10):
        reading = asyncio.create_task(read_to_the_end(tails, run_id))
        await append(worker_engine, batch(run_id, 1, 2, token("a")))
        await append(worker_engine, batch(run_id, 1, 3, result()))
        assert await reading == [1, 2, 3, 4]
    await away.aclose()


@pytest.mark.usefixtures("no_timer")
async def test_one_wake_up_is_enough(tails: Tails, worker_engine: AsyncEngine, redis: Redis, run_of: RunOf) -> None:
    run_id = await run_of()
    with tails.follow(run_id) as tail_:
        assert [entry.seq for entry in await tail_.page(0)] == [1, 2]
        await until(lambda: not tails._dirty)
        await append(worker_engine, batch(run_id, 1, 2, token("a")))
        waiting = asyncio.create_task(tail_.moved(2, 5.0))

        async def woken() -> bool:
            await publish(redis, MOVED, moved_payload([(run_id, 3)]))
            return waiting.done()

        await until(woken)
        assert await waiting
        assert [entry.seq for entry in await tail_.page(2)] == [3]


@pytest.mark.usefixtures("no_timer")
async def test_what_is_stored_between_the_first_page_and_the_tail_is_not_missed(
    tails: Tails, worker_engine: AsyncEngine, run_of: RunOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gap between history and live: no wake-up tells of this event, for nobody followed when it was stored."""
    run_id = await run_of()
    real = log.read_after

    async def late(connection: AsyncConnection, run: UUID, after: int, limit: int, bytes_max: int) -> Page:
        page = await real(connection, run, after, limit, bytes_max)
        await append(worker_engine, batch(run_id, 1, 2, token("in the gap")))
        monkeypatch.setattr(log, "read_after", real)
        return page

    monkeypatch.setattr(log, "read_after", late)
    with tails.follow(run_id) as tail_:
        assert [entry.seq for entry in await tail_.page(0)] == [1, 2]
        assert await tail_.moved(2, 5.0)
        assert [entry.seq for entry in await tail_.page(2)] == [3]


@pytest.mark.usefixtures("quick_timer")
async def test_a_cursor_past_the_end_misleads_nobody_else(
    tails: Tails, worker_engine: AsyncEngine, run_of: RunOf
) -> None:
    run_id = await run_of()
    with tails.follow(run_id) as tail_:
        assert await tail_.page(1_000_000) == []
        assert tail_.cursor == 2
        assert await tail_.moved(1_000_000, 0.05) is False
        assert [entry.seq for entry in await tail_.page(0)] == [1, 2]
        assert await tail_.moved(2, 0.0) is False, "a reader at the end would spin"
        await append(worker_engine, batch(run_id, 1, 2, token("a")))
        assert await tail_.moved(2, 5.0)
        assert [entry.seq for entry in await tail_.page(2)] == [3]
        assert await tail_.page(1_000_000) == []


@pytest.mark.parametrize("after", [2, 3, 4, 99])
async def test_a_tail_knows_that_its_run_has_ended_wherever_it_was_placed(
    tails: Tails, worker_engine: AsyncEngine, run_of: RunOf, after: int
) -> None:
    run_id = await run_of()
    await append(worker_engine, batch(run_id, 1, 2, token("a"), result()))
    with tails.follow(run_id) as tail_:
        assert [entry.seq for entry in await tail_.page(after)] == list(range(after + 1, 5))
        assert tail_.ended
        assert tail_.cursor == 4


async def test_a_run_that_nobody_knows_has_no_events(tails: Tails) -> None:
    with tails.follow(uuid4()) as tail_:
        assert await tail_.page(0) == []
        assert (tail_.cursor, tail_.ended) == (0, False)
        assert await tail_.moved(0, 0.01) is False


async def test_a_queued_run_is_followed_from_its_first_event(
    tails: Tails, api_engine: AsyncEngine, tenant: UUID
) -> None:
    opened = await open_run(api_engine, tenant)
    with tails.follow(opened.run_id) as tail_:
        assert [entry.seq for entry in await tail_.page(0)] == [1]


async def grow(tails: Tails, worker: AsyncEngine, tail_: Tail, batches: int, size: int, text: str) -> int:
    """Many more events while somebody reads at the front; answers the last seq."""
    last = tail_.cursor or 0
    for number in range(2, 2 + batches):
        await append(worker, batch(tail_.run_id, 1, number, *[token(text)] * size))
        tails.ask(tail_.run_id)
        assert await tail_.moved(last, 5.0)
        while page := await tail_.page(last, 10_000):
            assert [entry.seq for entry in page] == list(range(last + 1, last + 1 + len(page)))
            last = page[-1].seq
        assert len(tail_._ring) <= RING_EVENTS_MAX
        assert tail_._bytes == sum(len(entry.recorded.body) for entry in tail_._ring)
        assert tail_._bytes <= RING_BYTES_MAX
    return last


@pytest.mark.parametrize(("size", "text"), [(400, "x"), (30, "y" * 20_000)], ids=["many", "large"])
async def test_a_slow_reader_falls_out_of_the_ring_and_catches_up_by_pages(
    tails: Tails, worker_engine: AsyncEngine, run_of: RunOf, size: int, text: str
) -> None:
    run_id = await run_of()
    with tails.follow(run_id) as tail_:
        slow = (await tail_.page(0))[-1].seq
        last = await grow(tails, worker_engine, tail_, 5, size, text)
        assert last == 2 + 5 * size
        assert tail_._floor > slow, "the ring holds everything, so this shows nothing"
        seqs: list[int] = []
        while page := await tail_.page(slow, 77):
            assert len(page) <= 77
            seqs += [entry.seq for entry in page]
            slow = seqs[-1]
        assert seqs == list(range(3, last + 1))


async def test_the_ring_answers_every_cursor_and_limit_as_the_log_would(
    tails: Tails, worker_engine: AsyncEngine, run_of: RunOf
) -> None:
    run_id = await run_of()
    with tails.follow(run_id) as tail_:
        await tail_.page(0)
        last = await grow(tails, worker_engine, tail_, 2, 10, "x")
        assert (tail_._floor, last) == (2, 22)
        for after in range(2, 30):
            for limit in (1, 3, 10, 500):
                assert [entry.seq for entry in tail_._from_ring(after, limit)] == list(
                    range(after + 1, min(last, after + limit) + 1)
                )


@pytest.mark.usefixtures("no_timer")
async def test_runs_with_much_to_tell_share_the_pages_and_none_waits_for_all_of_another(
    tails: Tails, worker_engine: AsyncEngine, run_of: RunOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long run beside many short ones: each page is small, and who got nothing is first in the next one."""
    asked: list[list[UUID]] = []
    given: list[dict[UUID, Page]] = []
    real = log.read_many

    async def noted(connection: AsyncConnection, cursors: dict[UUID, int]) -> dict[UUID, Page]:
        asked.append(list(cursors))
        given.append(await real(connection, cursors))
        return given[-1]

    runs = [await run_of() for _ in range(6)]
    large = token("x" * 400_000)
    with ExitStack() as followed:
        followers = {run_id: followed.enter_context(tails.follow(run_id)) for run_id in runs}
        for tail_ in followers.values():
            await tail_.page(0)
        await until(lambda: not tails._dirty)
        monkeypatch.setattr(log, "read_many", noted)
        for run_id in runs:
            for number in range(2, 2 + (9 if run_id == runs[0] else 2)):
                await append(worker_engine, batch(run_id, 1, number, large))
        for run_id in runs:
            tails.ask(run_id)
        await until(lambda: not tails._dirty and [t.cursor for t in followers.values()] == [11] + [4] * 5)
    for page in given:
        assert sum(len(event.body) for one in page.values() for event in one.events) <= PAGE_BYTES_MAX
    for before, page, after in zip(asked, given, asked[1:], strict=False):
        unread = [run_id for run_id in before if run_id in page and not page[run_id].events]
        assert after[: len(unread)] == unread
    ended = {run_id: max(n for n, page in enumerate(given) if run_id in page) for run_id in runs}
    assert max(ended, key=lambda run_id: ended[run_id]) == runs[0], "the short ones waited for the long one"


async def test_readers_of_one_run_share_their_entries_and_frames(
    tails: Tails, worker_engine: AsyncEngine, run_of: RunOf
) -> None:
    run_id = await run_of()
    with tails.follow(run_id) as one, tails.follow(run_id) as two:
        assert one is two
        await one.page(0)
        await grow(tails, worker_engine, one, 1, 3, "x")
        first, second = await one.page(2), await two.page(3)
        assert first[1] is second[0]
        assert first[0].fact is first[0].fact


async def test_a_tail_goes_with_its_last_reader_and_not_before(tails: Tails, run_of: RunOf) -> None:
    run_id = await run_of()
    with tails.follow(run_id) as first:
        with tails.follow(run_id) as second:
            assert second is first
        assert tails._tails == {run_id: first}
        with pytest.raises(RuntimeError), tails.follow(run_id):
            raise RuntimeError("a reader fails")
        assert tails._tails == {run_id: first}
        await first.page(0)
    assert tails._tails == {}
    assert run_id not in tails._dirty
    tails.ask(run_id)
    assert not tails._dirty
    with tails.follow(run_id) as later:
        assert later is not first


async def test_a_reader_gives_up_when_its_time_is_over(tails: Tails, run_of: RunOf) -> None:
    run_id = await run_of()
    with tails.follow(run_id) as tail_:
        await tail_.page(0)
        assert await tail_.moved(2, 0.01) is False
        assert await tail_.moved(1, 5.0) is True
