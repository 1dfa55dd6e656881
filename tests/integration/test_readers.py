"""Runs that stop when nobody reads them: who counts as a reader, and that nobody is missed who could not be seen."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import httpx
import pytest_asyncio
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from eventstore import readers
from eventstore.database import async_engine
from eventstore.domain.events import Escalation, OnDisconnect
from eventstore.domain.record import Fact
from eventstore.handoff import Handoff
from ops.services import Endpoints
from tests.integration.test_api_outages import process, streaming
from tests.running import Runs, start_worker, until
from tests.serving import DRILL, REVIEW, Api, Writer, database_away, register, serving
from tests.writing import new_tenant, result, started, token
from worker.metrics import WorkerMetrics
from worker.runner import read_facts
from worker.unread import Abandoning

AFTER_S = 1.0
GONE_S = 1.5
GRAIN_S = 0.1
ASKING = {"cancel_after_s": 5.0, "while_waiting": False}
JSON = {"Accept": "application/json"}
PACE = {"readers_s": 0.1, "readers_gone_s": GONE_S}


@pytest_asyncio.fixture(scope="module", loop_scope="session", autouse=True)
async def registered(worker_engine: AsyncEngine, owner_engine: AsyncEngine) -> None:
    await register(worker_engine, {"contract_review": {**REVIEW, "on_disconnect": ASKING}, "drill": DRILL})
    async with owner_engine.begin() as connection:  # two seconds for each step of these tests would be long
        await connection.execute(
            text(f"""CREATE OR REPLACE FUNCTION runwire.readers_grain() RETURNS interval LANGUAGE sql IMMUTABLE
            AS $$ SELECT interval '{GRAIN_S} seconds' $$""")
        )


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def one(database_url: str, services: Endpoints, registered: None) -> AsyncIterator[Api]:
    async with serving(database_url, services.redis_url, **PACE) as api:
        yield api


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def other(database_url: str, services: Endpoints, one: Api) -> AsyncIterator[Api]:
    async with serving(database_url, services.redis_url, **PACE) as api:
        yield api


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def sweeping(worker_engine: AsyncEngine, redis: Redis, services: Endpoints) -> AsyncIterator[Abandoning]:
    """Two workers that look for runs without readers, as each worker does."""
    handoff = Handoff(services.redis_url, redis)
    pace = {"sweep_s": 0.05, "gone_s": GONE_S}
    first = Abandoning(worker_engine, redis, handoff, WorkerMetrics(), **pace)
    second = Abandoning(worker_engine, redis, handoff, WorkerMetrics(), **pace)
    async with first.open(), second.open():
        yield first
    handoff.close()


class Watched:
    """Runs that ask for readers, and what became of them."""

    def __init__(self, owner: AsyncEngine, api: Api) -> None:
        self._owner = owner
        self._api = api

    async def submit(self, after_s: float = AFTER_S) -> UUID:
        """A run that is stopped sooner than a workflow may ask for."""
        run_id = await self._api.submit()
        await self.shorten(run_id, after_s)
        return run_id

    async def shorten(self, run_id: UUID, after_s: float = AFTER_S, *, while_waiting: bool = False) -> None:
        async with self._owner.begin() as connection:
            await connection.execute(
                text("UPDATE runwire.readership SET after_s = :s, while_waiting = :w WHERE run_id = :run"),
                {"run": run_id, "s": after_s, "w": while_waiting},
            )

    async def asks(self) -> list[UUID]:
        async with self._owner.connect() as connection:
            return list((await connection.execute(text("SELECT run_id FROM runwire.readership"))).scalars())

    async def stop_of(self, run_id: UUID) -> Fact | None:
        facts = await read_facts(self._owner, run_id)
        return next((fact for fact in facts if fact.type == "cancel_requested"), None)

    async def stopped(self, run_id: UUID) -> Fact:
        """Wait for it."""
        return await until(lambda: self.stop_of(run_id), "a run to be stopped for want of readers")

    async def time_passes(self, after_s: float) -> None:
        """Until a run that nobody has ever read is stopped: for as long as that, and by the same clock."""
        await self.stopped(await self.submit(after_s))

    async def now_us(self) -> int:
        async with self._owner.connect() as connection:
            return int((await connection.execute(text("SELECT runwire.clock_us()"))).scalar_one())


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def watched(owner_engine: AsyncEngine, one: Api, other: Api, sweeping: Abandoning) -> Watched:
    return Watched(owner_engine, one)


@asynccontextmanager
async def stream(api: Api, run_id: UUID, accept: str = "text/event-stream") -> AsyncIterator[None]:
    """Somebody reads, for as long as the block lasts."""
    async with (
        api.client() as client,
        client.stream("GET", f"/v1/runs/{run_id}/events", headers={"Accept": accept}) as answer,
    ):
        assert answer.status_code == 200
        yield


@asynccontextmanager
async def asking_again(api: Api, path: str, params: dict[str, int] | None = None) -> AsyncIterator[None]:
    """Somebody asks, waits a part of the run's patience, and asks again."""

    async def ask(client: httpx.AsyncClient) -> None:
        while True:
            (await client.get(path, params=params, headers=JSON)).raise_for_status()
            await asyncio.sleep(AFTER_S / 4)

    async with api.client() as client:
        task = asyncio.create_task(ask(client))
        try:
            yield
        finally:
            assert not task.done(), task.exception()
            task.cancel()
            await asyncio.wait([task])


