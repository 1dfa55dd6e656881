"""Behind nginx - as it comes, with everything compressed, and as we set it up - each event passes before the next."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.contract.runs import Stage
from tests.networks.following import KINDS, Kind, following
from tests.networks.proxies import nginx
from tests.networks.reading import begun, heard_one_by_one, hearing, one_by_one
from tests.serving import DEADLINE_S, until

pytestmark = pytest.mark.program("nginx")

WAYS = ("bare", "gzip", "ours", "ours in a compressing nginx")
LONG = "a clause that says the same again and again, " * 200


@dataclass(frozen=True)
class Behind:
    """A stage behind an nginx."""

    stage: Stage
    address: str
    folder: Path

    @asynccontextmanager
    async def client(self) -> AsyncIterator[httpx.AsyncClient]:
        headers = {"Authorization": f"Bearer {self.stage.api.key()}", "Accept-Encoding": "gzip"}
        async with httpx.AsyncClient(
            base_url=self.address, headers=headers, timeout=DEADLINE_S, trust_env=False
        ) as client:
            yield client


@pytest.fixture(scope="module", params=WAYS)
def behind(request: pytest.FixtureRequest, stage: Stage) -> Iterator[Behind]:
    with nginx(request.param, stage.api.address) as (address, folder):
        yield Behind(stage, address, folder)


@pytest.fixture(scope="module")
def example(stage: Stage) -> Iterator[Behind]:
    with nginx("ours", stage.api.address) as (address, folder):
        yield Behind(stage, address, folder)


async def test_each_event_passes_before_the_next_one_is_stored(behind: Behind) -> None:
    run = await begun(behind.stage)
    async with behind.client() as client, hearing(client, run) as heard:
        await heard_one_by_one(run, heard)
        await until(lambda: heard.complete)
    assert heard.envelopes == await behind.stage.expected(run.run_id, "user")


async def test_the_sign_of_life_passes_in_silence(behind: Behind) -> None:
    run = await begun(behind.stage)
    async with behind.client() as client, hearing(client, run) as heard:
        await until(lambda: heard.body.endswith(b"\n\n:\n:\n"))


async def test_a_reader_returns_with_its_cursor(behind: Behind) -> None:
    run = await begun(behind.stage)
    await run.write(2)
    async with behind.client() as client:
        async with hearing(client, run) as heard:
            await until(lambda: len(heard.envelopes) == 3)
        await run.write()
        async with hearing(client, run, **{"Last-Event-ID": "3"}) as rest:
            await until(lambda: rest.complete)
    assert heard.envelopes + rest.envelopes == await behind.stage.expected(run.run_id, "user")


async def test_a_waiting_poll_is_answered_by_the_event_that_it_waited_for(behind: Behind) -> None:
    run = await begun(behind.stage)
    seen: list[int] = []
    async with behind.client() as client:

        async def confirmed(count: int) -> None:
            while len(seen) < count:
                answer = await client.get(f"/v1/runs/{run.run_id}/poll?after={len(seen)}&wait=5")
                seen.extend(event["seq"] for event in answer.raise_for_status().json()["events"])

        await one_by_one(run, confirmed)
    assert seen == [*range(1, len(seen) + 1)]


@pytest.mark.parametrize("kind", KINDS)
async def test_our_client_reads_a_stream_through_it_and_never_polls(behind: Behind, kind: Kind) -> None:
    run = await begun(behind.stage)
    async with following(kind, behind.stage, run, behind.address) as followed:
        await one_by_one(run, followed.confirmed)
    assert set(followed.transports) == {"sse"}
    assert followed.notices == []


@pytest.mark.parametrize("way", ["ours", "ours in a compressing nginx"])
async def test_the_example_never_compresses_a_stream(stage: Stage, way: str) -> None:
    run = await begun(stage)
    with nginx(way, stage.api.address) as (address, folder):
        async with Behind(stage, address, folder).client() as client, hearing(client, run) as heard:
            await until(lambda: heard.answer)
            assert heard.answer is not None
            assert "content-encoding" not in heard.answer.headers


async def test_plain_answers_are_compressed_by_the_example(example: Behind) -> None:
    run = await begun(example.stage, LONG)
    await run.write()
    path = f"/v1/runs/{run.run_id}/poll"
    async with example.client() as client:
        small = await client.get(path)
        whole = await client.get(path, headers={"Accept-Encoding": "identity"})
    assert small.headers["content-encoding"] == "gzip"
    assert small.num_bytes_downloaded * 5 < whole.num_bytes_downloaded
    assert small.content == whole.content


async def test_the_example_keeps_figures_from_the_world(example: Behind) -> None:
    async with example.client() as client:
        assert (await client.get(f"{example.stage.api.address}/metrics")).status_code == 200
        assert (await client.get("/metrics")).status_code == 404


async def test_the_example_logs_no_query(example: Behind) -> None:
    async with example.client() as client:
        await client.get("/healthz?ticket=secret-of-a-run")
        await until(lambda: "/healthz" in _logged(example))
    assert "secret-of-a-run" not in _logged(example)


def _logged(behind: Behind) -> str:
    return "".join(file.read_text() for file in behind.folder.glob("*.log"))
