"""An SSE reader that costs little: it keeps what comes with the moment it came, and reads it afterwards."""

import asyncio
import re
import time
from collections.abc import Iterator
from typing import Final, cast
from urllib.parse import urlsplit

FRAME: Final = re.compile(rb"id: (\d+)\nevent: (\w+)\ndata: (\{.*?\})\n\n")


class Reader(asyncio.Protocol):
    """One connection to one run's events."""

    def __init__(self, ask: bytes, ended: "asyncio.Future[None]") -> None:
        self.came: list[tuple[float, bytes]] = []
        self._ask = ask
        self._ended = ended

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.WriteTransport, transport).write(self._ask)

    def data_received(self, data: bytes) -> None:
        self.came.append((time.time(), data))
        if data.endswith(b"\r\n0\r\n\r\n") or data == b"0\r\n\r\n":
            self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()

    def _end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    def frames(self) -> Iterator[tuple[float, int, str, bytes]]:
        """Every frame: when its last byte came, its seq, its type, its data."""
        whole = b"".join(data for _, data in self.came)
        chunks = iter(self.came)
        upto, at = 0, 0.0
        for found in FRAME.finditer(whole):
            while upto < found.end():
                at, data = next(chunks)
                upto += len(data)
            yield at, int(found[1]), found[2].decode(), found[3]


async def follow(address: str, key: str, run_id: str) -> tuple[Reader, "asyncio.Future[None]"]:
    """Read a run's events from the first one on; the future is done when the stream has ended."""
    parts = urlsplit(address)
    host, port = str(parts.hostname), int(parts.port or 80)
    ask = f"GET /v1/runs/{run_id}/events HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\n"
    ended = asyncio.get_running_loop().create_future()
    given = f"{ask}Accept: text/event-stream\r\n\r\n".encode()
    _, reader = await asyncio.get_running_loop().create_connection(lambda: Reader(given, ended), host, port)
    return reader, ended