# --- who counts


async def test_a_run_is_stopped_once_its_last_reader_has_been_gone_for_as_long_as_it_says(
    one: Api, other: Api, watched: Watched
) -> None:
    run_id = await one.submit()
    async with stream(one, run_id):
        async with stream(other, run_id):
            await watched.shorten(run_id)
        await watched.time_passes(1.5 * AFTER_S)
        left_us = await watched.now_us()
    stop = await watched.stopped(run_id)
    assert stop.at_us - left_us >= AFTER_S * 1e6
    assert stop.data == {"by": {"subject": "runwire", "role": "service"}, "reason": "nobody was reading for 1 s"}
    assert run_id not in await watched.asks()
    async with one.client() as client:
        state = (await client.get(f"/v1/runs/{run_id}")).json()
    assert (state["status"], state["on_disconnect"]) == ("stopping", ASKING)


async def test_a_reader_who_returns_in_time_keeps_the_run_going(one: Api, other: Api, watched: Watched) -> None:
    run_id = await one.submit()
    async with stream(one, run_id):
        await watched.shorten(run_id, 3 * AFTER_S)
    await watched.time_passes(AFTER_S / 2)
    async with stream(other, run_id):
        await watched.time_passes(3.5 * AFTER_S)
        assert await watched.stop_of(run_id) is None


async def test_every_way_to_read_counts(one: Api, other: Api, watched: Watched) -> None:
    runs = [await one.submit() for _ in range(6)]
    paths = [f"/v1/runs/{run_id}" for run_id in runs]
    async with (
        stream(one, runs[0], "application/x-ndjson"),
        asking_again(one, f"{paths[1]}/poll", {"after": 0}),
        asking_again(other, f"{paths[2]}/poll", {"after": 1, "wait": 3}),
        asking_again(other, paths[3]),
        asking_again(one, f"{paths[4]}/events"),
    ):
        for run_id in runs[:5]:
            await watched.shorten(run_id, 2 * AFTER_S)
        await watched.shorten(runs[5])
        assert await watched.stopped(runs[5]), "nobody ever read this one"
        await watched.time_passes(2.5 * AFTER_S)
        assert [await watched.stop_of(run_id) for run_id in runs[:5]] == [None] * 5


async def test_the_stream_that_a_submission_is_answered_with_has_a_reader(one: Api, watched: Watched) -> None:
    body = {"workflow": "contract_review", "input": {"text": "Clause 1"}}
    async with (
        one.client() as client,
        client.stream("POST", "/v1/runs", json=body, headers={"Accept": "text/event-stream"}) as answer,
    ):
        run_id = UUID(answer.headers["location"].rpartition("/")[2])
        await watched.shorten(run_id)
        await watched.time_passes(1.5 * AFTER_S)
        assert await watched.stop_of(run_id) is None
    await watched.stopped(run_id)


async def test_a_replay_is_no_reader(one: Api, watched: Watched) -> None:
    run_id = await watched.submit()
    async with (
        one.client("officer") as officer,
        officer.stream("GET", f"/v1/audit/runs/{run_id}/replay") as answer,
    ):
        assert answer.status_code == 200
        await watched.stopped(run_id)


async def test_nothing_is_written_for_a_run_that_does_not_ask_for_readers(
    one: Api, watched: Watched, worker_engine: AsyncEngine
) -> None:
    run_id = await one.submit("drill")
    async with one.client("operator") as client:
        assert (await client.get(f"/v1/runs/{run_id}")).json()["on_disconnect"] is None
    assert run_id not in await watched.asks()
    await watched.time_passes(1.5 * AFTER_S)
    assert await watched.stop_of(run_id) is None


async def test_an_ended_run_asks_no_more(one: Api, watched: Watched, worker_engine: AsyncEngine, redis: Redis) -> None:
    run_id = await one.submit()
    async with stream(one, run_id):
        await watched.shorten(run_id)
        await Writer(worker_engine, run_id, redis).append(started(), token("a"), result())
    await soon_gone(watched, run_id)
    assert await watched.stop_of(run_id) is None


async def soon_gone(watched: Watched, run_id: UUID) -> None:
    async def look() -> bool | None:
        return True if run_id not in await watched.asks() else None

    await until(look, "an ended run to be forgotten")


# --- while a person is asked


def question() -> Escalation:
    return Escalation(
        name="keep", question="Keep it?", choices=["yes"], to="reviewer", wait_s=60, key="k", place=1, args="00"
    )


