"""The command line's client: it comes back by itself, and says in one line why it cannot."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from ops.client import Client, Refused
from ops.exits import FAILED, UNREACHABLE, USAGE, Complaint
from runwire import Pace

RUN = "01a1f83b-3005-7750-a8c2-bb000225aa39"
LAST = 6
Handler = Callable[[httpx.Request], httpx.Response]


def frame(seq: int) -> dict[str, Any]:
    return {"seq": seq, "type": "result" if seq == LAST else "token", "data": {}, "attempt": 1, "final": seq == LAST}


def sse(seq: int) -> bytes:
    told = frame(seq)
    return f"id: {seq}\nevent: {told['type']}\ndata: {json.dumps(told)}\n\n".encode()


def page(*numbers: int, after: int, more: bool = False, done: bool = False) -> httpx.Response:
    body = {"events": [frame(number) for number in numbers], "next_after": after, "more": more, "done": done}
    return httpx.Response(200, json=body, headers={"ETag": f'"{after}"', "Retry-After": "0"})


class Broken(httpx.SyncByteStream):
    """A body that breaks off."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        yield from self._pieces
        raise httpx.ReadError("the connection was reset")


def stream(*seqs: int, broken: bool = False) -> httpx.Response:
    pieces = [b":\n", *map(sse, seqs)]
    headers = {"Content-Type": "text/event-stream; charset=utf-8"}
    body: Any = Broken(*pieces, b"id: 99\neve") if broken else b"".join(pieces)
    return httpx.Response(200, headers=headers, **({"stream": body} if broken else {"content": body}))


class Server:
    """Answers one request after the other from a script, and remembers what it was asked."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def cursors(self) -> list[str | None]:
        return [request.headers.get("last-event-id") for request in self.asked]


def connected(server: Handler, notices: list[str] | None = None, patience_s: float = 60.0) -> Client:
    pace = Pace(waits_s=(0.0,), patience_s=patience_s, first_patience_s=0.0)
    notice = (notices if notices is not None else []).append
    return Client("http://127.0.0.1:1", "rw_key", notice=notice, pace=pace, transport=httpx.MockTransport(server))


def seqs(client: Client, after: int = 0) -> list[int]:
    return [one.seq for one in client.follow(RUN, after)]


def test_a_stream_that_breaks_ends_early_or_is_refused_is_gone_on_with_from_the_cursor() -> None:
    server = Server(
        stream(1, 2, broken=True),
        httpx.ConnectError("refused"),
        httpx.Response(503, headers={"Retry-After": "0"}),
        httpx.Response(429),
        stream(3),
        httpx.Response(502),
        stream(3, 4, 5, 6),
    )
    with connected(server) as client:
        assert seqs(client) == [1, 2, 3, 4, 5, 6]
    assert server.cursors == [None, "2", "2", "2", "2", "3", "3"]
    assert {request.headers["authorization"] for request in server.asked} == {"Bearer rw_key"}


def test_nothing_is_read_after_the_terminal_event() -> None:
    with connected(Server(stream(5, 6, 7))) as client:
        assert seqs(client, 4) == [5, 6]


def test_a_cursor_at_the_end_gives_nothing() -> None:
    with connected(Server(httpx.Response(204), page(after=LAST, done=True))) as client:
        assert seqs(client, LAST) == []


def test_an_ephemeral_frame_does_not_move_the_cursor() -> None:
    lagging = b'event: lagging\ndata: {"from":2,"to":4,"seq":4}\n\n'
    headers = {"Content-Type": "text/event-stream"}
    server = Server(httpx.Response(200, headers=headers, content=sse(1) + lagging), stream(5, 6))
    with connected(server) as client:
        assert [(one.name, one.seq) for one in client.follow(RUN)] == [
            ("token", 1),
            ("lagging", 0),
            ("token", 5),
            ("result", 6),
        ]
    assert server.cursors == [None, "1"]


@pytest.mark.parametrize(("status", "code"), [(401, UNREACHABLE), (403, UNREACHABLE), (404, FAILED), (400, FAILED)])
def test_a_refusal_is_one_line_and_not_tried_again(status: int, code: int) -> None:
    problem = {
        "title": "No",
        "detail": "Not\nthis one.",
        "errors": [{"pointer": "/input/text", "detail": "is missing"}],
    }
    answer = httpx.Response(status, json=problem, headers={"Content-Type": "application/problem+json"})
    with connected(Server(answer)) as client, pytest.raises(Refused) as refused:
        seqs(client)
    assert refused.value.code == code
    assert str(refused.value) == "Not this one.; /input/text is missing"


def test_a_server_that_is_not_there_is_told_at_once() -> None:
    with connected(Server(httpx.ConnectError("refused"))) as client, pytest.raises(Complaint) as complaint:
        seqs(client)
    assert complaint.value.code == UNREACHABLE


def test_a_server_that_stays_away_is_given_up() -> None:
    server = Server(stream(1), httpx.ConnectError("refused"))
    with connected(server, patience_s=0.0) as client, pytest.raises(Complaint) as complaint:
        seqs(client)
    assert complaint.value.code == UNREACHABLE


def test_a_submission_whose_answer_was_lost_is_sent_again_under_the_same_key() -> None:
    server = Server(httpx.Response(503), httpx.ReadError("reset"), httpx.Response(202, json={"id": RUN}))
    with connected(server) as client:
        assert client.submit("drill", {"pieces": 1}, "Mine") == {"id": RUN}
    assert len({request.headers["idempotency-key"] for request in server.asked}) == 1
    assert json.loads(server.asked[-1].content) == {"workflow": "drill", "input": {"pieces": 1}, "title": "Mine"}


def test_polling_gives_every_page_once_and_asks_for_changes_only() -> None:
    server = Server(
        page(1, 2, after=2, more=True),
        page(3, after=3),
        page(after=3),
        httpx.Response(304, headers={"Retry-After": "0"}),
        page(4, 5, 6, after=6, done=True),
    )
    with connected(server) as client:
        assert [one.seq for one in client.polled(RUN, 0, 5, 100)] == [1, 2, 3, 4, 5, 6]
    assert [request.url.params["after"] for request in server.asked] == ["0", "2", "3", "3", "3"]
    assert [request.headers.get("if-none-match") for request in server.asked] == [None, None, None, '"3"', '"3"']
    assert {(request.url.params["wait"], request.url.params["limit"]) for request in server.asked} == {("5", "100")}


def test_a_network_that_lets_no_stream_through_is_read_by_short_requests_and_that_is_said() -> None:
    server = Server(
        httpx.Response(200, html="<p>a proxy's own page</p>"), page(1, 2, after=2), page(3, 4, 5, 6, after=6, done=True)
    )
    notices: list[str] = []
    with connected(server, notices) as client:
        assert seqs(client) == [1, 2, 3, 4, 5, 6]
    assert [request.url.path.rpartition("/")[2] for request in server.asked] == ["events", "poll", "poll"]
    assert notices == ["the stream is answered with 200 text/html; asking by short requests"]


def test_a_key_or_an_address_that_cannot_be_used_is_wrong_usage() -> None:
    with pytest.raises(Complaint) as complaint:
        Client("ftp://example.org", "rw_key")
    assert complaint.value.code == USAGE
