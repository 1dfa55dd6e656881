"""The edge: request ids, security headers, the size of bodies, one access line per request, unexpected errors."""

import asyncio
import re
import secrets
from contextlib import suppress
from time import perf_counter
from traceback import extract_tb
from typing import Any, Final

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import TooLarge, told
from api.figures import ApiFigures

REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
FRAMES_SHOWN: Final = 6
DISCARD_BYTES: Final = 8 * 2**20
DISCARD_S: Final = 5.0
CONTENT_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
SECURITY: Final = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", CONTENT_POLICY.encode()),
]
NO_STORE: Final = (b"cache-control", b"no-store")

logger = structlog.get_logger(__name__)
access = structlog.get_logger("api.access")


class Edge:
    """Wraps the whole application. Pure ASGI: a frame of a stream passes through without being looked at."""

    def __init__(self, app: ASGIApp, body_bytes_max: int, figures: ApiFigures) -> None:
        self._app = app
        self._figures = figures
        self._body_bytes_max = body_bytes_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = perf_counter()
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"").decode("latin-1")
        request_id = given if REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        state: dict[str, Any] = scope.setdefault("state", {})
        state["request_id"] = request_id
        added = [*SECURITY, (b"x-request-id", request_id.encode())]
        private = scope["path"].startswith("/v1/")
        status: int | None = None
        first_byte: float | None = None

        async def answer(message: Message) -> None:
            nonlocal status, first_byte
            if message["type"] == "http.response.start":
                status, first_byte = message["status"], perf_counter() - began
                own = message.get("headers", [])
                if private and not any(name == b"cache-control" for name, _ in own):
                    own = [*own, NO_STORE]
                message = {**message, "headers": [*own, *added]}
            await send(message)

        try:
            if int(headers.get(b"content-length", b"0")) > self._body_bytes_max:
                await _discard(receive)
                await told(request_id, TooLarge(self._body_bytes_max))(scope, receive, answer)
            else:
                await self._app(scope, self._counted(receive), answer)
        except Exception as fault:  # noqa: BLE001 - the last edge: nothing above us could tell the reader or the log
            log_unexpected(request_id, fault)
            if status is None:
                await told(request_id, fault)(scope, receive, answer)
        finally:
            self._figures.answered(scope, status, None if state.get("waited") else first_byte)
            access.info(
                "request",
                method=scope["method"],
                path=scope["path"],  # never the query
                status=status,
                ms=round((perf_counter() - began) * 1_000, 1),
                request_id=request_id,
                key_id=state.get("key_id"),
            )

    def _counted(self, receive: Receive) -> Receive:
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self._body_bytes_max:
                if message.get("more_body", False):
                    await _discard(receive)
                raise TooLarge(self._body_bytes_max)
            return message

        return counted


async def _discard(receive: Receive) -> None:
    """Take a good part of a body that is too large: many clients read no answer before they have sent it all."""
    taken, more = 0, True
    with suppress(TimeoutError):
        async with asyncio.timeout(DISCARD_S):
            while more and taken < DISCARD_BYTES:
                message = await receive()
                taken += len(message.get("body", b""))
                more = message.get("more_body", False)


def log_unexpected(request_id: str, fault: Exception) -> None:
    """Where it happened, and not its message: that may quote what was sent."""
    where = [
        f"{frame.filename}:{frame.lineno} {frame.name}" for frame in extract_tb(fault.__traceback__)[-FRAMES_SHOWN:]
    ]
    logger.error("unexpected", fault=type(fault).__name__, where=where, request_id=request_id)
