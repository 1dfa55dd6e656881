"""uvicorn as we run it: we decide when it stops, and a reader who takes nothing can be cut."""

import secrets
import socket
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import structlog
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.errors import BadRequest, told
from api.fronts.sse import ABORT
from api.settings import ApiSettings

logger = structlog.get_logger(__name__)


class Connection(HttpToolsProtocol):
    """Lets the application cut its connection, and answers what is no HTTP with a problem too."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        extensions: dict[str, Any] = {ABORT: {"abort": self.transport.abort}}
        self.scope["extensions"] = extensions

    def send_400_response(self, msg: str) -> None:
        answer = told(secrets.token_hex(8), BadRequest("This is not a request in HTTP/1.1."))
        headers = b"".join(b"%s: %s\r\n" % header for header in [*answer.raw_headers, (b"connection", b"close")])
        self.transport.write(b"HTTP/1.1 400 Bad Request\r\n" + headers + b"\r\n" + bytes(answer.body))
        self.transport.close()


class ApiServer(uvicorn.Server):
    """One server. Signals are the caller's business; `stop` ends it cleanly and in bounded time."""

    def __init__(self, app: FastAPI, settings: ApiSettings) -> None:
        self._waits = app.state.waits
        self._send_buffer_bytes = settings.send_buffer_bytes
        super().__init__(
            uvicorn.Config(
                app,
                http=Connection,
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=75,  # longer than the proxies in front, so that they close first
                timeout_graceful_shutdown=settings.drain_s,
            )
        )

    def stop(self) -> None:
        """End all streams on an event boundary, answer what was asked, then stop. Called twice, stop at once."""
        self._waits.drain()
        self.force_exit = self.should_exit
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        for listener in sockets or []:
            # What it accepts has this from it. Left to itself the system holds megabytes for a reader who is slow, and
            # neither it nor we would know how far behind it is.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._send_buffer_bytes)
        await super().startup(sockets)
        logger.info("listening", addresses=[address_of(listener) for listener in sockets or []])

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there; OSError when that cannot be had."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = found[0]
    # Named as TCP, or asyncio does not switch Nagle's algorithm off: then every answer in two writes takes 40 ms.
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError:
        listener.close()
        raise
    return listener


def address_of(listener: socket.socket) -> str:
    """Where a listening socket is reached."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
