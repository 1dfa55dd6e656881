"""Metrics: one registry per process, labels of a few known words, time without the database counted once."""

import socket
import urllib.request
from urllib.error import URLError

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from pydantic import ValidationError
from sqlalchemy.exc import OperationalError

from api.figures import ApiFigures
from api.settings import ApiSettings
from eventstore.metrics import DatabaseWatch, RecorderMetrics, SealerMetrics, new_registry
from eventstore.scrape import NoDoor, parse_address, serving
from worker.metrics import WorkerMetrics
from worker.settings import WorkerSettings


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(name, labels)


def test_many_processes_worth_of_metrics_live_side_by_side_and_none_in_the_librarys_global_registry() -> None:
    before = set(REGISTRY._names_to_collectors)
    first, second = ApiFigures(), ApiFigures()
    first.stream("sse").opened()
    assert value(first.registry, "runwire_api_streams_open", front="sse") == 1
    assert value(second.registry, "runwire_api_streams_open", front="sse") == 0
    for registry in (new_registry(), new_registry()):
        recorder = RecorderMetrics(registry)
        WorkerMetrics(registry, recorder.database)
    assert set(REGISTRY._names_to_collectors) == before


def test_no_series_is_written_that_says_when_another_one_was_made() -> None:
    assert b"_created" not in generate_latest(ApiFigures().registry)


class Refused(Exception):
    def __init__(self, sqlstate: str | None) -> None:
        self.sqlstate = sqlstate


def test_time_without_the_database_is_counted_once_however_often_it_is_noticed() -> None:
    registry, now = CollectorRegistry(), 100.0
    watch = DatabaseWatch(registry, lambda: now)
    for now in (100.0, 101.0, 103.0):  # noqa: B007 - the clock reads it
        watch.away()
    assert value(registry, "runwire_database_up") == 0
    now = 104.0
    watch.answered()
    now = 900.0
    watch.answered()
    assert value(registry, "runwire_database_up") == 1
    assert value(registry, "runwire_database_away_seconds_total") == 4.0


@pytest.mark.parametrize(
    ("sqlstate", "up"), [(None, 0), ("08006", 0), ("57P01", 0), ("57000", 1), ("57014", 1), ("55P03", 1)]
)
def test_a_refusal_is_an_answer_and_a_lost_connection_is_none(sqlstate: str | None, up: int) -> None:
    registry = CollectorRegistry()
    DatabaseWatch(registry).met(OperationalError("SELECT", {}, Refused(sqlstate)))
    assert value(registry, "runwire_database_up") == up


def test_what_a_caller_sends_adds_no_series() -> None:
    figures = ApiFigures()
    for path in ("/a", "/b", "/v1/runs/" + "0" * 36):
        figures.answered({"method": "GET", "path": path}, 404, 0.1)
        figures.answered({"method": "BREW" + path, "path": path}, None, None)
    [family] = [each for each in figures.registry.collect() if each.name == "runwire_api_requests"]
    assert [(sample.labels, sample.value) for sample in family.samples] == [
        ({"route": "other", "method": "GET", "status": "404"}, 3.0),
        ({"route": "other", "method": "other", "status": "none"}, 3.0),
    ]


def test_every_outcome_of_a_stream_and_of_a_look_is_there_before_it_happens() -> None:
    """A rate over a counter that is born with its first failure does not see that failure."""
    assert value(ApiFigures().registry, "runwire_api_streams_total", front="replay", outcome="cut") == 0
    registry = new_registry()
    SealerMetrics(registry)
    assert value(registry, "runwire_sealer_ticks_total", outcome="unsigned") == 0


@pytest.mark.parametrize(
    ("text", "address"),
    [("127.0.0.1:9101", ("127.0.0.1", 9101)), ("[::1]:0", ("::1", 0)), ("0.0.0.0:80", ("0.0.0.0", 80))],
)
def test_an_address_is_an_ip_and_a_port(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address
    assert WorkerSettings(worker_metrics=text).worker_metrics == text


@pytest.mark.parametrize("text", ["9101", ":9101", "localhost:9101", "127.0.0.1:", "127.0.0.1:70000", "127.0.0.1:9x"])
def test_what_is_no_address_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValidationError, match=r"127\.0\.0\.1:9101"):
        WorkerSettings(worker_metrics=text)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def test_a_door_answers_while_its_block_lasts_and_then_gives_the_port_back() -> None:
    registry = new_registry()
    RecorderMetrics(registry).flushed(0.01, 5, ["ok", "duplicate"])
    address = f"127.0.0.1:{free_port()}"
    with serving(address, registry, "RUNWIRE_WORKER_METRICS"):
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as answer:
            said = answer.read().decode()
        assert 'runwire_recorder_verdicts_total{verdict="duplicate"} 1.0' in said
        with (
            pytest.raises(NoDoor, match=f"RUNWIRE_WORKER_METRICS: cannot listen on {address}: Address already in use"),
            serving(address, new_registry(), "RUNWIRE_WORKER_METRICS"),
        ):
            pass
    with pytest.raises(URLError):
        urllib.request.urlopen(f"http://{address}/metrics", timeout=5)
    with serving(address, registry, "RUNWIRE_WORKER_METRICS"):
        pass


def test_without_an_address_there_is_no_door() -> None:
    with serving(None, new_registry(), "RUNWIRE_WORKER_METRICS"), serving("", new_registry(), "X"):
        pass


def test_a_token_that_is_asked_for_must_be_set_and_long() -> None:
    where = {"database_url": "postgresql:///x", "redis_url": "redis://x"}
    with pytest.raises(ValidationError, match="metrics_token must be set"):
        ApiSettings.model_validate({**where, "metrics": "token"})
    with pytest.raises(ValidationError, match="metrics_token"):
        ApiSettings.model_validate({**where, "metrics_token": "short"})
