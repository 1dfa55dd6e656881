"""One HTTP connection, with the bounds that uvicorn does not have: on time, on the head's size, on what is no body.

No timer is set for a request: each connection notes since when it waits for the other side, and the server looks at
all of them twice a second. Sizes are counted as bytes come in, because the parser keeps what is unfinished: a header
that never ends would be held whole, and so would the chunk headers and trailers around a body.
"""

import asyncio
import resource
import secrets
from collections.abc import Iterable
from typing import Any, Final

import structlog
from starlette.types import Scope
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from api.errors import BadRequest, HeadTooLarge, Refusal, TooManyConnections, TooSlow, told
from api.figures import Limit, Refusals
from api.fronts.outlet import OUTLET, Outlet, outlet_into
from api.fronts.sse import ABORT
from api.settings import ApiSettings

WRAPPING: Final = 8  # bytes of chunk headers that one byte of a body may bring; a sane client sends far fewer
LOOKS: Final = 4  # at a connection that we have closed, until it is cut: what it does not take is not waited for
OTHER_FILES: Final = 200  # that a process has open beside its connections: listeners, the database, Redis, logs
CLOSE: Final = (b"connection", b"close")

logger = structlog.get_logger(__name__)


class ApiConfig(Config):
    """uvicorn's settings, and with them ours, for the connections that it makes."""

    def __init__(self, app: Any, settings: ApiSettings, refusals: Refusals, connections_max: int, **more: Any) -> None:
        self.settings = settings
        self.refusals = refusals
        self.connections_max = connections_max
        super().__init__(app, **more)


def watch(connections: Iterable[Any], now: float) -> None:
    """Look at all connections of a server."""
    for connection in list(connections):
        connection.look(now)


def room_for(connections_max: int) -> int:
    """How many connections the system lets this process have; its limit on open files is raised as far as needed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections_max + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        if soft < wanted:
            hint = f"raise the limit on open files (ulimit -n) to {wanted}, or set RUNWIRE_CONNECTIONS_MAX"
            logger.warning("fewer connections than connections_max", connections=soft - OTHER_FILES, hint=hint)
            return max(1, soft - OTHER_FILES)
    return connections_max


def refusing(error: Refusal) -> bytes:
    """A whole answer that tells a problem, for a connection that is closed after it."""
    answer = told(secrets.token_hex(8), error)
    headers = b"".join(b"%s: %s\r\n" % header for header in [*answer.raw_headers, CLOSE])
    return STATUS_LINE[answer.status_code] + headers + b"\r\n" + bytes(answer.body)


class Lingering:
    """A connection that was closed and does not end: whoever takes nothing is not told goodbye."""

    transport: asyncio.Transport
    _closed_looks = 0

    def ended(self, refused: bool = False) -> bool:
        """Whether it is closed on our side; cut after a few looks."""
        if not (refused or self.transport.is_closing()):
            return False
        self._closed_looks += 1
        if self._closed_looks > LOOKS:
            self.transport.abort()
        return True


class Connection(Lingering, HttpToolsProtocol):
    """Lets the application cut its connection, and answers what it does not let through with a problem too."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        assert isinstance(config, ApiConfig)
        self._settings = config.settings
        self._bounds = config
        self._since: float | None = None  # since when the other side owes us a first byte, a head or a body
        self._in_head = True
        self._started = False  # a byte of the request has come
        self._bytes = 0  # of the head; then of all that came behind it
        self._body_bytes = 0
        self._fields = 0
        self._refusal: Refusal | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._since = self.loop.time()
        if len(self.connections) > self._bounds.connections_max:
            self._refuse(TooManyConnections(headers={"Retry-After": "1"}), "connections")

    def data_received(self, data: bytes) -> None:
        if self._refusal is not None:
            return
        if not self._started:
            self._started, self._since = True, self.loop.time()
        self._bytes += len(data)
        super().data_received(data)
        most = self._settings.head_bytes_max
        # Not while it is a WebSocket already, or refused: then nothing here counts any more.
        if self._bytes > (most if self._in_head else most + WRAPPING * self._body_bytes) and self.parser is not None:
            self._refuse(HeadTooLarge(f"A request's head may hold {most} bytes."), "head")

    def handle_websocket_upgrade(self) -> None:
        self._bytes = 0
        super().handle_websocket_upgrade()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        extensions: dict[str, Any] = {ABORT: {"abort": self.transport.abort}, OUTLET: self._outlet}
        self.scope["extensions"] = extensions
        self._fields = 0
        if not self._started:
            self._started, self._since = True, self.loop.time()

    def _outlet(self, scope: Scope) -> Outlet | None:
        return outlet_into(self.cycle, scope)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields += 1
        if self._fields > self._settings.head_fields_max:
            self._refusal = HeadTooLarge(f"A request may have {self._settings.head_fields_max} headers.")
            raise self._refusal
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        most = self._settings.head_bytes_max
        if self._bytes > most and self._head_bytes() > most:  # all of it in one go, perhaps with the body behind it
            self._refusal = HeadTooLarge(f"A request's head may hold {most} bytes.")
            raise self._refusal
        self._in_head, self._bytes, self._body_bytes = False, 0, 0
        super().on_headers_complete()

    def _head_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_head, self._started, self._bytes, self._since = True, False, 0, None
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        refusal = self._refusal
        self._refuse(refusal or BadRequest("This is not a request in HTTP/1.1."), "head" if refusal else None)

    def look(self, now: float) -> None:
        """Whether it has kept us waiting for too long: for a first byte, a head, a body."""
        if self.ended(self._refusal is not None) or self._since is None:
            return
        if self._in_head and self.cycle is not None and not self.cycle.response_complete:
            self._since = now  # it may begin its next request while we answer this one, and take its time
            return
        limit_s = self._settings.head_timeout_s if self._in_head else self._settings.body_timeout_s
        if now - self._since <= limit_s:
            return
        if self._started or not self._in_head:
            part = "head" if self._in_head else "body"
            self._refuse(TooSlow(f"A request's {part} must come within {limit_s:g} s."), "time")
        else:
            self.transport.close()  # it said nothing, and an answer would be taken for that to its first request

    def _refuse(self, error: Refusal, limit: Limit | None) -> None:
        """Tell it and end. With an answer under way nothing is told: it would stand in the middle of that one."""
        self._refusal, self._since = error, None
        if limit is not None:
            self._bounds.refusals.refused(limit)
        cycle = self.cycle
        answering = cycle is not None and cycle.response_started and not cycle.response_complete
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
        if answering or self.transport.is_closing():
            self.transport.close()
            return
        self.transport.write(refusing(error))
        # What it still sends is taken and thrown away for a moment: a close would reset the connection at once, and
        # with it the answer, before the other side has read it.
        self.transport.write_eof()

    def shutdown(self) -> None:
        if self._refusal is not None:
            self.transport.abort()
        else:
            super().shutdown()
