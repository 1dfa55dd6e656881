"""A log that lacks a partition: refused cleanly, told loudly, tried again, and seen by whoever watches."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import pytest
import pytest_asyncio
import structlog
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from eventstore.handoff import Handoff
from eventstore.queue import Bounds
from eventstore.sql import STATEMENTS
from eventstore.vitals import LOOK_RUNS_MAX, read_vitals
from ops.services import Endpoints
from tests.serving import Writer, register, serving, until
from tests.writing import new_tenant, open_run, started, token
from worker import host
from worker.host import Host
from worker.metrics import WorkerMetrics
from worker.runner import Bench
from worker.settings import WorkerSettings

PARTITIONS = "SELECT inhrelid::regclass::text, pg_get_expr(relpartbound, oid) FROM pg_inherits JOIN pg_class ON oid = inhrelid WHERE inhparent = 'runwire.event'::regclass ORDER BY 1"  # noqa: E501
WISH = {"workflow": "contract_review", "input": {"text": "Clause 1"}}


@pytest_asyncio.fixture(scope="module", loop_scope="session", autouse=True)
async def registered(worker_engine: AsyncEngine) -> None:
    await register(worker_engine)


@asynccontextmanager
async def detached(owner: AsyncEngine, *, last: int) -> AsyncIterator[None]:
    """The log without its newest partitions, which are attached again as ops/runbooks/log.md says."""
    async with owner.begin() as connection:
        gone = (await connection.execute(text(PARTITIONS))).all()[-last:]
        for name, _ in gone:
            await connection.execute(text(f"ALTER TABLE runwire.event DETACH PARTITION {name}"))
    try:
        yield
    finally:
        async with owner.begin() as connection:
            for name, bound in gone:
                await connection.execute(text(f"ALTER TABLE runwire.event ATTACH PARTITION {name} {bound}"))
                await connection.execute(text(f"ALTER TABLE {name} ENABLE ALWAYS TRIGGER refuse_change"))


async def counts(owner: AsyncEngine) -> list[int]:
    tables = ("run", "input", "head", "idempotency", "event")
    async with owner.connect() as connection:
        return [
            (await connection.execute(text(f"SELECT count(*) FROM runwire.{name}"))).scalar_one() for name in tables
        ]


async def test_a_submit_without_a_partition_is_refused_whole_and_goes_through_once_there_is_room(
    database_url: str, services: Endpoints, owner_engine: AsyncEngine
) -> None:
    async with serving(database_url, services.redis_url) as api, api.client() as client:
        key = {"Idempotency-Key": uuid4().hex}
        before_id = await api.submit()
        before = await counts(owner_engine)
        async with detached(owner_engine, last=6):
            with structlog.testing.capture_logs() as logs:
                refused = await client.post("/v1/runs", json=WISH, headers=key)
                cancel = await client.delete(f"/v1/runs/{before_id}")
            for answer in (refused, cancel):
                assert (answer.status_code, answer.json()["code"]) == (503, "log-unavailable")
                assert answer.headers["content-type"] == "application/problem+json"
                assert "retry-after" in answer.headers
                assert "partition" not in answer.text
            told = [line for line in logs if line["log_level"] == "error"]
            assert [line["event"] for line in told] == ["refused: the log has no partition for this run"] * 2
            assert "ops/runbooks/log.md" in told[0]["hint"]
            assert told[0]["request_id"] == refused.json()["request_id"]
            metrics = (await client.get("/metrics")).text
            assert "\nrunwire_partition_runway_seconds 0.0\n" in metrics
            assert "\nrunwire_partitions 0.0\n" in metrics
        assert await counts(owner_engine) == before
        again = await client.post("/v1/runs", json=WISH, headers=key)
        assert again.status_code == 202
        assert "idempotent-replayed" not in again.headers


@asynccontextmanager
async def making_room(
    engine: AsyncEngine, redis: Redis, services: Endpoints, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[CollectorRegistry]:
    """The sweep of a worker that makes partitions, and asks again at once instead of in seconds."""
    for name in ("PARTITIONS_S", "PARTITIONS_AGAIN_S", "PARTITIONS_AGAIN_S_MAX"):
        monkeypatch.setattr(host, name, 0.001)
    registry, handoff = CollectorRegistry(), Handoff(services.redis_url, redis)
    bench = SimpleNamespace(
        engine=engine, metrics=WorkerMetrics(registry), settings=WorkerSettings(), owner="", lease_s=6, workflows={}
    )
    made = Host(
        cast(Bench, bench), handoff, redis, hints=cast(Any, None), bounds=Bounds(1, 1), sweep_s=1, queue_wait_s=60
    )
    task = asyncio.create_task(made._make_room())
    try:
        yield registry
        assert not task.done(), task
    finally:
        task.cancel()
        await asyncio.wait([task])
        handoff.close()


async def test_the_sweep_says_loudly_that_partitions_run_out_and_stops_when_they_do_not(
    worker_engine: AsyncEngine, owner_engine: AsyncEngine, redis: Redis, services: Endpoints,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    with structlog.testing.capture_logs() as logs:

        def told() -> list[Any]:
            return [line for line in logs if line["event"] == "partitions run out"]

        async with making_room(worker_engine, redis, services, monkeypatch):
            async with detached(owner_engine, last=4):
                await until(lambda: len(told()) > 2)
            [line, *_] = told()
            assert line["log_level"] == "error"
            assert line["runway_days"] < 14
            assert "attach" in line["hint"]


async def test_partitions_that_cannot_be_made_are_told_with_the_reason_and_made_once_they_can(
    worker_engine: AsyncEngine, owner_engine: AsyncEngine, redis: Redis, services: Endpoints,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    async with owner_engine.begin() as connection:
        [*_, (last, _)] = (await connection.execute(text(PARTITIONS))).all()
        await connection.execute(text(f"DROP TABLE {last}"))
        await connection.execute(text("REVOKE EXECUTE ON FUNCTION runwire.ensure_partitions FROM runwire_worker"))
    with structlog.testing.capture_logs() as logs:
        async with making_room(worker_engine, redis, services, monkeypatch) as registry:
            await until(lambda: (registry.get_sample_value("runwire_partition_failures_total") or 0) > 2)
            line = next(line for line in logs if line["event"] == "could not make partitions")
            assert line["log_level"] == "error"
            assert "permission denied" in line["why"]
            assert "ops/runbooks/log.md" in line["hint"]
            async with owner_engine.begin() as connection:
                await connection.execute(text("GRANT EXECUTE ON FUNCTION runwire.ensure_partitions TO runwire_worker"))
            await until(lambda: any(line["event"] == "made partitions" for line in logs))
    async with owner_engine.connect() as connection:
        assert len((await connection.execute(text(PARTITIONS))).all()) == 6


# --- what is unsealed


async def test_the_age_of_what_is_unsealed_is_that_of_its_oldest_event_however_busy_the_run(
    worker_engine: AsyncEngine, api_engine: AsyncEngine, owner_engine: AsyncEngine
) -> None:
    run_id = (await open_run(api_engine, await new_tenant(owner_engine))).run_id
    writer = Writer(worker_engine, run_id)
    await writer.append(started())
    async with owner_engine.begin() as connection:
        await _seal_by_hand(connection)
    await writer.append(token("first that no block names"))
    recorded = text("SELECT min(recorded_us), max(recorded_us) FROM runwire.event WHERE run_id = :run AND seq >= 3")
    third_us = newest_us = 0
    while newest_us - third_us < 300_000:  # far enough apart that one is not taken for the other
        await writer.append(token("newer"))
        async with owner_engine.connect() as connection:
            third_us, newest_us = (await connection.execute(recorded, {"run": run_id})).one()
    async with owner_engine.connect() as connection:
        now = "extract(epoch FROM clock_timestamp()) * 1000000"
        before_us = int((await connection.execute(text(f"SELECT ({now})::bigint"))).scalar_one())
        vitals = await read_vitals(connection)
        after_us = int((await connection.execute(text(f"SELECT ({now})::bigint"))).scalar_one())
    assert vitals.unsealed_runs == 1
    assert (before_us - third_us) / 1e6 <= vitals.unsealed_age_s <= (after_us - third_us) / 1e6


async def _seal_by_hand(connection: AsyncConnection) -> None:
    await connection.execute(
        text(
            "INSERT INTO runwire.sealed SELECT run_id, seq, chain, false, 1 FROM runwire.head "
            "ON CONFLICT (run_id) DO UPDATE SET seq = excluded.seq"
        )
    )


async def test_a_shut_gate_is_seen(owner_engine: AsyncEngine, api_engine: AsyncEngine) -> None:
    async with owner_engine.begin() as connection:
        await connection.execute(text("SELECT runwire.shut_gate('a test')"))
    try:
        async with api_engine.connect() as connection:
            assert not (await read_vitals(connection)).gate_open
    finally:
        async with owner_engine.begin() as connection:
            await connection.execute(text("SELECT runwire.open_gate()"))


async def test_a_look_costs_the_same_however_many_runs_there_are(
    owner_engine: AsyncEngine, api_engine: AsyncEngine, worker_engine: AsyncEngine
) -> None:
    many = 20 * LOOK_RUNS_MAX
    async with owner_engine.begin() as connection:
        await connection.execute(
            text(
                "INSERT INTO runwire.head (run_id, tenant_id, status, seq, chain, recorded_us, handed_at) "
                "SELECT gen_random_uuid(), gen_random_uuid(), 'completed', 1, '', 0, now() FROM generate_series(1, :n)"
            ),
            {"n": many},
        )
        await _seal_by_hand(connection)
        await connection.execute(text("ANALYZE runwire.head, runwire.sealed, runwire.event"))
    async with api_engine.connect() as connection:
        statement = STATEMENTS["vitals"].replace("%(runs)s", str(LOOK_RUNS_MAX))
        lines = (await connection.execute(text("EXPLAIN " + statement))).scalars().all()
    plan = "\n".join(lines)
    for table in ("head", "sealed"):
        assert f"Seq Scan on {table}" not in plan, plan
    assert "Index Scan Backward using head_pkey" in plan, plan
