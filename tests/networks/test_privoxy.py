"""Behind a filter that reads every answer to its end before it gives it on: streams are held, short polls are not."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import httpx
import pytest

from tests.contract.runs import Stage
from tests.networks.following import KINDS, Kind, following
from tests.networks.proxies import privoxy
from tests.networks.reading import begun, heard_one_by_one, hearing, one_by_one
from tests.serving import DEADLINE_S, until

pytestmark = pytest.mark.program("privoxy")


@pytest.fixture(scope="module")
def proxy() -> Iterator[str]:
    with privoxy() as address:
        yield address


@asynccontextmanager
async def behind(stage: Stage, proxy: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client that is told to go through the proxy."""
    headers = {"Authorization": f"Bearer {stage.api.key()}"}
    async with httpx.AsyncClient(
        base_url=stage.api.address, headers=headers, timeout=DEADLINE_S, proxy=proxy, trust_env=False
    ) as client:
        yield client


async def test_the_filter_holds_a_stream_until_its_end(stage: Stage, proxy: str) -> None:
    run = await begun(stage)
    async with (
        behind(stage, proxy) as client,
        stage.api.client() as direct,
        hearing(client, run) as held,
        hearing(direct, run) as heard,
    ):
        await until(lambda: len(stage.api.server.server_state.tasks) == 2)
        left = len(run.to_come)
        run.to_come, end = run.to_come[:-1], run.to_come[-1:]
        await heard_one_by_one(run, heard)
        assert (len(heard.envelopes), held.body) == (left, b""), "this proxy is no test: it lets streams pass"
        run.to_come = end
        await run.write()
        await until(lambda: held.complete)
    assert held.envelopes == await stage.expected(run.run_id, "user")


async def test_polls_pass_the_filter_each_before_the_next_event_is_stored(stage: Stage, proxy: str) -> None:
    run = await begun(stage)
    seen: list[int] = []
    async with behind(stage, proxy) as client:

        async def confirmed(count: int) -> None:
            while len(seen) < count:
                answer = await client.get(f"/v1/runs/{run.run_id}/poll?after={len(seen)}&wait=5")
                seen.extend(event["seq"] for event in answer.raise_for_status().json()["events"])

        await one_by_one(run, confirmed)
    assert seen == [*range(1, len(seen) + 1)]


@pytest.mark.parametrize("kind", KINDS)
async def test_our_client_turns_to_short_requests_with_the_same_cursor_and_says_so(
    stage: Stage, proxy: str, kind: Kind
) -> None:
    run = await begun(stage, "Clause 4.1 ")
    await run.write(1)  # a stream that says nothing although it has something to say is held by somebody
    async with following(kind, stage, run, stage.api.address, proxy) as followed:
        await one_by_one(run, followed.confirmed, stored=2)
    assert followed.seqs == [*range(1, len(followed.seqs) + 1)]
    assert set(followed.transports) == {"poll"}
    assert [notice for notice in followed.notices if notice.transport == "poll" and "short requests" in notice.text]
