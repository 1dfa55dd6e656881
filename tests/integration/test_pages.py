"""Pages of the log: cut by rows and by bytes, truly saying whether there is more, and all events whatever the cuts."""

from collections.abc import Sequence
from uuid import UUID

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncEngine

from eventstore import log
from eventstore.domain.record import Recorded
from eventstore.log import PAGE_BYTES_MAX, PAGE_EVENTS_MAX, Page
from tests.writing import append, batch, events_of, new_tenant, open_run, running, token

modest = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
sizes = st.lists(st.integers(0, 3_000), max_size=12)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def tenant(owner_engine: AsyncEngine) -> UUID:
    return await new_tenant(owner_engine)


def cut(events: Sequence[Recorded], limit: int, bytes_max: int) -> Page:
    """The page that these events begin with, told the slow way."""
    page: list[Recorded] = []
    for event in events[:limit]:
        if page and sum(len(each.body) for each in [*page, event]) > bytes_max:
            break
        page.append(event)
    return Page(page, len(events) > len(page))


@modest
@given(drawn=sizes, limit=st.integers(1, 15), bytes_max=st.integers(1, 12_000))
async def test_a_run_read_page_by_page_is_the_run_whatever_the_sizes_and_bounds(
    api_engine: AsyncEngine, worker_engine: AsyncEngine, tenant: UUID, drawn: list[int], limit: int, bytes_max: int
) -> None:
    run_id = await running(api_engine, worker_engine, tenant, *(token("x" * size) for size in drawn))
    async with api_engine.connect() as connection:
        whole = (await log.read_after(connection, run_id, 0, PAGE_EVENTS_MAX, PAGE_BYTES_MAX)).events
        assert [event.seq for event in whole] == list(range(1, len(drawn) + 3))
        for after in range(len(whole) + 1):
            page = await log.read_after(connection, run_id, after, limit, bytes_max)
            assert page == cut(whole[after:], limit, bytes_max)
        assert await log.read_after(connection, run_id, len(whole) + 5, limit, bytes_max) == Page([], False)


@modest
@given(drawn=st.lists(sizes, min_size=1, max_size=4), limit=st.integers(1, 30), bytes_max=st.integers(1, 20_000))
async def test_many_runs_read_together_are_the_runs_and_one_page_bounds_them_all(
    api_engine: AsyncEngine,
    worker_engine: AsyncEngine,
    tenant: UUID,
    drawn: list[list[int]],
    limit: int,
    bytes_max: int,
) -> None:
    runs = [await running(api_engine, worker_engine, tenant, *(token("x" * n) for n in sizes_)) for sizes_ in drawn]
    cursors = dict.fromkeys(runs, 0)
    async with api_engine.connect() as connection:
        whole = {run: await events_of(connection, run) for run in runs}
        open_ = list(runs)
        while open_:
            pages = await log.read_many(connection, {run: cursors[run] for run in open_}, limit, bytes_max)
            together = cut([event for run in open_ for event in whole[run][cursors[run] :]], limit, bytes_max)
            assert [event for run in open_ if run in pages for event in pages[run].events] == together.events
            # Those before the cut have told all; the one that was cut and those behind it say that there is more.
            assert any(page.more for page in pages.values()) == together.more
            for run in open_:
                page = pages.get(run, Page([], False))
                cursors[run] += len(page.events)
                assert page.more or cursors[run] == len(whole[run])
            reached = [run for run in open_ if run in pages and pages[run].events]
            assert not together.more or reached, "no progress"
            open_ = [run for run in open_ if run in pages and pages[run].more]
    assert all(cursors[run] == len(whole[run]) for run in runs)


@pytest.mark.parametrize("bytes_max", [1, PAGE_BYTES_MAX])
async def test_runs_without_anything_new_have_no_page(api_engine: AsyncEngine, tenant: UUID, bytes_max: int) -> None:
    runs = [(await open_run(api_engine, tenant)).run_id for _ in range(3)]
    async with api_engine.connect() as connection:
        assert await log.read_many(connection, dict.fromkeys(runs, 1), 10, bytes_max) == {}
        assert await log.read_many(connection, {}, 10, bytes_max) == {}


async def test_an_event_larger_than_a_page_comes_alone(
    api_engine: AsyncEngine, worker_engine: AsyncEngine, tenant: UUID
) -> None:
    run_id = await running(api_engine, worker_engine, tenant)
    await append(worker_engine, batch(run_id, 1, 2, token("x" * 5_000), token("y"), token("z")))
    async with api_engine.connect() as connection:
        page = await log.read_after(connection, run_id, 2, 10, 4_000)
        assert ([event.seq for event in page.events], page.more) == ([3], True)
        page = await log.read_after(connection, run_id, 3, 2, 4_000)
        assert ([event.seq for event in page.events], page.more) == ([4, 5], False)
