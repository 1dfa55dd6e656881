"""Every error class is in the one table, and no problem repeats what was sent."""

from collections.abc import Iterator

import orjson
import pytest

from api.errors import KINDS, Fault, InvalidInput, Refusal, told
from eventstore.domain.errors import EventStoreError, LogUnavailable, NotStorable, PolicyError, UnknownRun


def tree(root: type[Exception]) -> Iterator[type[Exception]]:
    yield root
    for child in root.__subclasses__():
        yield from tree(child)


@pytest.mark.parametrize("kind", [*tree(EventStoreError), *tree(Refusal)], ids=lambda kind: kind.__name__)
def test_every_error_has_its_status_code_and_title(kind: type[Exception]) -> None:
    assert kind in KINDS, f"add {kind.__name__} to api.errors.KINDS"
    assert 400 <= KINDS[kind].status < 600
    assert kind.__doc__


def test_a_problem_has_the_shape_of_rfc_9457_and_names_the_request() -> None:
    answer = told("abc", UnknownRun())
    body = orjson.loads(bytes(answer.body))
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert body == {
        "type": "urn:runwire:problem:run-not-found",
        "title": "Run not found",
        "status": 404,
        "detail": "There is no such run.",
        "instance": "urn:runwire:request:abc",
        "code": "run-not-found",
        "request_id": "abc",
    }


def test_faults_are_told_with_their_place() -> None:
    body = orjson.loads(bytes(told("abc", InvalidInput(faults=[Fault("/input/text", "is missing")])).body))
    assert body["errors"] == [{"pointer": "/input/text", "detail": "is missing"}]
    body = orjson.loads(bytes(told("abc", NotStorable("NaN is not JSON.", "/input/x")).body))
    assert body["errors"] == [{"pointer": "/input/x", "detail": "NaN is not JSON."}]


@pytest.mark.parametrize("fault", [ZeroDivisionError("secret"), PolicyError("secret"), EventStoreError("secret")])
def test_what_went_wrong_inside_stays_inside(fault: Exception) -> None:
    answer = told("abc", fault)
    assert answer.status_code == 500
    assert b"secret" not in bytes(answer.body)


def test_a_log_that_is_away_asks_to_come_again() -> None:
    answer = told("abc", LogUnavailable())
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
