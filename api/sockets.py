"""One WebSocket connection: uvicorn's, on the sans-I/O core of `websockets`, with what the front needs of it.

The front writes envelopes as they are stored: bytes go into frames here, several to one write, with no detour over
text. What uvicorn leaves open is closed: pongs that nobody takes do not pile up, a side that is not heard of any more
is cut instead of closed politely, and a handshake that cannot be read is answered.
"""

import asyncio
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, Final

from uvicorn.config import Config
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.frames import CloseCode
from websockets.http11 import Request
from websockets.protocol import State

from api.connections import ApiConfig, Lingering, refusing
from api.errors import BadRequest
from api.fronts.sse import ABORT

SOCKET: Final = "runwire.socket"  # the ASGI extension with this connection
CLOSE_S: Final = 2.0  # until a close is answered


class Closed(Exception):
    """Nothing can be written to it any more."""


class Socket(Lingering, WebSocketsSansIOProtocol):
    """As the front sees it: `write`, `put` and `hold`."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        assert isinstance(config, ApiConfig)
        self._since = self.loop.time()
        self._held = False
        self.close_timeout = CLOSE_S

    @property
    def ready(self) -> bool:
        """Whether it takes more at once."""
        return self.writable.is_set() and self._is_open()

    def put(self, messages: Iterable[bytes]) -> None:
        """Each of these as one text message, now: for whoever has looked that it is ready."""
        self.transport.write(b"".join(_framed(messages)))

    async def write(self, messages: Iterable[bytes]) -> None:
        """Each of these as one text message, when it takes more."""
        await self.writable.wait()
        if not self._is_open():
            raise Closed
        self.put(messages)

    def _is_open(self) -> bool:
        return not (self.disconnected or self.close_sent or self.transport.is_closing()) and (
            self.conn.state is State.OPEN
        )

    def hold(self) -> None:
        """The front ends it when the process stops, on an event boundary; until it says so, the server does."""
        self._held = True

    def look(self, now: float) -> None:
        """What was closed and does not end is cut. All else is the front's business, and that of the pings."""
        self.ended()

    def shutdown(self) -> None:
        if not self._held:
            super().shutdown()

    def data_received(self, data: bytes) -> None:
        if not self.handshake_initiated:
            self._shake_hands(data)
        elif not self.transport.is_closing():
            super().data_received(data)

    def _shake_hands(self, data: bytes) -> None:
        self.conn.receive_data(data)
        if self.conn.parser_exc is not None or self.conn.handshake_exc is not None:
            self._refuse()
        else:
            self.handle_events()

    def _refuse(self) -> None:
        self.handshake_initiated = self.handshake_complete = self.close_sent = True
        self.transport.write(refusing(BadRequest("This is not the handshake of a WebSocket.")))
        self.transport.close()

    def handle_connect(self, event: Request) -> None:
        if self.conn.accept(event).status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            self._refuse()
            return
        super().handle_connect(event)
        self.scope["extensions"] |= {ABORT: {"abort": self.transport.abort}, SOCKET: {"socket": self}}

    def handle_ping(self) -> None:
        answer = b"".join(self.conn.data_to_send())
        if self.writable.is_set():
            self.transport.write(answer)

    def send_receive_event_to_app(self) -> None:
        if self.curr_msg_data_type == "text":
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError:
                self.frames = []
                self.conn.send_close(CloseCode.INVALID_DATA, "not UTF-8")
                self.handle_parser_exception()
                return
        super().send_receive_event_to_app()

    def keepalive_timeout(self) -> None:
        self.transport.abort()


def _framed(messages: Iterable[bytes]) -> Iterable[bytes]:
    """Unmasked text frames, as a server sends them (RFC 6455, 5.2)."""
    for message in messages:
        size = len(message)
        if size < 126:
            yield b"\x81%c" % size
        elif size < 65_536:
            yield b"\x81\x7e" + size.to_bytes(2, "big")
        else:
            yield b"\x81\x7f" + size.to_bytes(8, "big")
        yield message
