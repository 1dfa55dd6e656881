"""The client's calls: what is sent, how often, where to, and what comes of refusals; blocking and async alike."""

import ast
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

import runwire
from ops.client_events import rendered
from runwire import (
    AsyncClient,
    Client,
    Conflict,
    Event,
    Invalid,
    Pace,
    Problem,
    RedirectRefused,
    ResultEvent,
    RunCancelled,
    RunFailed,
    TokenEvent,
    TooMany,
    Unreachable,
)
from runwire.envelopes import NoEvent, event_of
from runwire.problems import Answer

RUN = "01a1f83b-3005-7750-a8c2-bb000225aa39"
PACE = Pace(waits_s=(0.0,), first_patience_s=60.0)
PROBLEM = {"Content-Type": "application/problem+json"}
URL = "https://runwire.example"


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

    def client(self, url: str = URL, **more: Any) -> Client:
        return Client(url, "rw_key", pace=PACE, transport=httpx.MockTransport(self), **more)

    def async_client(self, url: str = URL, **more: Any) -> AsyncClient:
        return AsyncClient(url, "rw_key", pace=PACE, transport=httpx.MockTransport(self), **more)


def accepted() -> httpx.Response:
    return httpx.Response(202, json={"id": RUN, "status": "queued"})


def stream(*told: Mapping[str, Any]) -> httpx.Response:
    body = "".join(f"id: {one['seq']}\nevent: {one['type']}\ndata: {json.dumps(one)}\n\n" for one in told)
    return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, content=body)


def told(seq: int, type_: str, **data: Any) -> dict[str, Any]:
    return {"seq": seq, "run_id": RUN, "type": type_, "at": "2026-11-20T07:12:53Z", "attempt": 1, "final": False} | {
        "data": data
    }


def state(*, done: bool, seq: int = 4, **more: Any) -> httpx.Response:
    return httpx.Response(200, json={"id": RUN, "seq": seq, "done": done, "seen": {"seq": seq, "chain": "c"}, **more})


async def test_a_submission_whose_answer_was_lost_is_sent_again_under_the_same_key() -> None:
    for blocking in (True, False):
        server = Server(httpx.Response(503), httpx.ReadError("reset"), accepted(), accepted())
        if blocking:
            with server.client() as client:
                assert client.submit("drill", {"pieces": 1}, title="Mine")["id"] == RUN
                client.continue_run({"id": "other"}, idempotency_key="mine")
        else:
            async with server.async_client() as waiting:
                assert (await waiting.submit("drill", {"pieces": 1}, title="Mine"))["id"] == RUN
                await waiting.continue_run({"id": "other"}, idempotency_key="mine")
        keys = [request.headers["idempotency-key"] for request in server.asked]
        assert (len(set(keys[:3])), keys[3]) == (1, "mine")
        assert [json.loads(request.content) for request in server.asked[2:]] == [
            {"workflow": "drill", "input": {"pieces": 1}, "title": "Mine"},
            {"continues": "other"},
        ]
        assert {request.headers["authorization"] for request in server.asked} == {"Bearer rw_key"}


def test_a_problem_is_an_exception_that_says_what_to_mend() -> None:
    body = {
        "title": "Invalid input",
        "detail": "The input does not fit.",
        "code": "invalid-input",
        "request_id": "r1",
        "errors": [{"pointer": "/input/text", "detail": "is missing"}],
    }
    with Server(httpx.Response(422, json=body, headers=PROBLEM)).client() as client, pytest.raises(Invalid) as invalid:
        client.submit("drill", {})
    problem = invalid.value
    assert (problem.status, problem.code, problem.pointer, problem.request_id) == (
        422,
        "invalid-input",
        "/input/text",
        "r1",
    )
    assert str(problem) == "The input does not fit.; /input/text is missing"


@pytest.mark.parametrize(("status", "kind"), [(409, Conflict), (418, Problem), (400, Invalid)])
def test_a_refusal_is_not_tried_again(status: int, kind: type[Problem]) -> None:
    server = Server(httpx.Response(status, text="no"))
    with server.client() as client, pytest.raises(kind) as refused:
        client.cancel(RUN, "enough")
    assert (len(server.asked), refused.value.status) == (1, status)


def test_an_answer_that_stays_bad_is_raised_after_a_few_tries() -> None:
    server = Server(*[httpx.Response(500, json={"code": "internal"}, headers=PROBLEM) for _ in range(6)])
    with server.client() as client, pytest.raises(Problem) as refused:
        client.workflows()
    assert (len(server.asked), refused.value.code) == (6, "internal")


