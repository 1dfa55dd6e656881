"""Who starts next: fair order, bounds that hold over all workers, versions, and runs that kill their workers."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from uuid import UUID

import pytest
import pytest_asyncio
import uuid_utils.compat
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from eventstore import catalogue, log, queue
from eventstore.domain.events import CancelRequested, Error, Person, new_event
from eventstore.queue import Bounds, Found, Taken, Taker
from tests.writing import NOW_US, accepted, append, batch, new_tenant, started, token

FLOW = "contract_review"
WIDE = Bounds(tenant_runs_max=1_000, caller_runs_max=1_000)
ENDED = Error(code="over", message="", partial={}, retryable=False)


class Line:
    """The queue of one test, empty at its beginning."""

    def __init__(self, api: AsyncEngine, worker: AsyncEngine, owner: AsyncEngine) -> None:
        self.api, self.worker, self.owner = api, worker, owner

    async def tenant(self, **own: int) -> UUID:
        tenant = await new_tenant(self.owner)
        for name, value in own.items():
            await self.order(f"UPDATE runwire.tenant SET {name} = {value} WHERE tenant_id = '{tenant}'")
        return tenant

    async def order(self, statement: str) -> None:
        async with self.owner.begin() as connection:
            await connection.execute(text(statement))

    async def submit(self, tenant: UUID, subject: str = "ada", *, version: int = 1, workflow: str = FLOW) -> UUID:
        body = accepted(subject, workflow).model_copy(update={"workflow_version": version})
        wanted = catalogue.Submission(
            run_id=uuid_utils.compat.uuid7(),
            tenant_id=tenant,
            subject=subject,
            workflow=workflow,
            title="",
            idempotency_key=None,
            body_digest=b"",
            input=b"{}",
            accepted=new_event(body, NOW_US),
        )
        async with self.api.begin() as connection:
            return (await catalogue.open_run(connection, wanted)).run_id

    async def take(
        self,
        room: int = 100,
        *,
        who: str = "w",
        bounds: Bounds = WIDE,
        covers: Sequence[tuple[str, int]] = ((FLOW, 1),),
        lease_s: float = 600.0,
        on_trial: int = 0,
        suspects: int = 0,
        wait_s: float | None = None,
    ) -> Found:
        taker = Taker(who, lease_s, bounds, covers)
        async with self.worker.begin() as connection:
            aboard = {"on_trial": on_trial, "suspects": suspects}
            return await queue.take(connection, taker, room, **aboard, wait_s=wait_s, up_s=3_600.0)

    async def tend(self, covers: Sequence[tuple[str, int]] = ((FLOW, 1),)) -> tuple[int, int]:
        async with self.worker.begin() as connection:
            return await queue.tend(connection, Taker("w", 0.0, WIDE, covers))

    async def places(self, *runs: UUID, bounds: Bounds = WIDE) -> dict[UUID, queue.Place]:
        async with self.api.connect() as connection:
            return await queue.places(connection, runs, bounds)

    async def end(self, run: Taken, number: int = 1) -> None:
        [answer] = await append(self.worker, batch(run.run_id, run.epoch, number, ENDED))
        assert answer.verdict == "ok"

    async def fall_silent(self, who: str) -> None:
        """What the leases of an owner that was killed do after a while; then somebody notices."""
        await self.order(
            "UPDATE runwire.head h SET lease_until = clock_timestamp() - interval '1 hour' FROM runwire.queue q "
            f"WHERE q.run_id = h.run_id AND q.owner = '{who}'"
        )
        await self.tend()

    async def rows(self) -> list[tuple[UUID, int, bool]]:
        """Each run, how often it may have been the cause of a death, and whether it was for certain."""
        async with self.owner.connect() as connection:
            found = await connection.execute(text("SELECT run_id, crashes, blamed FROM runwire.queue"))
            return [(row.run_id, row.crashes, row.blamed) for row in found]

    async def left(self) -> int:
        async with self.owner.connect() as connection:
            return int((await connection.execute(text("SELECT count(*) FROM runwire.queue"))).scalar_one())


@pytest_asyncio.fixture(loop_scope="session")
async def line(api_engine: AsyncEngine, worker_engine: AsyncEngine, owner_engine: AsyncEngine) -> AsyncIterator[Line]:
    made = Line(api_engine, worker_engine, owner_engine)
    await made.order("DELETE FROM runwire.queue")
    await made.order("DELETE FROM runwire.coverage")
    await made.order("DELETE FROM runwire.workflow")
    yield made


def ids(found: Found) -> list[UUID]:
    return [run.run_id for run in found.runs]


async def test_a_tenant_that_floods_the_queue_does_not_keep_another_tenants_run_waiting(line: Line) -> None:
    flood, other = await line.tenant(), await line.tenant()
    runs = [await line.submit(flood) for _ in range(40)]
    assert ids(await line.take(3)) == runs[:3]
    single = await line.submit(other)
    await line.tend()
    assert (await line.places(single))[single].position == 1
    assert ids(await line.take(1)) == [single]
    assert ids(await line.take(2)) == runs[3:5]


async def test_inside_a_tenant_callers_take_turns_and_a_callers_oldest_run_comes_first(line: Line) -> None:
    tenant = await line.tenant()
    ada = [await line.submit(tenant, "ada") for _ in range(6)]
    bob = [await line.submit(tenant, "bob") for _ in range(3)]
    assert ids(await line.take(6)) == [ada[0], bob[0], ada[1], bob[1], ada[2], bob[2]]
    assert ids(await line.take(6)) == ada[3:]


async def test_whoever_has_fewer_runs_under_way_is_next_not_whoever_asked_first(line: Line) -> None:
    busy, idle = await line.tenant(), await line.tenant()
    for _ in range(4):
        await line.submit(busy)
    under_way = (await line.take(4)).runs
    old = [await line.submit(busy) for _ in range(3)]
    new = [await line.submit(idle) for _ in range(3)]
    assert ids(await line.take(4)) == [*new, old[0]]
    await line.end(under_way[0])
    assert ids(await line.take(1)) == [old[1]]


async def test_bounds_of_tenant_caller_and_workflow_hold_and_the_end_of_a_run_makes_room(line: Line) -> None:
    tenant = await line.tenant()
    for subject in ("ada", "ada", "ada", "bob", "bob"):
        await line.submit(tenant, subject)
    narrow = Bounds(tenant_runs_max=3, caller_runs_max=2)
    first = (await line.take(bounds=narrow)).runs
    assert len(first) == 3
    assert not (await line.take(bounds=narrow)).runs
    await line.end(first[0])
    assert len((await line.take(bounds=narrow)).runs) == 1
    assert not (await line.take(bounds=narrow)).runs


async def test_a_tenants_own_bounds_stand_in_place_of_the_settings(line: Line) -> None:
    generous, strict = await line.tenant(runs_max=4, caller_runs_max=4), await line.tenant(runs_max=1)
    for tenant in (generous, strict):
        for _ in range(6):
            await line.submit(tenant)
    taken = (await line.take(bounds=Bounds(tenant_runs_max=2, caller_runs_max=2))).runs
    assert Counter(run.tenant_id for run in taken) == {generous: 4, strict: 1}


async def test_a_workflows_bound_holds_over_all_tenants_and_lets_other_workflows_pass(line: Line) -> None:
    async with line.worker.begin() as connection:
        await catalogue.register(connection, catalogue.Registered(FLOW, 1, {}, runs_max=2))
    ada, bob = await line.tenant(), await line.tenant()
    for tenant in (ada, ada, bob, bob):
        await line.submit(tenant)
    other = await line.submit(ada, workflow="drill")
    taken = (await line.take(covers=((FLOW, 1), ("drill", 1)))).runs
    assert len(taken) == 3
    assert other in [run.run_id for run in taken]
    assert len({run.tenant_id for run in taken}) == 2


async def test_workers_that_ask_at_the_same_moment_never_take_one_run_too_many_nor_one_twice(line: Line) -> None:
    tenant = await line.tenant()
    for _ in range(60):
        await line.submit(tenant)
    narrow = Bounds(tenant_runs_max=25, caller_runs_max=25)
    found = await asyncio.gather(*(line.take(7, who=f"w{n}", bounds=narrow) for n in range(8)))
    taken = [run for one in found for run in ids(one)]
    assert len(taken) == len(set(taken)) == 25


async def test_a_full_worker_takes_nothing_and_says_that_there_is_more(line: Line) -> None:
    tenant = await line.tenant()
    run = await line.submit(tenant)
    full = await line.take(0)
    assert (full.runs, full.more) == ([], True)
    assert ids(await line.take(1, who="other")) == [run]
    assert not (await line.take(1)).more


async def test_a_run_that_comes_back_goes_before_its_callers_new_ones_and_holds_no_place_while_it_rests(
    line: Line,
) -> None:
    tenant, narrow = await line.tenant(), Bounds(tenant_runs_max=1, caller_runs_max=1)
    await line.submit(tenant)
    [resting] = (await line.take(bounds=narrow)).runs
    second, third = await line.submit(tenant), await line.submit(tenant)
    async with line.worker.begin() as connection:
        assert (
            await log.suspend(connection, resting.run_id, resting.epoch, resting.seq, 4_000_000_000_000_000) == "parked"
        )
    [taken] = (await line.take(bounds=narrow)).runs
    assert taken.run_id == second
    await line.order(f"UPDATE runwire.queue SET due_at = clock_timestamp() WHERE run_id = '{resting.run_id}'")
    await line.order(f"UPDATE runwire.head SET due_at = clock_timestamp() WHERE run_id = '{resting.run_id}'")
    assert (await line.tend())[0] == 1
    assert not (await line.take(bounds=narrow)).runs
    assert (await line.places(third))[third].position == 2
    await line.end(taken)
    assert ids(await line.take(bounds=narrow)) == [resting.run_id]


async def test_a_run_that_was_asked_to_stop_needs_no_place_and_no_cover(line: Line) -> None:
    tenant = await line.tenant()
    run = await line.submit(tenant, version=7)
    asked = new_event(CancelRequested(by=Person(subject="ada", role="user"), reason=""), NOW_US)
    async with line.api.begin() as connection:
        assert (await log.control(connection, run, asked)).verdict == "ok"
    [taken] = (await line.take(0)).runs
    assert (taken.run_id, taken.why, taken.cancel) == (run, "stopped", True)


async def test_a_run_that_waited_too_long_to_begin_is_handed_out_to_be_ended(line: Line) -> None:
    tenant, full = await line.tenant(), Bounds(tenant_runs_max=1, caller_runs_max=1)
    await line.submit(tenant)
    assert len((await line.take(bounds=full)).runs) == 1
    run = await line.submit(tenant)
    assert not (await line.take(bounds=full, wait_s=60.0)).runs
    [taken] = (await line.take(bounds=full, wait_s=0.0)).runs
    assert (taken.run_id, taken.why) == (run, "queue_wait")


async def test_a_worker_takes_only_versions_that_it_covers_and_tells_others_of_the_rest(line: Line) -> None:
    tenant = await line.tenant()
    old, new = await line.submit(tenant, version=1), await line.submit(tenant, version=2)
    await line.tend(covers=((FLOW, 1),))
    found = await line.take(covers=((FLOW, 2),))
    assert (ids(found), found.more) == ([new], True)
    assert ids(await line.take(covers=((FLOW, 1), (FLOW, 2)))) == [old]


async def test_a_version_that_nobody_covers_is_told_and_given_up_after_the_workflows_time(line: Line) -> None:
    tenant = await line.tenant()
    run = await line.submit(tenant, version=1)
    now = ((FLOW, 2),)
    await line.tend(covers=now)
    assert (await line.places(run))[run] == queue.Place(None, False, "no_worker")
    assert not (await line.take(covers=now, wait_s=600.0)).runs
    async with line.worker.begin() as connection:
        await catalogue.register(connection, catalogue.Registered(FLOW, 2, {}, version_wait_s=0.001))
    await line.tend(covers=((FLOW, 1),))  # the last of the old ones, which would still be taken
    await line.order("UPDATE runwire.coverage SET seen_at = seen_at - interval '1 hour' WHERE version = 1")
    assert not (await line.take(covers=(("drill", 1),), wait_s=600.0)).runs  # not its to end: others know the workflow
    [taken] = (await line.take(covers=now, wait_s=600.0)).runs
    assert (taken.run_id, taken.why) == (run, "version_gone")


async def test_a_place_in_line_counts_down_to_the_start_and_says_why_it_waits(line: Line) -> None:
    tenant, narrow = await line.tenant(), Bounds(tenant_runs_max=1, caller_runs_max=1)
    runs = [await line.submit(tenant) for _ in range(3)]
    await line.tend()
    before = await line.places(*runs)
    assert [before[run] for run in runs] == [queue.Place(n, True, "turn") for n in (1, 2, 3)]
    [taken] = (await line.take(bounds=narrow)).runs
    after = await line.places(*runs, bounds=narrow)
    assert after == {runs[1]: queue.Place(1, True, "tenant"), runs[2]: queue.Place(2, True, "tenant")}
    await line.end(taken)
    assert (await line.places(*runs, bounds=narrow))[runs[1]] == queue.Place(1, True, "turn")


async def test_the_order_that_places_tell_is_the_order_of_the_starts(line: Line) -> None:
    tenants = [await line.tenant() for _ in range(3)]
    await line.tend()
    runs = [
        await line.submit(tenant, subject)
        for tenant, counts in zip(tenants, ((9, 1), (2, 2), (1, 4)), strict=True)
        for subject, count in zip(("ada", "bob"), counts, strict=True)
        for _ in range(count)
    ]
    started = []
    while runs:
        told = await line.places(*runs)
        order = sorted(runs, key=lambda run: told[run].position or 0)
        assert [told[run].position for run in order] == list(range(1, len(order) + 1))
        [taken] = ids(await line.take(1))
        assert taken == order[0]
        started.append(taken)
        runs.remove(taken)
    assert not await line.places(*started)


async def test_a_place_far_behind_is_a_lower_bound_and_says_so(line: Line) -> None:
    tenant = await line.tenant()
    runs = [await line.submit(tenant) for _ in range(12)]
    await line.tend()
    async with line.api.connect() as connection:
        rows = await connection.execute(
            text("SELECT run_id, place, exact FROM runwire.places(:runs, 5, 15, 100, 100)"), {"runs": runs}
        )
        told = {row.run_id: (row.place, row.exact) for row in rows}
    assert [told[run] for run in runs[:5]] == [(n, True) for n in range(1, 6)]
    assert {told[run] for run in runs[5:]} == {(6, False)}


async def test_a_place_behind_the_end_of_what_was_looked_at_of_another_lane_is_a_lower_bound(line: Line) -> None:
    first, second = await line.tenant(), await line.tenant()
    one = [await line.submit(first) for _ in range(4)]
    two = [await line.submit(second) for _ in range(4)]
    await line.tend()
    async with line.api.connect() as connection:
        asked = {"runs": [*one, *two]}
        rows = await connection.execute(
            text("SELECT run_id, place, exact FROM runwire.places(:runs, 4, 15, 9, 9)"), asked
        )
        told = {row.run_id: (row.place, row.exact) for row in rows}
    assert [told[run] for run in (one[0], two[0], one[1], two[1])] == [(1, True), (2, True), (3, True), (4, False)]


async def test_what_a_silent_worker_had_is_back_in_line_at_once_and_all_of_it(line: Line) -> None:
    tenant = await line.tenant()
    for _ in range(50):
        await line.submit(tenant)
    taken = (await line.take()).runs
    await line.fall_silent("w")
    again = (await line.take(who="v")).runs
    assert ids(Found(again, False)) == [run.run_id for run in taken]
    assert {run.epoch for run in again} == {2}
    assert {(run.crashes, run.blamed) for run in again} == {(1, False)}


async def test_a_run_that_was_alone_is_blamed_for_its_workers_death_and_one_that_was_given_back_is_not(
    line: Line,
) -> None:
    await line.submit(await line.tenant())
    [run] = (await line.take()).runs
    async with line.worker.begin() as connection:
        await log.release(connection, run.run_id, run.epoch)
    [again] = (await line.take()).runs
    assert (again.epoch, again.crashes, again.blamed) == (2, 0, False)
    await line.fall_silent("w")
    [alone] = (await line.take()).runs
    assert (alone.crashes, alone.blamed) == (1, True)


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize("culprit", [0, 5, 11])
async def test_a_run_that_kills_every_worker_is_found_among_its_neighbours(
    line: Line, culprit: int, slow: bool
) -> None:
    """One that stores nothing before it kills is blamed for the third death. One that looks like the others, and kills
    when it was found harmless, takes longer to find. Nobody else is ever blamed, however often it was near."""
    tenant = await line.tenant()
    runs = [await line.submit(tenant) for _ in range(12)]
    poison, deaths = runs[culprit], 0
    while (marks := {run: (crashes, blamed) for run, crashes, blamed in await line.rows()})[poison] < (3, True):
        deaths += 1
        assert deaths < 8, marks
        who, aboard = f"w{deaths}", list[Taken]()
        while True:  # as a worker does that lives on: one trial after the other
            suspects = [run for run in aboard if run.crashes > 1]
            on_trial = sum(run.crashes > 2 for run in suspects)
            found = (await line.take(who=who, on_trial=on_trial, suspects=len(suspects))).runs
            aboard += found
            assert sum(run.crashes > 1 for run in found) <= 1
            for run in found:
                if slow or run.run_id != poison:
                    await append(line.worker, batch(run.run_id, run.epoch, 1, started(), token("a")))
            if poison in ids(Found(aboard, False)) and not (slow and found):
                break
            if not found:  # no more trials until those that are watched to their end have come there
                for run in aboard:
                    await line.end(run, 2)
                aboard = []
        await line.fall_silent(who)
    assert deaths == 3 or slow
    assert [run for run, (_, blamed) in marks.items() if blamed] == [poison]


async def test_fresh_runs_begin_while_suspects_wait_for_their_trial_and_are_not_marked_by_it(line: Line) -> None:
    tenant = await line.tenant()
    for _ in range(4):
        await line.submit(tenant)
    for who in ("first", "second"):
        assert len((await line.take(who=who)).runs) == 4
        await line.fall_silent(who)
    new = [await line.submit(tenant, "bob") for _ in range(3)]
    found = (await line.take(who="third")).runs
    assert sorted(run.crashes for run in found) == [0, 0, 0, 2]
    assert not (await line.take(who="third", on_trial=1, suspects=1)).runs
    await line.fall_silent("third")
    marks = {run: (crashes, blamed) for run, crashes, blamed in await line.rows()}
    assert [marks[run] for run in new] == [(0, False)] * 3
    assert sorted(marks.values())[-1] == (3, True)


async def test_every_end_leaves_the_queue(line: Line) -> None:
    tenant = await line.tenant()
    for _ in range(3):
        await line.submit(tenant)
    for run in (await line.take()).runs:
        await line.end(run)
    assert await line.left() == 0
