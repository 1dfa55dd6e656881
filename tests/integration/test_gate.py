"""Behind a shut gate workers keep what they have, callers are told, readers read on, until an operator acknowledges."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from eventstore import log
from eventstore.domain import chain
from eventstore.domain.events import Token
from eventstore.recorder import Recorder
from eventstore.run_writer import BUFFER_CHARS_MAX, RunWriter
from ops.services import Endpoints
from tests.conftest import new_database
from tests.sealing import Desk, desk
from tests.serving import register, serving
from tests.tampering import backup, restore
from tests.waiting import until
from tests.writing import NOW_US, claim, open_run, result, started

PIECE = 4_000
PIECES = 3 * BUFFER_CHARS_MAX // PIECE


@pytest.fixture
def database_url(services: Endpoints, template: str) -> str:
    """A database for each test: a log is sealed from its beginning."""
    return new_database(services, template)


@pytest_asyncio.fixture(loop_scope="session")
async def d(database_url: str, tmp_path: Path) -> AsyncIterator[Desk]:
    async with desk(database_url, tmp_path) as made:
        yield made


@asynccontextmanager
async def recording(d: Desk, redis: Redis) -> AsyncIterator[Recorder]:
    made = Recorder(d.worker, redis, lease_s=30, heartbeat_s=0.5, clock_us=lambda: NOW_US)
    task = asyncio.create_task(made.run())
    try:
        yield made
        assert not task.done(), task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def shut(d: Desk) -> None:
    """As it happens: a block is missing from a restored database."""
    lost = await d.run("a")
    sealer = d.sealer("a")
    await sealer.tick()
    copy = await backup(d)
    await d.add(lost, 2, "b")
    await sealer.tick()
    await restore(d, copy)


def piece(number: int) -> str:
    return f"{number:06d}".ljust(PIECE, ".")


async def test_a_recorder_behind_the_gate_holds_a_bounded_buffer_and_stores_all_of_it_afterwards(
    d: Desk, redis: Redis
) -> None:
    await shut(d)
    mine = (await open_run(d.api, d.tenant)).run_id  # before the first look
    epoch = (await claim(d.worker, mine)).epoch
    said = 0

    async def produce(writer: RunWriter) -> None:
        nonlocal said
        for number in range(PIECES):
            await writer.push_piece(
                ("token", "draft#1"), piece(number),
                lambda text: Token(text=text, section="comments", step="draft#1", attempt=1),
            )  # fmt: skip
            said += 1
        await writer.record(result())

    async with recording(d, redis) as recorder:
        assert epoch is not None
        writer = recorder.open(mine, epoch)
        await writer.record(started())
        before = await _stored(d, mine)
        assert (await d.sealer("b").tick()).fault == "shut"
        producer = asyncio.create_task(produce(writer))
        await until(lambda: said * PIECE > BUFFER_CHARS_MAX)
        await asyncio.wait([producer], timeout=0.3)  # some refused attempts
        assert not producer.done()
        assert said * PIECE <= BUFFER_CHARS_MAX + PIECE
        assert writer.fault is None
        assert await _stored(d, mine) == before == 2

        await d.acknowledge()
        await asyncio.wait_for(producer, 20)
    async with d.api.connect() as connection:
        events = (await log.read_after(connection, mine, 0, 20_000)).events
        head = await log.head(connection, mine)
    assert head is not None
    assert chain.verify(mine, head.tenant_id, events, head.seq, head.chain).ok
    text = "".join(json.loads(event.body)["text"] for event in events if event.type == "token")
    assert text == "".join(piece(number) for number in range(PIECES))
    assert (events[-1].type, head.status) == ("result", "completed")
    sealer = d.sealer("c")
    assert (await sealer.tick()).fault is None
    assert (await d.verify()).ok


async def test_a_caller_is_told_that_the_log_is_shut_and_when_to_come_back_and_readers_read_on(
    d: Desk, services: Endpoints, database_url: str
) -> None:
    await register(d.worker)
    async with serving(database_url, services.redis_url) as api, api.client() as client:
        run = await api.submit()
        await shut(d)
        assert (await d.sealer("b").tick()).fault == "shut"
        again = {"Idempotency-Key": "the same"}
        body = {"workflow": "contract_review", "input": {"text": "Clause 1"}}
        for method, path, asked in (("POST", "/v1/runs", body), ("POST", f"/v1/runs/{run}/cancel", {})):
            told = await client.request(method, path, json=asked, headers=again)
            assert (told.status_code, told.headers["content-type"]) == (503, "application/problem+json")
            assert (told.json()["code"], told.headers["retry-after"]) == ("log-shut", "15")
            assert told.json()["detail"] == (
                "The log takes no new events until an operator acknowledges what it lost. What is stored can be read."
            )
        assert (await client.get(f"/v1/runs/{run}/poll")).status_code == 200
        assert (await client.get("/v1/runs")).status_code == 200
        await d.acknowledge()
        taken = await client.post("/v1/runs", json=body, headers=again)
        assert taken.status_code == 202  # nothing of the refused request was kept
        assert (await client.post(f"/v1/runs/{run}/cancel", json={})).status_code in (200, 202)


async def _stored(d: Desk, run: UUID) -> int:
    async with d.api.connect() as connection:
        head = await log.head(connection, run)
    assert head is not None
    return head.seq