def test_a_date_to_come_back_at_is_understood_and_a_far_one_is_no_wait() -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(hours=1))
    server = Server(httpx.Response(429, headers={"Retry-After": later}))
    with server.client() as client, pytest.raises(TooMany) as many:
        client.workflows()
    assert 3500 < (many.value.retry_after_s or 0) <= 3600
    assert Answer(503, {"retry-after": "soon"}).retry_after_s is None


def test_nobody_there_is_told_when_the_patience_is_over() -> None:
    server = Server(httpx.ConnectError("refused"))
    pace = Pace(first_patience_s=0.0)
    client = Client(URL, "rw_key", pace=pace, transport=httpx.MockTransport(server))
    with client, pytest.raises(Unreachable, match=r"cannot reach https://runwire\.example: refused"):
        client.state(RUN)


@pytest.mark.parametrize(
    "location",
    [
        "https://elsewhere.example/v1/workflows",
        "http://runwire.example/v1/workflows",
        "https://runwire.example:8443/v1/workflows",
        "//elsewhere.example/",
        "https://runwire.example.elsewhere.example/",
        "ftp://runwire.example/",
    ],
)
async def test_the_key_goes_to_no_other_place(location: str) -> None:
    server = Server(*[httpx.Response(307, headers={"Location": location}) for _ in range(3)])
    with server.client() as client, pytest.raises(RedirectRefused):
        client.workflows()
    async with server.async_client() as waiting:
        with pytest.raises(RedirectRefused):
            await waiting.workflows()
        with pytest.raises(RedirectRefused):
            await anext(waiting.follow(RUN))
    assert {request.url.host for request in server.asked} == {"runwire.example"}
    assert len(server.asked) == 3


def test_a_move_within_the_server_is_followed_and_one_to_tls_too() -> None:
    moved = httpx.Response(308, headers={"Location": "/api/v1/runs"})
    server = Server(moved, accepted())
    with server.client() as client:
        client.submit("drill", {"pieces": 1})
    assert [str(request.url) for request in server.asked] == [f"{URL}/v1/runs", f"{URL}/api/v1/runs"]
    assert server.asked[1].content == server.asked[0].content
    moved = httpx.Response(301, headers={"Location": f"{URL}/v1/workflows"})
    server = Server(moved, httpx.Response(200, json={"workflows": []}))
    with server.client("http://runwire.example", allow_plain_http=True) as client:
        assert client.workflows() == []


@pytest.mark.parametrize("status", [301, 302, 303])
def test_a_move_that_would_turn_a_submission_into_something_else_is_refused(status: int) -> None:
    server = Server(httpx.Response(status, headers={"Location": "/v2/runs"}))
    with server.client() as client, pytest.raises(RedirectRefused):
        client.submit("drill", {})


def test_going_round_in_circles_ends() -> None:
    server = Server(*[httpx.Response(307, headers={"Location": "/v1/workflows"}) for _ in range(9)])
    with server.client() as client, pytest.raises(RedirectRefused):
        client.workflows()
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("url", "key", "fault"),
    [
        ("http://runwire.example", "rw_key", "unencrypted to runwire.example"),
        ("http://127.0.0.1.example", "rw_key", "unencrypted"),
        ("http://10.0.0.1", "rw_key", "unencrypted"),
        ("", "rw_key", "must begin with"),
        ("ftp://runwire.example", "rw_key", "must begin with"),
        ("https://me:secret@runwire.example", "rw_key", "no user"),
        (URL, "", "no key"),
        (URL, "rw\nkey", "printable ASCII"),
    ],
)
def test_an_address_or_a_key_that_is_not_safe_is_refused_before_anything_is_sent(
    monkeypatch: pytest.MonkeyPatch, url: str, key: str, fault: str
) -> None:
    monkeypatch.delenv("RUNWIRE_URL", raising=False)
    monkeypatch.delenv("RUNWIRE_KEY", raising=False)
    for kind in (Client, AsyncClient):
        with pytest.raises(ValueError, match=fault):
            kind(url, key)


def test_this_machine_may_be_asked_in_the_clear_and_the_environment_names_the_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RUNWIRE_KEY", "rw_key")
    for url in ("http://127.0.0.1:8080", "http://localhost:8080/", "http://[::1]:8080"):
        monkeypatch.setenv("RUNWIRE_URL", url)
        Client().close()


