"""The short way to a reader's socket, where our server offers one: past every layer that adds nothing to a frame.

Between a stream and its socket lie the wrapped `send` of each middleware and the server's own; for a frame of 200 bytes
that is most of its cost. Once the answer has begun, all of it comes down to one chunk of HTTP/1.1 on the transport. The
server's flow control stays: an outlet that is not ready must not be written to, and who has something to say then says
it by ASGI's `send`, which waits. Under another server there is no outlet and everything goes that way.
"""

from collections.abc import Callable
from typing import Final, Protocol

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

OUTLET: Final = (
    "runwire.outlet"  # the ASGI extension of our server: (scope) -> Outlet | None, once the answer has begun
)


class Outlet(Protocol):
    """A reader's socket as it is now."""

    @property
    def ready(self) -> bool:
        """Whether it takes more at once."""
        ...

    @property
    def write(self) -> Callable[[bytes], None]:
        """Give it one whole chunk."""
        ...


class SocketOutlet:
    """The socket of one answer in the making."""

    __slots__ = ("_cycle", "_flow", "_transport", "write")

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._flow = cycle.flow
        self._transport = cycle.transport
        self.write: Callable[[bytes], None] = cycle.transport.write

    @property
    def ready(self) -> bool:
        cycle = self._cycle
        return not (
            self._flow.write_paused or cycle.disconnected or cycle.response_complete or self._transport.is_closing()
        )


def outlet_into(cycle: RequestResponseCycle | None, scope: Scope) -> Outlet | None:
    """The outlet for the answer to this request, if it has begun and is sent in chunks."""
    # Of several requests sent at once on one connection only the newest is the connection's; others do without.
    if cycle is None or cycle.scope.get("extensions") is not scope["extensions"]:
        return None
    return SocketOutlet(cycle) if cycle.response_started and cycle.chunked_encoding else None


def outlet_of(scope: Scope) -> Outlet | None:
    """What the server of this request offers."""
    offered: Callable[[Scope], Outlet | None] | None = scope.get("extensions", {}).get(OUTLET)
    return None if offered is None else offered(scope)


def chunk(body: bytes) -> bytes:
    """A piece of a body as HTTP/1.1 sends it when nobody knows the length of the whole."""
    return b"%x\r\n%b\r\n" % (len(body), body)
