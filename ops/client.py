"""Runwire's API over HTTP: submits, follows, polls and cancels runs, and comes back after a lost connection."""

import json
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple, Self
from urllib.parse import quote, urlsplit

import httpx

from eventstore.domain.lifecycle import TERMINAL_TYPES
from ops.exits import FAILED, UNREACHABLE, Complaint
from ops.ports import is_local
from ops.printable import one_line
from ops.sse import SseError, events

WAITS_S: Final = (0.2, 0.5, 1.0, 2.0, 4.0)
LONGEST_RETRY_AFTER_S: Final = 30.0
SILENCE_S: Final = 35.0  # the server says something every 15 s
TRY_AGAIN: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
STREAM: Final = "text/event-stream"

Json = dict[str, Any]


class Stopped(Exception):
    """The caller asked the client to stop while it waited."""


class _NothingMore(Exception):
    """The cursor is at the terminal event."""


class _Away(Exception):
    """The server answered that it cannot serve this at the moment."""

    def __init__(self, wait_s: float, why: str) -> None:
        super().__init__(why)
        self.wait_s = wait_s
        self.why = why


class Refused(Complaint):
    """The server understood the request and said no."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message, UNREACHABLE if status in {401, 403} else FAILED)
        self.status = status


class Frame(NamedTuple):
    """One event of a run as the server tells it. `lagging` and `reset` have no place in the log: their seq is 0."""

    name: str
    data: Json

    @property
    def seq(self) -> int:
        """Its place in the log."""
        return int(self.data.get("seq", 0)) if self.name not in {"lagging", "reset"} else 0

    @property
    def terminal(self) -> bool:
        """Whether the run ends with it."""
        return self.name in TERMINAL_TYPES


class Client:
    """Talks to one server with one key. `notice` hears why it waits and how long."""

    def __init__(
        self,
        url: str,
        key: str,
        *,
        notice: Callable[[str], None] = lambda _: None,
        stop: threading.Event | None = None,
        patience_s: float = 60.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self.notice = notice
        self._stop = stop or threading.Event()
        self._patience_s = patience_s
        self._heard_at: float | None = None  # when the server last answered; None before the first time
        self._http = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {key}", "User-Agent": "runwire"},
            timeout=httpx.Timeout(10.0, read=SILENCE_S),
            trust_env=not is_local(urlsplit(self.url).hostname or ""),  # no proxy leads back to this machine
            transport=transport,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    def go_on(self, run_id: str, title: str | None = None) -> Json:
        """Start a run that takes up one which ended without a result."""
        body = {"continues": run_id} | ({"title": title} if title is not None else {})
        return self._ask("POST", "/v1/runs", json=body, headers={"Idempotency-Key": uuid.uuid4().hex})

    def submit(self, workflow: str, given: Any, title: str | None = None) -> Json:
        """Start a run. The same submission sent again, because the answer was lost, starts one run."""
        body = {"workflow": workflow, "input": given} | ({"title": title} if title is not None else {})
        return self._ask("POST", "/v1/runs", json=body, headers={"Idempotency-Key": uuid.uuid4().hex})

    def workflows(self) -> list[Json]:
        """What can be run."""
        return list(self._ask("GET", "/v1/workflows")["workflows"])

    def runs(self, limit: int, status: str | None, workflow: str | None) -> Iterator[Json]:
        """The newest runs that this key may see."""
        asked = {"status": status, "workflow": workflow}
        params: Json = {name: value for name, value in asked.items() if value is not None}
        while limit > 0:
            page = self._ask("GET", "/v1/runs", params=params | {"limit": min(limit, 100)})
            yield from page["runs"][:limit]
            limit -= len(page["runs"])
            if not page.get("next") or not page["runs"]:
                return
            params["before"] = page["next"]

    def state(self, run_id: str, at: str | None = None) -> Json:
        """The folded state of a run, now or at a place in its log."""
        return self._ask("GET", _run(run_id), params={"at": at} if at is not None else {})

    def cancel(self, run_id: str, reason: str) -> Json:
        """Ask a run to stop."""
        return self._ask("POST", f"{_run(run_id)}/cancel", json={"reason": reason})

    def decide(self, run_id: str, body: Json) -> Json:
        """Answer what a run asks. The same answer sent again changes nothing."""
        return self._ask("POST", f"{_run(run_id)}/decisions", json=body)

    def verify(self, run_id: str) -> Json:
        """What the server found walking over the run's chain."""
        return self._ask("GET", f"/v1/audit/runs/{quote(run_id, safe='')}/verification")

    def follow(self, run_id: str, after: int = 0) -> Iterator[Frame]:
        """The run's events from a cursor to its end, each once, over any number of connections."""
        return self._stream(f"{_run(run_id)}/events", {}, after)

    def replay(self, run_id: str, asked: Mapping[str, str]) -> Iterator[Frame]:
        """A recorded run again, at the pace that was asked for."""
        return self._stream(f"/v1/audit/runs/{quote(run_id, safe='')}/replay", asked, 0, ends_itself=True)

    def pages(self, run_id: str, after: int, wait_s: int, limit: int) -> Iterator[Json]:
        """The run's events from a cursor to its end, page by page, by short requests."""
        etag = ""
        while True:
            params = {"after": after, "limit": limit, "wait": wait_s}
            response = self._send(
                "GET", f"{_run(run_id)}/poll", params=params, headers={"If-None-Match": etag} if etag else {}
            )
            if response.status_code == 304:
                self._pause(_retry_after(response) or 1.0)
                continue
            page = _content(response)
            yield page
            if page["done"] and not page["more"]:
                return
            if not page["more"]:
                self._pause(_retry_after(response) or (0.0 if wait_s else 1.0))
            etag = response.headers.get("ETag", "") if page["next_after"] == after else ""
            after = page["next_after"]

    def _stream(self, path: str, asked: Mapping[str, str], after: int, *, ends_itself: bool = False) -> Iterator[Frame]:
        cursor, failures = after, 0
        while True:
            wait_s, why = 0.0, "the stream ended early"
            try:
                for frame in self._connection(path, asked, cursor):
                    if frame.seq and frame.seq <= cursor:
                        continue
                    if frame.seq:
                        cursor, failures = frame.seq, 0
                    yield frame
                    if frame.terminal:
                        return
                if ends_itself:
                    return
            except _NothingMore:
                return
            except _Away as away:
                wait_s, why = away.wait_s, away.why
            except (httpx.TransportError, SseError) as error:
                why = self._lost(error)
            self._wait(wait_s, failures, f"{why}; going on after event {cursor}")
            failures += 1

    def _connection(self, path: str, asked: Mapping[str, str], cursor: int) -> Iterator[Frame]:
        """The frames of one connection."""
        headers = {"Accept": STREAM} | ({"Last-Event-ID": str(cursor)} if cursor else {})
        with self._http.stream("GET", path, params=dict(asked), headers=headers) as response:
            if response.status_code == 204:
                raise _NothingMore
            if response.status_code in TRY_AGAIN:
                raise self._away(response)
            if response.status_code != 200:
                response.read()
                _content(response)
            if not response.headers.get("Content-Type", "").startswith(STREAM):
                raise SseError("something between here and the server answered with a page of its own")
            for event in events(self._hearing(response.iter_bytes())):
                try:
                    data = json.loads(event.data)
                except ValueError:
                    raise SseError("an event of this stream is no JSON") from None
                if isinstance(data, dict):
                    yield Frame(event.event, data)

    def _hearing(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self._heard_at = time.monotonic()  # a keep-alive is a word too
            yield piece

    def _away(self, response: httpx.Response) -> "_Away":
        why = f"the server answered {response.status_code}"
        if self._heard_at is None:
            self._heard_at = time.monotonic()  # it is there, and may come round
        self._check_patience(f"{self.url}: {why}")
        return _Away(_retry_after(response) or 0.0, why)

    def _ask(self, method: str, path: str, **more: Any) -> Json:
        return _content(self._send(method, path, **more))

    def _send(self, method: str, path: str, **more: Any) -> httpx.Response:
        """One request, sent again while the server is away for a moment; only for what may be sent twice."""
        failures = 0
        while True:
            try:
                response = self._http.request(method, path, **more)
                if response.status_code not in TRY_AGAIN or failures == len(WAITS_S):
                    self._heard_at = time.monotonic()
                    return response
                away = self._away(response)
                wait_s, why = away.wait_s, away.why
            except httpx.TransportError as error:
                wait_s, why = 0.0, self._lost(error)
            self._wait(wait_s, failures, why)
            failures += 1

    def _lost(self, error: Exception) -> str:
        what = one_line(str(error), 120) or type(error).__name__
        self._check_patience(f"cannot reach {self.url}: {what}")
        return f"connection lost: {what}"

    def _check_patience(self, message: str) -> None:
        if self._stop.is_set():
            raise Stopped
        if self._heard_at is None or time.monotonic() - self._heard_at > self._patience_s:
            raise Complaint(message, UNREACHABLE, "is it running? `runwire up` starts it; RUNWIRE_URL names another")

    def _wait(self, asked_s: float, failures: int, why: str) -> None:
        wait_s = asked_s or WAITS_S[min(failures, len(WAITS_S) - 1)] * random.uniform(0.7, 1.3)  # noqa: S311
        self.notice(f"{why}; next try in {wait_s:.1f} s")
        self._pause(wait_s)

    def _pause(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise Stopped


def _content(response: httpx.Response) -> Json:
    """The body of an answer; a problem becomes one line."""
    try:
        body = response.json()
    except ValueError:
        body = None
    if response.is_success and isinstance(body, dict):
        return body
    if not isinstance(body, dict):
        raise Refused(response.status_code, f"the server answered {response.status_code} {response.reason_phrase}")
    places = [f"{one.get('pointer', '')} {one.get('detail', '')}".strip() for one in body.get("errors") or []]
    said = body.get("detail") or body.get("title") or f"the server answered {response.status_code}"
    allowed = [f"allowed: {', '.join(map(str, body['allowed']))}"] if body.get("allowed") else []
    raise Refused(response.status_code, one_line("; ".join([str(said), *places, *allowed])))


def _retry_after(response: httpx.Response) -> float | None:
    try:
        return max(0.0, min(LONGEST_RETRY_AFTER_S, float(response.headers["Retry-After"])))
    except (KeyError, ValueError):
        return None


def _run(run_id: str) -> str:
    return f"/v1/runs/{quote(run_id, safe='')}"
