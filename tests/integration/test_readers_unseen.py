"""Runs without readers are judged by what every API process has told, and by nobody's silence."""

from datetime import datetime, timedelta
from uuid import UUID, uuid4

import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from api.readers import Readers
from eventstore import readers
from eventstore.domain.events import CancelRequested, Escalation, OnDisconnect, new_event
from eventstore.log import Control
from tests.running import ADA
from tests.serving import Writer
from tests.writing import NOW_US, new_tenant, open_run, started

AFTER_S, GONE_S, STEP_S = 60.0, 15.0, 5.0
OLDER = (
    "UPDATE runwire.readership SET seen_at = seen_at - make_interval(secs => :s)",
    "UPDATE runwire.reporter SET seen_at = seen_at - make_interval(secs => :s)",
    "UPDATE runwire.reporter SET since = since - make_interval(secs => :s)",
)


class Story:
    """Runs that ask for readers, and API processes that tell of theirs; time is moved by hand."""

    def __init__(self, owner: AsyncEngine, api: AsyncEngine, worker: AsyncEngine, tenant: UUID) -> None:
        self.owner, self.api, self.worker, self.tenant = owner, api, worker, tenant
        self.moved_s = 0.0

    async def submit(self) -> UUID:
        run_id = (await open_run(self.api, self.tenant)).run_id
        async with self.api.begin() as connection:
            await readers.expect(connection, run_id, OnDisconnect(cancel_after_s=AFTER_S))
        return run_id

    def process(self) -> Readers:
        return Readers(self.api, every_s=1.0, gone_s=GONE_S)

    async def passes(self, seconds: float, *telling: Readers) -> None:
        """All that is stored grows older, a few seconds at a time, and these processes tell of their readers."""
        for process in telling:
            assert await process.tell()
        for step_s in [STEP_S] * int(seconds // STEP_S) + [seconds % STEP_S] if telling else [seconds]:
            async with self.owner.begin() as connection:
                for older in OLDER:
                    await connection.execute(text(older), {"s": step_s})
            for process in telling:
                assert await process.tell()

    async def stays_there(self, process: UUID) -> None:
        """This one has not been silent for too long, however much time has passed."""
        async with self.owner.begin() as connection:
            there = (
                "UPDATE runwire.reporter SET seen_at = clock_timestamp() - interval '9 seconds' WHERE process = :name"
            )
            await connection.execute(text(there), {"name": process})

    async def unread(self) -> list[UUID]:
        async with self.worker.connect() as connection:
            return [run.run_id for run in await readers.unread(connection, GONE_S, 100)]

    async def abandon(self, run_id: UUID) -> Control:
        event = new_event(CancelRequested(by=ADA, reason="nobody was reading"), NOW_US)
        async with self.worker.begin() as connection:
            return await readers.abandon(connection, run_id, event, GONE_S)


@pytest_asyncio.fixture(loop_scope="session")
async def story(owner_engine: AsyncEngine, api_engine: AsyncEngine, worker_engine: AsyncEngine) -> Story:
    async with owner_engine.begin() as connection:
        await connection.execute(text("TRUNCATE runwire.readership, runwire.reporter"))
    return Story(owner_engine, api_engine, worker_engine, await new_tenant(owner_engine))


async def test_a_run_that_nobody_reads_is_stopped_when_its_time_is_over_and_once(story: Story) -> None:
    process, run_id = story.process(), await story.submit()
    await story.passes(AFTER_S - 1, process)
    assert (await story.unread(), (await story.abandon(run_id)).verdict) == ([], "early")
    await story.passes(5, process)
    assert await story.unread() == [run_id]
    assert (await story.abandon(run_id)).verdict == "ok"
    assert (await story.abandon(run_id)).verdict == "unknown"
    assert await story.unread() == []


async def test_without_any_process_nobody_can_tell(story: Story) -> None:
    run_id = await story.submit()
    await story.passes(10 * AFTER_S)
    assert (await story.unread(), (await story.abandon(run_id)).verdict) == ([], "early")


async def test_after_a_silence_the_time_begins_anew(story: Story) -> None:
    """The database was away, or every process: the first to come back does not speak for the others."""
    process, run_id = story.process(), await story.submit()
    await story.passes(5, process)
    await story.passes(10 * AFTER_S)
    await story.passes(AFTER_S - 1, process)
    assert (await story.unread(), (await story.abandon(run_id)).verdict) == ([], "early")
    await story.passes(5, process)
    assert await story.unread() == [run_id]


async def test_a_process_that_is_late_may_have_the_reader(story: Story) -> None:
    quick, late, run_id = story.process(), story.process(), await story.submit()
    await story.passes(AFTER_S - GONE_S + 10, quick, late)
    with late.reading(run_id):
        await story.passes(GONE_S - 2, quick)
        assert (await story.unread(), (await story.abandon(run_id)).verdict) == ([], "early")
        await story.passes(1, quick, late)
        await story.passes(AFTER_S, quick, late)
        assert await story.unread() == []
    await story.passes(AFTER_S - 1, quick, late)
    assert await story.unread() == []
    await story.passes(5, quick, late)
    assert await story.unread() == [run_id]


async def test_a_process_that_vanished_is_waited_for_and_then_forgotten(story: Story) -> None:
    quick, killed, run_id = story.process(), story.process(), await story.submit()
    with killed.reading(run_id):
        await story.passes(AFTER_S, quick, killed)
        await story.passes(AFTER_S - 1, quick)
        assert (await story.unread(), (await story.abandon(run_id)).verdict) == ([], "early")
        await story.passes(5, quick)
        assert await story.unread() == [run_id]


async def test_a_question_that_was_put_after_the_look_is_seen_by_the_judge(story: Story) -> None:
    process, run_id = story.process(), await story.submit()
    await story.passes(AFTER_S + 5, process)
    assert await story.unread() == [run_id]
    asked = {"name": "keep", "question": "Keep it?", "choices": ["yes"], "to": "reviewer", "wait_s": 60}
    await Writer(story.worker, run_id).append(started(), Escalation(**asked, key="k", place=1, args="00"))
    assert (await story.abandon(run_id)).verdict == "asked"
    assert await story.unread() == []


async def test_a_process_that_leaves_in_order_is_not_waited_for(story: Story) -> None:
    quick, leaving, run_id = story.process(), story.process(), await story.submit()
    await story.passes(AFTER_S - 2, quick, leaving)
    assert await leaving.tell(leaves=True)
    await story.passes(6, quick)
    assert await story.unread() == [run_id]


async def test_a_new_process_does_not_judge_what_it_has_not_seen(story: Story) -> None:
    run_id = await story.submit()
    await story.passes(10 * AFTER_S)
    fresh = story.process()
    await story.passes(1, fresh)
    assert (await story.unread(), (await story.abandon(run_id)).verdict) == ([], "early")


async def test_the_reader_of_one_moment_counts_from_that_moment(story: Story) -> None:
    process, run_id = story.process(), await story.submit()
    await story.passes(AFTER_S - 2, process)
    process.seen(run_id)
    await story.passes(AFTER_S - 1, process)
    assert await story.unread() == []
    await story.passes(5, process)
    assert await story.unread() == [run_id]


async def test_a_reader_is_written_of_at_most_every_few_seconds(story: Story, owner_engine: AsyncEngine) -> None:
    process, run_id, asked_for_none = (
        story.process(),
        await story.submit(),
        (await open_run(story.api, story.tenant)).run_id,
    )
    written = set()
    with process.reading(run_id), process.reading(asked_for_none):
        for _ in range(50):
            assert await process.tell()
            async with owner_engine.connect() as connection:
                rows = await connection.execute(text("SELECT run_id, xmin::text FROM runwire.readership"))
                written |= {tuple(row) for row in rows}
    assert len(written) <= 2, "one for its acceptance, and one for a test that took seconds"


async def test_the_word_of_a_process_reaches_to_where_it_looked_and_not_to_where_it_arrived(story: Story) -> None:
    name, run_id = uuid4(), await story.submit()

    async def reports(known: datetime | None) -> datetime:
        async with story.api.begin() as connection:
            return (await readers.report(connection, name, {}, known=known, gone_s=GONE_S)).at

    at = await reports(None)
    await story.passes(AFTER_S + 3)
    await story.stays_there(name)
    assert (await story.unread(), await reports(at - timedelta(seconds=5)), await story.unread())[::2] == ([], [])
    assert (await story.abandon(run_id)).verdict == "early", "whoever came while this was under way was not told of"
    await reports(await reports(at))
    assert await story.unread() == [run_id]
