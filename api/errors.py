"""Every refusal and failure as an RFC 9457 problem: one table from error class to status, code and title.

A problem says what to do about it and never repeats what was sent: no value, no key, no text of a document.
"""

import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import orjson
import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from sqlalchemy.exc import IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import Match

from eventstore import partitions
from eventstore.database import is_shut_gate
from eventstore.domain import errors as store

logger = structlog.get_logger(__name__)

# How a database that cannot be asked shows itself.
DATABASE_AWAY: Final = (OperationalError, InterfaceError, PoolTimeout, OSError, TimeoutError)
METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


@dataclass(frozen=True, slots=True)
class Fault:
    """One place in the request and what is wrong there."""

    pointer: str
    detail: str


class Refusal(Exception):
    """The API refused a request. The docstring of each kind is its default message."""

    def __init__(
        self,
        detail: str | None = None,
        *,
        faults: Sequence[Fault] = (),
        allowed: Sequence[str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.faults = faults
        self.allowed = allowed
        self.headers = dict(headers or {})
        super().__init__(detail or (type(self).__doc__ or "").strip())


class BadRequest(Refusal):
    """The request cannot be read."""


class BadCursor(Refusal):
    """The cursor is no place in this run's log."""


class NotAuthenticated(Refusal):
    """This API key is not known."""

    def __init__(self, detail: str | None = None) -> None:
        super().__init__(detail, headers={"WWW-Authenticate": 'Bearer realm="runwire"'})


class NotAllowed(Refusal):
    """Your role may not do this."""


class NotFound(Refusal):
    """There is nothing here."""


class NotAcceptable(Refusal):
    """None of the formats in the Accept header is served here."""


class TooLarge(Refusal):
    """The request body is too large."""

    def __init__(self, bytes_max: int) -> None:
        super().__init__(f"A request body may hold {bytes_max} bytes.", headers={"Connection": "close"})


class UnsupportedMedia(Refusal):
    """The body must be JSON: send `Content-Type: application/json`."""


class UnknownWorkflow(Refusal):
    """There is no workflow of this name that you may start."""


class InvalidInput(Refusal):
    """The request does not fit its schema."""


class NothingToContinue(Refusal):
    """There is no run here that you could continue."""


class CannotContinue(Refusal):
    """This run cannot be continued."""


class TooManyQueued(Refusal):
    """As many runs as may wait to begin."""


class TooManyRequests(Refusal):
    """More requests than one caller may make."""

    def __init__(self, rate: float, window_s: float, wait_s: float) -> None:
        self.wait_s = wait_s
        quota, retry = math.floor(rate * window_s), _seconds(wait_s)
        super().__init__(
            f"{rate:g} requests a second are allowed, and {quota} at once after a rest. Try again in {retry} s.",
            headers={
                "Retry-After": retry,
                "RateLimit": f'"requests";r=0;t={retry}',
                "RateLimit-Policy": f'"requests";q={quota};w={_seconds(window_s)}',
            },
        )


class TooManyStreams(Refusal):
    """As many streams and requests that wait as one caller may have open."""

    def __init__(self, streams_max: int, wait_s: float) -> None:
        retry = _seconds(wait_s)
        super().__init__(
            f"{streams_max} streams and requests that wait may be open at once. Close one, or poll without `wait`.",
            headers={
                "Retry-After": retry,
                "RateLimit": f'"streams";r=0;t={retry}',
                "RateLimit-Policy": f'"streams";q={streams_max};qu="concurrent-requests"',
            },
        )


class NeedsUpgrade(Refusal):
    """This address speaks WebSocket only: send the headers of a WebSocket handshake, or read /events or /poll."""

    def __init__(self) -> None:
        super().__init__(headers={"Upgrade": "websocket", "Connection": "Upgrade"})


class ForeignOrigin(Refusal):
    """Pages of this origin may not open a WebSocket here (RUNWIRE_WEBSOCKET_ORIGINS)."""


class HeadTooLarge(Refusal):
    """The request's line and headers are too large."""


class TooSlow(Refusal):
    """The request did not come in time."""


class TooManyConnections(Refusal):
    """As many connections as this process may have. Try again."""


class MovedOn(Refusal):
    """The run has moved on since you looked at it."""


@dataclass(frozen=True, slots=True)
class Kind:
    """How one class of errors is told."""

    status: int
    code: str
    title: str


KINDS: Final[Mapping[type[Exception], Kind]] = {
    Refusal: Kind(400, "bad-request", "Bad request"),
    BadRequest: Kind(400, "bad-request", "Bad request"),
    BadCursor: Kind(400, "bad-cursor", "Bad cursor"),
    NotAuthenticated: Kind(401, "not-authenticated", "Not authenticated"),
    NotAllowed: Kind(403, "not-allowed", "Not allowed"),
    NotFound: Kind(404, "not-found", "Not found"),
    NotAcceptable: Kind(406, "not-acceptable", "Not acceptable"),
    TooLarge: Kind(413, "too-large", "Request too large"),
    UnsupportedMedia: Kind(415, "unsupported-media", "Unsupported media type"),
    UnknownWorkflow: Kind(422, "unknown-workflow", "Unknown workflow"),
    NothingToContinue: Kind(404, "run-not-found", "Run not found"),
    CannotContinue: Kind(409, "not-continuable", "Run cannot be continued"),
    MovedOn: Kind(409, "moved-on", "Run has moved on"),
    TooManyQueued: Kind(429, "queue-full", "Too many runs in line"),
    TooManyRequests: Kind(429, "too-many-requests", "Too many requests"),
    TooManyStreams: Kind(429, "too-many-streams", "Too many open streams"),
    NeedsUpgrade: Kind(426, "upgrade-required", "Upgrade required"),
    ForeignOrigin: Kind(403, "foreign-origin", "Foreign origin"),
    HeadTooLarge: Kind(431, "head-too-large", "Request head too large"),
    TooSlow: Kind(408, "too-slow", "Request too slow"),
    TooManyConnections: Kind(503, "too-many-connections", "Too many connections"),
    InvalidInput: Kind(422, "invalid-input", "Invalid input"),
    store.EventStoreError: Kind(500, "internal", "Internal error"),
    store.UnknownRun: Kind(404, "run-not-found", "Run not found"),
    store.RunClosed: Kind(409, "run-closed", "Run has ended"),
    store.Fenced: Kind(409, "conflict", "Conflict"),
    store.AppendRefused: Kind(409, "conflict", "Conflict"),
    store.NotStorable: Kind(422, "not-storable", "Value cannot be stored"),
    store.PolicyError: Kind(500, "internal", "Internal error"),
    store.IdempotencyMismatch: Kind(422, "idempotency-mismatch", "Idempotency key used before"),
    store.LogUnavailable: Kind(503, "log-unavailable", "Log unavailable"),
    store.LogShut: Kind(503, "log-shut", "Log shut"),
}
SHUT_RETRY_S: Final = 15  # a person has to come first
EXPECTED: Final = (Refusal, store.EventStoreError)
AWAY: Final = (OperationalError, InterfaceError, PoolTimeout)
INTERNAL: Final = KINDS[store.EventStoreError]
UNAVAILABLE: Final = KINDS[store.LogUnavailable]


class Problem(BaseModel):
    """The shape of every error answer (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    request_id: str
    errors: list[Fault] | None = None
    allowed: list[str] | None = None


def problem(
    request_id: str,
    kind: Kind,
    detail: str | None = None,
    *,
    faults: Sequence[Fault] = (),
    allowed: Sequence[str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The answer that tells one problem."""
    body: dict[str, Any] = {
        "type": f"urn:runwire:problem:{kind.code}",
        "title": kind.title,
        "status": kind.status,
        "detail": detail or kind.title + ".",
        "instance": f"urn:runwire:request:{request_id}",
        "code": kind.code,
        "request_id": request_id,
    }
    if faults:
        body["errors"] = faults
    if allowed is not None:
        body["allowed"] = list(allowed)
    return Response(orjson.dumps(body), kind.status, dict(headers or {}), "application/problem+json")


def told(request_id: str, error: Exception) -> Response:
    """Any error as its problem. What is not in the table is ours, and tells nothing but that."""
    kind = KINDS.get(type(error), INTERNAL)
    if kind.status == 500:
        return problem(request_id, kind, "Something went wrong on our side. Name the request id when you ask about it.")
    wait_s = SHUT_RETRY_S if isinstance(error, store.LogShut) else 1
    retry = {"Retry-After": str(wait_s)} if kind.status == 503 else {}
    if isinstance(error, Refusal):
        faults, allowed, headers = error.faults, error.allowed, {**error.headers, **retry}
        return problem(request_id, kind, str(error), faults=faults, allowed=allowed, headers=headers)
    faults = [Fault(error.pointer, str(error))] if isinstance(error, store.NotStorable) else []
    return problem(request_id, kind, str(error), faults=faults, headers=retry)


def install(app: FastAPI) -> None:
    """Make every refusal a problem. What is not expected here is told by the edge (api/middleware.py)."""
    for kind in EXPECTED:
        app.add_exception_handler(kind, _any)
    for away in AWAY:
        app.add_exception_handler(away, _log_away)
    app.add_exception_handler(IntegrityError, _no_room)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ClientDisconnect, _gone)


async def answer_to(connection: HTTPConnection, error: Exception) -> Response | None:
    """The answer that a route would give to this error; None for what only the edge can tell."""
    handlers = connection.app.exception_handlers
    for kind in type(error).__mro__:
        if kind in handlers:
            found: Response = await handlers[kind](connection, error)
            return found
    return None


async def refused(request: Request, error: Exception) -> Response:
    """The answer to one of EXPECTED or AWAY, for what does not go through the framework."""
    return await (_log_away if isinstance(error, AWAY) else _any)(request, error)


def request_id_of(request: HTTPConnection) -> str:
    """The id that the middleware gave to this request; a WebSocket that has no route passes without one."""
    return str(getattr(request.state, "request_id", None) or secrets.token_hex(8))


def _seconds(value: float) -> str:
    """A time as headers hold it: whole seconds, never too few."""
    return str(max(1, math.ceil(value)))


async def _any(request: Request, error: Exception) -> Response:
    return told(request_id_of(request), error)


async def _no_room(request: Request, error: Exception) -> Response:
    """The log has no partition for this run: nothing was stored, and only an operator can make room."""
    if not (isinstance(error, IntegrityError) and partitions.is_missing(error)):
        raise error
    request_id = request_id_of(request)
    logger.error("refused: the log has no partition for this run", request_id=request_id, hint=partitions.HINT)
    return told(request_id, store.LogUnavailable("The log has no room for this at the moment; nothing was stored."))


async def _log_away(request: Request, error: Exception) -> Response:
    if is_shut_gate(error):  # the database is there
        return told(request_id_of(request), store.LogShut())
    if not isinstance(error, PoolTimeout):  # that says nothing of the database, only that all our connections are taken
        request.app.state.figures.database.met(error)
    return told(request_id_of(request), store.LogUnavailable())


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = [Fault("/" + "/".join(map(str, one["loc"])), one["msg"]) for one in error.errors()]
    return told(request_id_of(request), BadRequest("A parameter cannot be read.", faults=faults))


async def _gone(request: Request, error: Exception) -> Response:
    """The reader left before its body had come whole: for the access line only, nobody reads this."""
    return told(request_id_of(request), BadRequest("The request's body did not come whole."))


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    headers = dict(error.headers or {})
    detail = None
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(_methods(request))
    elif status is HTTPStatus.NOT_FOUND:
        detail = "There is nothing here."
    kind = Kind(error.status_code, status.phrase.lower().replace(" ", "-"), status.phrase)
    return problem(request_id_of(request), kind, detail, headers=headers)


def _methods(request: Request) -> list[str]:
    """What this path would answer to; a path may be served by several routes."""
    routes = request.app.router.routes
    scopes = {method: {**request.scope, "method": method} for method in METHODS}
    return [name for name, scope in scopes.items() if any(r.matches(scope)[0] is Match.FULL for r in routes)]
