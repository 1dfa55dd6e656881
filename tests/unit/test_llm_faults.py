"""Errors of the provider in our codes and words, never in its own."""

from datetime import UTC, datetime

import httpx2
import openai
import pytest

from worker.llm.faults import fault_of_api_error, fault_of_transport, request_id_of, retry_after_of
from worker.llm.model import ModelFault, ModelRequest

SECRET = "sk-live-123 and the customer's contract"
REQUEST = httpx2.Request("POST", "http://model.invalid/v1/chat/completions")


def status_fault(status: int, *, code: object = None, kind: object = None, **headers: str) -> ModelFault:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    response = httpx2.Response(status, headers=named, request=REQUEST)
    body = {"message": SECRET, "code": code, "type": kind}
    return fault_of_api_error(openai.APIStatusError(SECRET, response=response, body=body))


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 529])
def test_a_busy_or_failing_provider_is_tried_again(status: int) -> None:
    fault = status_fault(status)
    assert (fault.code, fault.retryable, fault.status) == ("provider_busy", True, status)


@pytest.mark.parametrize("status", [302, 400, 401, 402, 403, 404, 413, 415, 422])
def test_a_refusal_is_final(status: int) -> None:
    fault = status_fault(status)
    assert (fault.code, fault.retryable, fault.status) == ("provider_refused", False, status)


def test_an_exhausted_quota_is_a_refusal_although_its_status_says_busy() -> None:
    assert status_fault(429, code="insufficient_quota").code == "provider_refused"
    assert status_fault(429, kind="insufficient_quota").code == "provider_refused"
    assert status_fault(429, kind="tokens", code="rate_limit_exceeded").code == "provider_busy"


def test_a_request_stopped_by_content_rules_says_so() -> None:
    fault = status_fault(400, code="content_filter")
    assert (fault.code, fault.retryable) == ("content_filter", False)


@pytest.mark.parametrize("status", [400, 401, 429, 500])
@pytest.mark.parametrize("code", [None, "model_not_found", SECRET, 7, ["a"]])
def test_the_words_of_the_provider_are_never_repeated(status: int, code: object) -> None:
    fault = status_fault(status, code=code, x_request_id=SECRET)
    assert SECRET not in f"{fault} {fault!r} {fault.message_safe} {fault.request_id}"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "2.5"}, 2.5),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after-ms": "150", "retry-after": "9"}, 0.15),
        ({"retry-after": "Fri, 20 Nov 2026 08:00:10 GMT"}, 10.0),
        ({"retry-after": "Fri, 20 Nov 2026 07:00:00 GMT"}, 0.0),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "1e9"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after-ms": "x", "retry-after": "4"}, 4.0),
    ],
)
def test_retry_after_is_read_as_seconds_milliseconds_or_a_date(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_of(headers, datetime(2026, 11, 20, 8, 0, tzinfo=UTC)) == seconds


def test_retry_after_travels_with_the_fault() -> None:
    assert status_fault(429, retry_after="3").retry_after_s == 3.0
    assert status_fault(503, retry_after_ms="20").retry_after_s == 0.02


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (httpx2.ConnectTimeout("x"), "connection"),
        (httpx2.PoolTimeout("x"), "connection"),
        (httpx2.ConnectError("x"), "connection"),
        (httpx2.ReadTimeout("x"), "timeout"),
        (TimeoutError(), "timeout"),
        (httpx2.RemoteProtocolError("x"), "connection"),
        (None, "connection"),
    ],
)
def test_a_connection_that_fails_or_is_silent_is_tried_again(error: BaseException | None, code: str) -> None:
    fault = fault_of_transport(error)
    assert (fault.code, fault.retryable) == (code, True)


@pytest.mark.parametrize("name", ["req_123", "0193-abc"])
def test_a_request_name_is_kept(name: str) -> None:
    assert request_id_of({"x-request-id": name}) == name


@pytest.mark.parametrize("name", ["", "two words", "line\nend", "x" * 129, "é"])
def test_a_request_name_that_does_not_look_like_one_is_dropped(name: str) -> None:
    assert request_id_of({"x-request-id": name}) is None


@pytest.mark.parametrize("name", ["stream", "n", "messages", "stream_options"])
def test_parameters_may_not_change_what_the_reading_relies_on(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        ModelRequest("m", ({"role": "user", "content": "x"},), {name: 1})