async def test_a_run_that_waits_for_a_person_is_not_stopped_unless_it_says_so(
    one: Api, watched: Watched, worker_engine: AsyncEngine, redis: Redis
) -> None:
    patient, hasty = await one.submit(), await one.submit()
    for run_id in (patient, hasty):
        await Writer(worker_engine, run_id, redis).append(started(), question())
        await watched.shorten(run_id, while_waiting=run_id == hasty)
    assert await watched.stopped(hasty)
    async with one.client() as client:
        seen = (await client.get(f"/v1/runs/{patient}")).json()["seen"]
        await watched.time_passes(1.5 * AFTER_S)
        assert await watched.stop_of(patient) is None
        said = {"escalation": 3, "choice": "yes", "seen": seen}
        (await client.post(f"/v1/runs/{patient}/decisions", json=said)).raise_for_status()
    stop, decided = await watched.stopped(patient), (await read_facts(worker_engine, patient))[3]
    assert decided.type == "decision"
    assert stop.at_us - decided.at_us >= AFTER_S * 1e6, "the time that a person was given does not count"


# --- processes and servers that go away


async def later(services: Endpoints, seconds: float) -> None:
    """Until the database's clock, asked where it can be, has gone on for so long."""
    engine = async_engine(services.database_url, application="tests-clock", role=None, pool_size=1)

    async def clock() -> float:
        async with engine.connect() as connection:
            return float((await connection.execute(text("SELECT extract(epoch FROM clock_timestamp())"))).scalar_one())

    end = await clock() + seconds

    async def look() -> bool | None:
        return await clock() > end or None

    await until(look, "the database's clock")
    await engine.dispose()


async def test_readers_of_a_killed_process_who_come_back_in_time_are_not_missed(
    one: Api, watched: Watched, database_url: str, services: Endpoints
) -> None:
    where = {
        "RUNWIRE_DATABASE_URL": database_url,
        "RUNWIRE_REDIS_URL": services.redis_url,
        "RUNWIRE_PORT": "0",
        "RUNWIRE_READERS_S": "0.1",
        "RUNWIRE_READERS_GONE_S": str(GONE_S),
    }
    async with process(**where) as api_process:
        assert api_process.stderr is not None
        listening = json.loads(await asyncio.wait_for(api_process.stderr.readline(), 20))
        address = listening["addresses"][0]
        coming_back, staying_away = await one.submit(), await one.submit()
        async with streaming(address, one.key(), coming_back), streaming(address, one.key(), staying_away):
            await watched.shorten(coming_back)
            await watched.shorten(staying_away)
            await watched.time_passes(1.5 * AFTER_S)
            assert [await watched.stop_of(run_id) for run_id in (coming_back, staying_away)] == [None, None]
            killed_us = await watched.now_us()
            api_process.send_signal(signal.SIGKILL)
            await api_process.wait()
        async with stream(one, coming_back):
            stop = await watched.stopped(staying_away)
            assert stop.at_us - killed_us >= (GONE_S - 0.5) * 1e6, "whoever vanished is waited for"
            await watched.time_passes(AFTER_S)
            assert await watched.stop_of(coming_back) is None


async def test_no_run_is_stopped_because_redis_or_the_database_was_away(
    one: Api, watched: Watched, redis: Redis, database_url: str, services: Endpoints
) -> None:
    read, unread = await one.submit(), await one.submit()
    async with stream(one, read):
        await watched.shorten(read)
        await watched.shorten(unread, 2 * AFTER_S)
        await redis.flushall()
        async with database_away(services, database_url):
            await later(services, GONE_S + AFTER_S)
        back_us = await watched.now_us()
        stop = await watched.stopped(unread)
        assert stop.at_us - back_us >= 1.5 * AFTER_S * 1e6, "its time begins anew: nobody could be seen"
        assert await watched.stop_of(read) is None
    await watched.stopped(read)


# --- with a worker


async def test_a_worker_stops_what_nobody_reads(
    owner_engine: AsyncEngine, api_engine: AsyncEngine, services: Endpoints, one: Api, tmp_path: Path, database_url: str
) -> None:
    environ = {
        "RUNWIRE_DATABASE_URL": database_url,
        "RUNWIRE_REDIS_URL": services.redis_url,
        "RUNWIRE_SCRIPTED_URL": "http://127.0.0.1:1/v1",
        "RUNWIRE_SWEEP_S": "0.2",
        "RUNWIRE_FORGOTTEN_S": "0.2",
        "RUNWIRE_READERS_GONE_S": str(GONE_S),
    }
    worker = await start_worker(environ, tmp_path / "worker.log")
    runs = Runs(api_engine, await new_tenant(owner_engine))
    run_id = await runs.submit("drill", {"pieces": 100_000, "rate_per_s": 50})
    await runs.has(run_id, "token")
    async with api_engine.begin() as connection:
        await readers.expect(connection, run_id, OnDisconnect(cancel_after_s=5))
    await Watched(owner_engine, one).shorten(run_id)
    facts = await runs.ended(run_id)
    await worker.end()
    assert facts[-1].type == "cancelled"
    assert facts[-1].data["reason"] == "nobody was reading for 1 s"
    assert facts[-1].data["partial"]["output"]["characters"] > 0
