"""The requests that a client makes, and how each is tried until there is an answer; without any I/O."""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote
from uuid import UUID

from runwire.pace import Outage
from runwire.problems import TRY_AGAIN, Answer, Json, Unreachable, problem_of

LIST_PAGE: Final = 100
RunId = str | UUID | Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Call:
    """One request. All of them may be sent twice: what they change, they change once."""

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None


def submit(wish: Mapping[str, Any], title: str | None, idempotency_key: str | None) -> Call:
    """Start a run. The key makes that the same submission, sent again because the answer was lost, starts one run."""
    body = {**wish} | ({} if title is None else {"title": title})
    return _sending(f"{_V1}/runs", body, {"Idempotency-Key": idempotency_key or uuid.uuid4().hex})


def workflows() -> Call:
    """What can be run."""
    return Call("GET", f"{_V1}/workflows")


def workflow(name: str) -> Call:
    """One of them."""
    return Call("GET", f"{_V1}/workflows/{quote(name, safe='')}")


def runs(limit: int, status: str | None, workflow: str | None, before: str | None) -> Call:
    """A page of the newest runs."""
    asked = {"limit": str(min(limit, LIST_PAGE)), "status": status, "workflow": workflow, "before": before}
    return Call("GET", f"{_V1}/runs", {name: value for name, value in asked.items() if value is not None})


def state(run: RunId, at: int | str | None) -> Call:
    """A run's folded state."""
    return Call("GET", run_path(run), {} if at is None else {"at": str(at)})


def poll(run: RunId, after: int, limit: int | None, wait_s: int | None) -> Call:
    """One page of news."""
    asked = {"after": after, "limit": limit, "wait": wait_s}
    return Call("GET", run_path(run, "poll"), {name: str(value) for name, value in asked.items() if value is not None})


def cancel(run: RunId, reason: str) -> Call:
    """Stop a run."""
    return _sending(run_path(run, "cancel"), {"reason": reason})


def decide(
    run: RunId, escalation: int, seen: Mapping[str, Any], choice: str | None, answer: Any, note: str | None
) -> Call:
    """Answer what a run asks."""
    said: Json = {"escalation": escalation, "seen": seen}
    said |= {"choice": choice} if choice is not None else {"answer": answer}
    return _sending(run_path(run, "decisions"), said | ({} if note is None else {"note": note}))


def verification(run: RunId) -> Call:
    """What the server finds along a run's chain."""
    return Call("GET", audit_path(run, "verification"))


_V1: Final = "/v1"


def run_path(run: RunId, more: str = "") -> str:
    """A run by its id, or by anything that the server said about it."""
    return f"{_V1}/runs/{quote(run_id(run), safe='')}" + (f"/{more}" if more else "")


def audit_path(run: RunId, what: str) -> str:
    """The same at the officer's desk."""
    return f"{_V1}/audit/runs/{quote(run_id(run), safe='')}/{what}"


def run_id(run: RunId) -> str:
    """Which run is meant."""
    return str(run["id"] if isinstance(run, Mapping) else run)


def _sending(path: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Call:
    return Call("POST", path, {}, {"Content-Type": "application/json", **(headers or {})}, json.dumps(body).encode())


class Tries:
    """One call until it has its answer."""

    def __init__(self, outage: Outage, url: str, tries_max: int = 6) -> None:
        self._outage = outage
        self._url = url
        self._left = tries_max

    def answered(self, answer: Answer, now: float) -> Json | float:
        """The content, or how long to wait before the next try. Raises what the server said when it said no."""
        if 200 <= answer.status < 300 and (content := answer.content()) is not None:
            self._outage.over()
            return content
        problem = problem_of(answer)
        self._left -= 1
        if answer.status not in TRY_AGAIN or not self._left:
            raise problem
        return self._outage.wait_s(now, problem, answer.retry_after_s)

    def lost(self, why: str, now: float) -> float:
        """How long to wait before the next try."""
        return self._outage.wait_s(now, Unreachable(f"cannot reach {self._url}: {why}"))
