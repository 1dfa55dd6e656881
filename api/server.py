"""uvicorn as we run it: we decide when it stops, and a reader who takes nothing can be cut."""

import asyncio
import socket
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

import structlog
import uvicorn
from fastapi import FastAPI

from api.connections import ApiConfig, Connection, room_for, watch
from api.settings import ApiSettings
from api.sockets import Socket

LOOK_TICKS: Final = 5  # uvicorn's ticks come ten times a second

logger = structlog.get_logger(__name__)


class ApiServer(uvicorn.Server):
    """One server. Signals are the caller's business; `stop` ends it cleanly and in bounded time."""

    def __init__(self, app: FastAPI, settings: ApiSettings) -> None:
        self._waits = app.state.waits
        self._unheard_ms = round(settings.unheard_timeout_s * 1_000)
        self._send_buffer_bytes = settings.send_buffer_bytes
        super().__init__(
            ApiConfig(
                app,
                settings,
                app.state.figures.refusals,
                room_for(settings.connections_max),
                http=Connection,
                ws=Socket,
                ws_max_size=settings.request_bytes_max,
                ws_per_message_deflate=False,  # drafts stand beside secrets, and it would cost CPU and memory
                ws_ping_interval=settings.keepalive_s,
                ws_ping_timeout=settings.unheard_timeout_s,
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=settings.idle_timeout_s,
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
            # neither it nor we would know how far behind it is; and one who is gone without a word it asks for a
            # quarter of an hour.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._send_buffer_bytes)
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, self._unheard_ms)
        await super().startup(sockets)
        logger.info("listening", addresses=[address_of(listener) for listener in sockets or []])

    async def on_tick(self, counter: int) -> bool:
        if counter % LOOK_TICKS == 0:
            watch(self.server_state.connections, asyncio.get_running_loop().time())
        return await super().on_tick(counter)

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
