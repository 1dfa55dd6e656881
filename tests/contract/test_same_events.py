"""One run, any front, any role, cut off anywhere: always the same events, byte for byte, each once."""

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eventstore.domain.disclosure import ROLES, Role
from eventstore.domain.record import NewEvent
from tests.contract.readers import FRONTS, LIVE, PollReader, Reader
from tests.contract.runs import Stage, ended_runs
from tests.serving import DEADLINE_S

modest = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
roles = st.sampled_from(ROLES)
cuts = st.lists(st.integers(0, 1500), max_size=4)


async def read_to_the_end(reader: Reader, lost_after: list[int]) -> None:
    for cut in lost_after:
        if not reader.ended:
            await reader.read(cut)
    while not reader.ended:
        await reader.read()


@pytest.mark.parametrize("front", FRONTS)
@modest
@given(events=ended_runs(), role=roles, lost_after=cuts, limit=st.integers(1, 5))
async def test_a_finished_run_reads_the_same_however_often_the_connection_is_lost(
    stage: Stage, front: str, events: list[NewEvent], role: Role, lost_after: list[int], limit: int
) -> None:
    run = await stage.begin(events)
    await run.write()
    async with stage.reader(front, role, run.run_id, limit) as reader:
        await asyncio.wait_for(read_to_the_end(reader, lost_after), DEADLINE_S)
    assert reader.envelopes == await stage.expected(run.run_id, role)


@pytest.mark.parametrize("front", LIVE)
@modest
@given(events=ended_runs(), role=roles, lost_after=cuts, steps=st.lists(st.integers(1, 4), min_size=20, max_size=20))
async def test_a_run_read_while_it_grows_is_the_run_read_afterwards(
    stage: Stage, front: str, events: list[NewEvent], role: Role, lost_after: list[int], steps: list[int]
) -> None:
    run = await stage.begin(events)

    async def grow() -> None:
        for step in steps:
            await run.write(step)
        await run.write()

    async with (
        stage.reader(front, role, run.run_id) as reader,
        asyncio.timeout(DEADLINE_S),
        asyncio.TaskGroup() as both,
    ):
        both.create_task(read_to_the_end(reader, lost_after))
        both.create_task(grow())
    assert reader.envelopes == await stage.expected(run.run_id, role)


@modest
@given(events=ended_runs(), role=roles)
async def test_what_a_poll_tells_beside_the_events_is_what_they_add_up_to(
    stage: Stage, events: list[NewEvent], role: Role
) -> None:
    run = await stage.begin(events)
    await run.write()
    async with stage.reader("poll", role, run.run_id) as reader:
        assert isinstance(reader, PollReader)
        await reader.read()
        last = (await reader.client.get(f"/v1/runs/{run.run_id}/poll?after={reader.cursor}")).json()
        state = (await reader.client.get(f"/v1/runs/{run.run_id}")).json()
    assert last["events"] == []
    assert (last["done"], last["more"], last["next_after"]) == (True, False, reader.cursor)
    for name in ("status", "done", "milestone", "milestones", "partial", "result", "error"):
        assert last[name] == state[name]
    assert (state["result"] is not None) == (events[-1].type == "result")
    assert state["partial"] is None or state["partial"]["final"] is False