async def test_a_result_is_waited_for_and_other_ends_are_exceptions() -> None:
    def server(end: Mapping[str, Any]) -> Server:
        return Server(state(done=False), stream(told(5, "token", text="a"), end))

    with server(told(6, "result", output={"ok": True})).client() as client:
        assert client.result(RUN) == {"ok": True}
    failed = told(6, "error", code="model_failed", message="No.", partial={"a": 1}, retryable=True)
    with server(failed).client() as client, pytest.raises(RunFailed, match="No") as error:
        client.result({"id": RUN})
    assert (error.value.code, error.value.partial, error.value.retryable) == ("model_failed", {"a": 1}, True)
    async with server(told(6, "cancelled", reason="enough", partial={"a": 1})).async_client() as waiting:
        with pytest.raises(RunCancelled, match="enough") as cancelled:
            await waiting.result(RUN)
    assert cancelled.value.partial == {"a": 1}


def test_the_result_of_a_run_that_has_ended_is_one_event() -> None:
    server = Server(state(done=True, seq=6), stream(told(6, "result", output={"ok": True})))
    with server.client() as client:
        assert client.result(RUN) == {"ok": True}
    assert server.asked[1].headers["last-event-id"] == "5"


def test_a_decision_names_the_open_question_and_what_was_seen() -> None:
    questions = [{"seq": 3, "decision": {}}, {"seq": 4}]
    server = Server(state(done=False, questions=questions), accepted(), state(done=False, questions=[]))
    with server.client() as client:
        client.decide(RUN, choice="approve", note="fine")
        with pytest.raises(ValueError, match="asks nothing"):
            client.decide(RUN, choice="approve")
    assert json.loads(server.asked[1].content) == {
        "escalation": 4,
        "seen": {"seq": 4, "chain": "c"},
        "choice": "approve",
        "note": "fine",
    }


async def test_lists_go_on_over_pages() -> None:
    def pages() -> Server:
        first = {"runs": [{"id": str(number)} for number in range(100)], "next": "n"}
        return Server(httpx.Response(200, json=first), httpx.Response(200, json={"runs": [{"id": "x"}], "next": None}))

    server = pages()
    with server.client() as client:
        assert len(list(client.runs(150, status="running"))) == 101
    assert [dict(request.url.params) for request in server.asked] == [
        {"limit": "100", "status": "running"},
        {"limit": "50", "status": "running", "before": "n"},
    ]
    async with pages().async_client() as waiting:
        assert len([one async for one in waiting.runs(150)]) == 101


def test_events_are_typed_by_their_names_and_what_is_new_passes_through() -> None:
    match event_of(told(3, "token", text="a", section="findings", sparkle=1)):
        case TokenEvent(seq=3, data={"text": text}) as token:
            assert (text, token.time.year, token.envelope["data"]["sparkle"]) == ("a", 2026, 1)
        case other:
            raise AssertionError(other)
    newer = event_of(told(9, "hologram", shape="cube"))
    assert (type(newer), newer.type, newer.data) == (Event, "hologram", {"shape": "cube"})
    end = event_of(told(10, "result", output={}) | {"final": True})
    assert isinstance(end, ResultEvent)
    assert (end.terminal, end.final) == (True, True)


@pytest.mark.parametrize("wrong", [None, [], {"type": "token"}, {"type": "token", "seq": 0}, {"seq": True}])
def test_what_is_no_event_is_not_taken_for_one(wrong: object) -> None:
    with pytest.raises(NoEvent):
        event_of(wrong)


def test_the_classes_of_events_are_those_of_the_log() -> None:
    for module, text in rendered().items():
        assert module.read_text(encoding="utf-8") == text, "write them again: python -m ops.client_events"
    assert all(hasattr(runwire, kind.__name__) for kind in runwire.catalogue.EVENTS.values())


def test_the_client_stands_on_httpx_alone() -> None:
    package = Path(runwire.__file__).parent
    named = {
        (node.module if isinstance(node, ast.ImportFrom) else alias.name) or ""
        for file in package.glob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    outside = {name.partition(".")[0] for name in named} - set(sys.stdlib_module_names)
    assert outside == {"httpx", "runwire"}
    code = "import sys, runwire; print(*sorted({'pydantic', 'eventstore', 'orjson', 'sqlalchemy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=package.parent, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("name", [name for name in vars(Client) if not name.startswith("_")])
def test_both_clients_can_do_the_same(name: str) -> None:
    twin: Callable[..., Any] | None = getattr(AsyncClient, {"close": "aclose"}.get(name, name), None)
    assert twin is not None
    own = getattr(Client, name)
    assert (
        own.__code__.co_varnames[: own.__code__.co_argcount + own.__code__.co_kwonlyargcount]
        == (twin.__code__.co_varnames[: twin.__code__.co_argcount + twin.__code__.co_kwonlyargcount])
    )
