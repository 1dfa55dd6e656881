"""A reader of polls who joins what was added has the very draft that the state tells, wherever its pages end."""

import asyncio
from typing import Any

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eventstore.domain.disclosure import ROLES, Role
from eventstore.domain.record import NewEvent
from tests.contract.runs import Stage, ended_runs
from tests.serving import DEADLINE_S


class Joiner:
    """Follows `links.next` and keeps nothing but cursor and draft."""

    def __init__(self, client: httpx.AsyncClient, path: str, limit: int) -> None:
        self.client = client
        self.path = path
        self.address = f"{path}/poll?partial=delta&wait=5&limit={limit}"
        self.sections: dict[str, str] = {}
        self.findings: dict[str, Any] = {}
        self.last: dict[str, Any] = {}

    async def step(self) -> None:
        """One answer."""
        answer = await self.client.get(self.address)
        self.last = answer.json()
        partial = self.last["partial"]
        if partial is not None:
            assert partial["final"] is False
            if partial["since"] is None:
                self.sections, self.findings = {}, {}
            for name, text in partial["sections"].items():
                self.sections[name] = self.sections.get(name, "") + text
            self.findings.update((found["item"], found["value"]) for found in partial["findings"])
        self.address = self.last["links"].get("next", "")


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(events=ended_runs(), role=st.sampled_from(ROLES), limit=st.integers(1, 4), steps=st.lists(st.integers(1, 4)))
async def test_what_was_added_joins_to_the_draft_as_it_is_at_that_place(
    stage: Stage, events: list[NewEvent], role: Role, limit: int, steps: list[int]
) -> None:
    run = await stage.begin(events)

    async def grow() -> None:
        for step in steps:
            await run.write(step)
        await run.write()

    async with stage.api.client(role, "ada") as client, asyncio.timeout(DEADLINE_S):
        joiner = Joiner(client, f"/v1/runs/{run.run_id}", limit)
        growing = asyncio.create_task(grow())
        while joiner.address:
            await joiner.step()
            here = joiner.last["next_after"]
            state = (await client.get(joiner.path, params={"at": here})).json()
            if state["partial"] is None or state["done"]:
                continue
            assert joiner.sections == state["partial"]["sections"]
            assert [*joiner.findings.items()] == [(found["item"], found["value"]) for found in state["findings"]]
        await growing
    assert joiner.last["done"]
    assert joiner.last["next_after"] == len(events) + 1
