"""`GET /metrics` over a real API, real workers and a real sealer: who may ask, what it says, what it never says."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from uuid import UUID

import httpx
import psycopg
import pytest
import pytest_asyncio
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from redis.asyncio import Redis
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from eventstore import log, run_writer, signing
from eventstore.handoff import Handoff
from eventstore.metrics import RecorderMetrics
from eventstore.recorder import Recorder
from ops.ports import free_port
from ops.services import Endpoints
from tests.integration.test_api_outages import not_reading, streaming
from tests.running import Runs, start_worker
from tests.running import until as asked_until
from tests.serving import Api, Writer, database_away, register, serving, until
from tests.writing import NOW_US, claim, new_tenant, open_run, result, started, token

TOKEN = "a token of the service's operator"
Samples = dict[str, float]


def samples(text: str) -> Samples:
    """Every sample by its name and labels, as it is written."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


async def scrape(address: str, **headers: str) -> Samples:
    async with httpx.AsyncClient(base_url=address, timeout=20) as client:
        answer = await client.get("/metrics", headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return samples(answer.text)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def api(database_url: str, services: Endpoints, worker_engine: AsyncEngine) -> AsyncIterator[Api]:
    await register(worker_engine)
    async with serving(database_url, services.redis_url, send_timeout_s=1.0) as api:
        yield api


async def test_a_scrape_on_this_machine_needs_no_key_and_says_how_the_log_stands(api: Api) -> None:
    said = await scrape(api.address)
    assert said["runwire_database_up"] == 1
    assert said["runwire_gate_open"] == 1
    assert said["runwire_partitions"] == 6
    assert 28 * 86_400 <= said["runwire_partition_runway_seconds"] <= 35 * 86_400
    assert said["process_resident_memory_bytes"] > 0


@pytest.mark.parametrize(
    ("setting", "headers", "status"),
    [
        ({}, {}, 200),
        ({}, {"X-Forwarded-For": "192.0.2.7"}, 401),
        ({}, {"Forwarded": "for=192.0.2.7"}, 401),
        ({"metrics_token": TOKEN}, {"Via": "1.1 proxy", "Authorization": f"Bearer {TOKEN}"}, 200),
        ({"metrics_token": TOKEN, "metrics": "token"}, {}, 401),
        ({"metrics_token": TOKEN, "metrics": "token"}, {"Authorization": f"Bearer {TOKEN[:-1]}"}, 401),
        ({"metrics_token": TOKEN, "metrics": "token"}, {"Authorization": "Bearer \xff"}, 401),
        ({"metrics_token": TOKEN, "metrics": "token"}, {"Authorization": f"Bearer {TOKEN}"}, 200),
        ({"metrics": "open"}, {"X-Forwarded-For": "192.0.2.7"}, 200),
        ({"metrics_token": TOKEN, "metrics": "off"}, {"Authorization": f"Bearer {TOKEN}"}, 404),
    ],
)
async def test_who_may_read_metrics_is_what_the_setting_says(
    database_url: str, setting: dict[str, str], headers: dict[str, str], status: int
) -> None:
    async with serving(database_url, **setting) as api, httpx.AsyncClient(base_url=api.address) as client:
        sent = {name.encode(): value.encode("latin-1") for name, value in headers.items()}
        answer = await client.get("/metrics", headers=sent)
        assert answer.status_code == status
        if status != 200:
            assert answer.headers["content-type"] == "application/problem+json"
            assert TOKEN not in answer.text


async def test_a_tenants_key_opens_no_metrics_of_the_whole_service(database_url: str) -> None:
    async with (
        serving(database_url, metrics="token", metrics_token=TOKEN) as api,
        api.client("officer") as officer,
    ):
        assert (await officer.get("/metrics")).status_code == 401


async def test_requests_streams_and_deliveries_are_counted_by_route_and_front_and_name_nobody(
    api: Api, worker_engine: AsyncEngine, redis: Redis
) -> None:
    before = await scrape(api.address)

    def more(after: Samples, name: str) -> float:
        return after[name] - before.get(name, 0.0)

    run_id = await api.submit(tenant="acme", subject="ada")
    writer = Writer(worker_engine, run_id, redis)
    async with streaming(api.address, api.key(), run_id) as stream, api.client() as client:
        await until(lambda: stream.has("accepted"))
        assert (await scrape(api.address))["runwire_api_streams_open{front=sse}"] == 1
        await writer.append(started(), token("a secret clause"))
        await until(lambda: stream.has("token"))
        waiting = asyncio.create_task(client.get(f"/v1/runs/{run_id}/poll?after=3&wait=20"))
        await until(lambda: len(api.service.waits) == 2)
        await writer.append(result())
        assert (await waiting).json()["done"]
        await until(lambda: stream.ended_cleanly)
        assert len((await client.get(f"/v1/runs/{run_id}/poll")).json()["events"]) == 4
        lines = await client.get(f"/v1/runs/{run_id}/events", headers={"Accept": "application/x-ndjson"})
        assert lines.text.count("\n") == 4
        page = await client.get(f"/v1/runs/{run_id}/events", headers={"Accept": "application/json"})
        assert len(page.json()["events"]) == 4
        await client.get("/v1/runs/" + "0" * 36 + "/nowhere")
    async with api.client("officer") as officer:
        await officer.get(f"/v1/audit/runs/{run_id}/replay?speed=max")
    after = await scrape(api.address)
    delivered = {front: more(after, f"runwire_api_events_delivered_total{{front={front}}}") for front in
                 ("sse", "ndjson", "poll", "page", "replay")}  # fmt: skip
    assert delivered == {"sse": 4, "ndjson": 4, "poll": 5, "page": 4, "replay": 4}
    for front in ("sse", "ndjson", "replay"):
        assert more(after, f"runwire_api_streams_total{{front={front},outcome=ended}}") == 1
        assert after[f"runwire_api_streams_open{{front={front}}}"] == 0
    polled = "route=/v1/runs/{run_id}/poll"
    assert more(after, f"runwire_api_requests_total{{method=GET,{polled},status=200}}") == 2
    # The one that asked to wait is no measure of how fast we are.
    assert more(after, f"runwire_api_request_seconds_count{{method=GET,{polled}}}") == 1
    assert more(after, "runwire_api_requests_total{method=POST,route=/v1/runs,status=202}") == 1
    assert "runwire_api_requests_total{method=GET,route=/v1/audit/runs/{run_id}/replay,status=200}" in after
    assert more(after, "runwire_api_requests_total{method=GET,route=other,status=404}") == 1
    assert more(after, "runwire_tail_events_total") >= 3
    assert more(after, "runwire_tail_lag_seconds_count") >= 1
    assert (after["runwire_tails"], after["runwire_api_waits"]) == (0, 0)
    whole = "\n".join(after)
    for word in (str(run_id), run_id.hex, "acme", "ada", "secret", api.key(), api.service.keys.__class__.__name__):
        assert word not in whole


async def test_a_reader_who_leaves_and_one_who_is_cut_are_told_apart(
    api: Api, worker_engine: AsyncEngine, redis: Redis
) -> None:
    run_id = await api.submit()
    writer = Writer(worker_engine, run_id, redis)
    await writer.append(started())

    async def ends(outcome: str) -> float:
        return (await scrape(api.address))[f"runwire_api_streams_total{{front=sse,outcome={outcome}}}"]

    left, cut = await ends("left"), await ends("cut")
    async with streaming(api.address, api.key(), run_id) as stream:
        await until(lambda: stream.has("started"))
    await until(lambda: len(api.service.waits) == 0)
    assert await ends("left") == left + 1
    for _ in range(20):
        await writer.append(*[token("x" * 60_000) for _ in range(10)])
    async with not_reading(api, run_id):
        await until(lambda: len(api.service.waits) == 1)
        await until(lambda: len(api.service.waits) == 0)
    assert await ends("cut") == cut + 1


async def test_while_the_database_is_away_a_scrape_is_answered_and_invents_nothing(
    database_url: str, services: Endpoints
) -> None:
    async with serving(database_url, services.redis_url) as api, api.client() as client:
        assert "runwire_partition_runway_seconds" in await scrape(api.address)
        async with database_away(services, database_url):
            assert (await client.get("/v1/runs")).status_code == 503

            async def noticed() -> Samples | None:
                said = await scrape(api.address)
                return said if said["runwire_database_up"] == 0 else None

            away = await asked_until(noticed, "a scrape without a database")
            assert "runwire_gate_open" not in away
            assert "runwire_partition_runway_seconds" not in away
            assert "runwire_unsealed_age_seconds" not in away
            assert away["process_open_fds"] > 0

        async def back() -> Samples | None:
            said = await scrape(api.address)
            return said if said["runwire_database_up"] == 1 else None

        said = await asked_until(back, "the database to be back")
        assert said["runwire_gate_open"] == 1
        assert said["runwire_database_away_seconds_total"] > 0


async def test_one_look_at_the_database_serves_all_scrapes_of_a_second(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    async with serving(database_url) as api:
        vitals = api.service.figures.vitals
        look = vitals._look

        async def counted(engine: AsyncEngine) -> object:
            nonlocal looks
            looks += 1
            return await look(engine)

        monkeypatch.setattr(vitals, "_look", counted)
        await asyncio.gather(*(scrape(api.address) for _ in range(10)))
    assert looks == 1


# --- the recorder


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def tenant(owner_engine: AsyncEngine) -> UUID:
    return await new_tenant(owner_engine)


Value = Callable[..., float]


@pytest_asyncio.fixture(loop_scope="session")
async def recording(worker_engine: AsyncEngine, redis: Redis) -> AsyncIterator[tuple[Recorder, Value]]:
    registry = CollectorRegistry()
    made = Recorder(
        worker_engine, redis, lease_s=30, heartbeat_s=3600, clock_us=lambda: NOW_US, metrics=RecorderMetrics(registry)
    )
    task = asyncio.create_task(made.run())

    def value(name: str, **labels: str) -> float:
        return registry.get_sample_value(f"runwire_recorder_{name}", labels) or 0.0

    yield made, value
    task.cancel()
    await asyncio.wait([task])


async def test_a_group_that_is_sent_again_is_counted_as_such_and_its_events_once(
    recording: tuple[Recorder, Value], api_engine: AsyncEngine, worker_engine: AsyncEngine, tenant: UUID,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    made, value = recording
    run_id = (await open_run(api_engine, tenant)).run_id
    await claim(worker_engine, run_id)
    real, calls = log.append, 0

    async def forgetful(connection: AsyncConnection, batches: list[log.Batch], lease_s: float) -> list[log.Answer]:
        nonlocal calls
        calls += 1
        answers = await real(connection, batches, lease_s)
        if calls == 1:
            assert value("stalled") == 0
            raise OperationalError("append", {}, psycopg.OperationalError("the connection is lost"))
        assert value("stalled") == 1
        return answers

    monkeypatch.setattr(log, "append", forgetful)
    writer = made.open(run_id, 1)
    for body in (started(), token("a"), token("b")):
        writer.push(body)
    assert (value("buffered_events"), value("writers")) == (3, 1)
    assert value("buffered_bytes") > 50
    await writer.flush()
    assert (value("resent_total"), value("stalled"), value("buffered_events")) == (1, 0, 0)
    assert value("verdicts_total", verdict="duplicate") == 1
    assert (value("flush_events_sum"), value("flush_events_count"), value("flush_seconds_count")) == (3, 1, 1)


async def test_a_writer_that_waits_for_room_is_seen_while_it_waits_and_after(
    recording: tuple[Recorder, Value], api_engine: AsyncEngine, worker_engine: AsyncEngine, tenant: UUID,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    made, value = recording
    run_id = (await open_run(api_engine, tenant)).run_id
    await claim(worker_engine, run_id)
    real, go_on = log.append, asyncio.Event()

    async def held(*arguments: object) -> list[log.Answer]:
        await go_on.wait()
        return await real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(log, "append", held)
    monkeypatch.setattr(run_writer, "BUFFER_CHARS_MAX", 100)
    writer = made.open(run_id, 1)
    writer.push(started())
    writer.push(token("x" * 200))
    late = asyncio.create_task(writer.push_piece(("token",), "y", token))
    await until(lambda: value("full_writers") == 1)
    go_on.set()
    await late
    await writer.flush()
    assert value("full_writers") == 0
    assert value("full_seconds_total") > 0


# --- processes of their own


async def test_a_worker_says_how_fast_runs_begin_and_stop_at_an_address_of_its_own(
    services: Endpoints, database_url: str, redis: Redis, api_engine: AsyncEngine, tenant: UUID, tmp_path: Path
) -> None:
    address = f"127.0.0.1:{free_port()}"
    environ = {
        "RUNWIRE_DATABASE_URL": database_url,
        "RUNWIRE_REDIS_URL": services.redis_url,
        "RUNWIRE_SCRIPTED_URL": "http://127.0.0.1:1/v1",
        "RUNWIRE_WORKER_METRICS": address,
    }
    log_file = tmp_path / "worker.log"
    worker = await start_worker(environ, log_file)
    handoff = Handoff(services.redis_url, redis)
    try:
        runs = Runs(api_engine, tenant)
        short, long = await runs.submit("drill", {"pieces": 3}), await runs.submit("drill", {"pieces": 200_000})
        await handoff.hand_over(short, long)
        await runs.ended(short)
        await runs.has(long, "token")
        await runs.cancel(long)
        await runs.ended(long)

        async def told() -> Samples | None:
            said = await scrape(f"http://{address}")
            return said if said["runwire_cancel_seconds_count"] == 1 else None

        said = await asked_until(told, "the cancel to be counted")
        assert said["runwire_first_event_seconds_count"] == 2
        assert said["runwire_worker_runs_max"] == 200
        assert said["runwire_recorder_verdicts_total{verdict=ok}"] > 2
        assert said["runwire_recorder_flush_events_sum"] > 3
        second = await start_worker(environ, tmp_path / "second.log")
        assert await asyncio.wait_for(second.process.wait(), 20) == 1
        [line] = (tmp_path / "second.log").read_text().splitlines()
        assert line == f"worker: RUNWIRE_WORKER_METRICS: cannot listen on {address}: Address already in use"
    finally:
        code = await worker.end()
        handoff.close()
    assert code == 0
    assert f"http://{address}/metrics" in log_file.read_text()


async def test_a_sealer_says_what_it_does_at_an_address_of_its_own(
    database_url: str, worker_engine: AsyncEngine, api_engine: AsyncEngine, tenant: UUID, api: Api, tmp_path: Path
) -> None:
    signing.ensure_key(tmp_path / "key", "runwire.test")
    await Writer(worker_engine, (await open_run(api_engine, tenant)).run_id).append(started())
    address = f"127.0.0.1:{free_port()}"
    environ = {
        "RUNWIRE_DATABASE_URL": database_url,
        "RUNWIRE_SEAL_KEY_FILE": str(tmp_path / "key"),
        "RUNWIRE_CHECKPOINT_DIR": str(tmp_path / "outside"),
        "RUNWIRE_SEAL_ORIGIN": "runwire.test",
        "RUNWIRE_SEAL_METRICS": address,
        "RUNWIRE_SEAL_TICK_S": "0.05",
        "RUNWIRE_SEAL_LEASE_S": "1",
    }
    sealer = await asyncio.create_subprocess_exec(sys.executable, "-m", "eventstore.sealing", env=os.environ | environ)
    try:

        async def sealed() -> Samples | None:
            try:
                said = await scrape(f"http://{address}")
            except httpx.TransportError:
                return None
            return said if said["runwire_sealer_blocks_total"] else None

        said = await asked_until(sealed, "a block")
        assert said["runwire_sealer_leading"] == 1
        assert said["runwire_sealer_entries_total"] >= 1
        assert said["runwire_sealer_ticks_total{outcome=fault}"] == 0

        async def quiet() -> Samples | None:
            told = await scrape(api.address)
            return told if told["runwire_unsealed_runs"] == 0 and told["runwire_unsigned_blocks"] == 0 else None

        told = await asked_until(quiet, "the API to say that all is sealed")
        assert (told["runwire_unsealed_age_seconds"], told["runwire_unsigned_age_seconds"]) == (0, 0)
        assert told["runwire_blocks"] >= 1
        assert told["runwire_checkpoint_age_seconds"] < 60
    finally:
        sealer.terminate()
        await asyncio.wait_for(sealer.wait(), 20)
    assert sealer.returncode == 0
