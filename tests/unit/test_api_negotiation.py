"""What headers ask for is understood as their standards say, and nonsense is refused."""

import pytest
from starlette.requests import Request

from api.errors import BadCursor, BadRequest, NotAcceptable
from api.negotiation import (
    JSON,
    NDJSON,
    SSE,
    asked_wait,
    has_version,
    idempotency_key,
    place,
    preferred,
    trace_id,
)


def request(**headers: str) -> Request:
    named = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    return Request({"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": named})


@pytest.mark.parametrize(
    ("accept", "offers", "best"),
    [
        (None, [SSE, JSON], SSE),
        ("*/*", [JSON, SSE], JSON),
        ("text/event-stream", [JSON, SSE], SSE),
        ("application/json, text/event-stream", [JSON, SSE], JSON),
        ("application/json;q=0.5, text/event-stream", [JSON, SSE], SSE),
        ("text/*;q=0.1, application/x-ndjson", [SSE, NDJSON], NDJSON),
        ("application/json;q=0, */*", [JSON, SSE], SSE),
        ("APPLICATION/JSON", [SSE, JSON], JSON),
        ("application/json;charset=utf-8;q=0.9", [SSE, JSON], JSON),
    ],
)
def test_the_best_format_for_the_reader_is_chosen(accept: str | None, offers: list[str], best: str) -> None:
    assert preferred(request(**({"accept": accept} if accept else {})), offers) == best


@pytest.mark.parametrize("accept", ["text/html", "application/json;q=0", "image/*", "application/json;q=x"])
def test_a_format_that_is_not_served_is_refused(accept: str) -> None:
    with pytest.raises(NotAcceptable):
        preferred(request(accept=accept), [JSON])


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        ("wait=10", 10),
        ("respond-async, wait=10", 10),
        ('wait="7"', 7),
        ("WAIT = 3", 3),
        ("wait=999", 25),
        ("waiting=3", None),
        ("wait=-3", None),
        ("wait=soon", None),
    ],
)
def test_a_preference_to_wait_is_read_and_capped(prefer: str, seconds: int | None) -> None:
    assert asked_wait(request(prefer=prefer), 25.0) == seconds


def test_the_parameter_wins_over_the_preference() -> None:
    assert asked_wait(request(prefer="wait=10"), 25.0, 3) == 3
    assert asked_wait(request(), 25.0) is None


@pytest.mark.parametrize("known", ['"a"', 'W/"a"', '"b", "a"', "*"])
def test_a_version_that_the_reader_has_is_recognised(known: str) -> None:
    assert has_version(request(if_none_match=known), '"a"')


@pytest.mark.parametrize("known", ["", '"b"', "a"])
def test_another_version_is_not(known: str) -> None:
    assert not has_version(request(if_none_match=known), '"a"')


@pytest.mark.parametrize(
    ("headers", "after", "expected"),
    [({}, None, 0), ({}, 3, 3), ({"last_event_id": "5"}, 3, 5), ({"last_event_id": ""}, 3, 3), ({}, 9, 9)],
)
def test_the_last_event_id_wins_over_the_parameter(headers: dict[str, str], after: int | None, expected: int) -> None:
    assert place(request(**headers), after, 9) == expected


@pytest.mark.parametrize("header", ["-1", "x", "1.0", "+1", "1_0", "10", "99999999999", "٣".encode().decode("latin-1")])
def test_a_cursor_that_is_no_place_in_the_log_is_refused(header: str) -> None:
    with pytest.raises(BadCursor):
        place(request(last_event_id=header), None, 9)


def test_a_trace_goes_on_if_it_can_be_read() -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    assert trace_id(request(traceparent=f"00-{trace}-b7ad6b7169203331-01")) == trace
    assert trace_id(request(traceparent=f"00-{'0' * 32}-b7ad6b7169203331-01")) is None
    assert trace_id(request(traceparent="nonsense")) is None


@pytest.mark.parametrize("key", ["", "x" * 201, "caf\xe9", "a\tb"])
def test_an_idempotency_key_that_cannot_be_kept_is_refused(key: str) -> None:
    with pytest.raises(BadRequest):
        idempotency_key(request(idempotency_key=key))
