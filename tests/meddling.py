"""A proxy that does to connections what bad networks do: cuts, stalls, holds back and answers in the server's place."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import urlsplit

HEAD_END: Final = b"\r\n\r\n"
NEVER: Final = 1 << 40

Kind = Literal["pass", "cut", "stall", "mute", "hold", "answer", "refuse"]


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of one request: `cut` and `stall` come after so many bytes of the answer, `mute` after its head, and
    `hold` lasts until its end."""

    kind: Kind = "pass"
    after: int = 0
    answer: bytes = b""


PASS: Final = Fate()


def said(status: str, body: str = "", kind: str = "text/html", **headers: str) -> Fate:
    """An answer of something on the way."""
    more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{more}\r\n"
    )
    return Fate("answer", answer=(head + body).encode())


@dataclass
class Proxy:
    """Where it listens, what it was asked, and what it does to whom."""

    address: str
    upstream: str
    fate: Callable[[str], Fate] = lambda _: PASS
    asked: list[str] = field(default_factory=list)  # the whole head of each request
    heard: list[bytearray] = field(default_factory=list)  # what was sent down for each of them
    open: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def streams(self) -> list[str]:
        """The requests for streams."""
        return [head for head in self.asked if "/events" in head.partition("\r\n")[0]]

    @property
    def polls(self) -> list[str]:
        """The requests for pages."""
        return [head for head in self.asked if "/poll" in head.partition("\r\n")[0]]

    def cut(self) -> None:
        """Break every connection that is open."""
        for task in self.open:
            task.cancel()

    def meddle(self, *fates: Fate, then: Fate = PASS) -> None:
        """Do this to the next streams, one after the other; all else passes."""
        to_come = list(fates)
        self.fate = lambda line: PASS if "/events" not in line else to_come.pop(0) if to_come else then


def cursor_of(head: str) -> int:
    """Where a stream was asked to go on."""
    return int(head.lower().partition("last-event-id: ")[2].partition("\r\n")[0] or 0)


@asynccontextmanager
async def meddling(address: str) -> AsyncIterator[Proxy]:
    """A proxy before this server. Each connection carries one request."""

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                await _request(proxy, reader, writer)
        finally:
            writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(carry(reader, writer))
        proxy.open.add(task)
        task.add_done_callback(proxy.open.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    proxy = Proxy(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", address)
    try:
        yield proxy
    finally:
        server.close()
        proxy.cut()
        if proxy.open:
            await asyncio.wait(proxy.open)
        await server.wait_closed()


async def _request(proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await reader.readuntil(HEAD_END)
    proxy.asked.append(head.decode())
    proxy.heard.append(heard := bytearray())
    fate = proxy.fate(proxy.asked[-1].partition("\r\n")[0])
    if fate.kind == "refuse":
        return
    if fate.kind == "answer":
        writer.write(fate.answer)
        await writer.drain()
        return
    upstream = urlsplit(proxy.upstream)
    up_reader, up_writer = await asyncio.open_connection(upstream.hostname, upstream.port)
    try:
        up_writer.write(head[: -len(HEAD_END)] + b"\r\nConnection: close" + HEAD_END)
        onward = asyncio.create_task(_upward(reader, up_writer))
        try:
            await _downward(fate, heard, up_reader, writer, onward)
        finally:
            onward.cancel()
            await asyncio.wait([onward])
    finally:
        up_writer.close()


async def _upward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until the client leaves."""
    while piece := await reader.read(65_536):
        writer.write(piece)
        await writer.drain()


async def _downward(
    fate: Fate, heard: bytearray, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, onward: asyncio.Task[None]
) -> None:
    left = fate.after if fate.kind in {"cut", "stall"} else NEVER
    held = b""
    while True:
        read = asyncio.create_task(reader.read(65_536))
        await asyncio.wait([read, onward], return_when=asyncio.FIRST_COMPLETED)
        if not read.done():  # the client left
            read.cancel()
            await asyncio.wait([read])
            return
        piece = read.result()
        if fate.kind == "hold":
            held += piece
            if piece:
                continue
            piece = held
        if fate.kind == "mute":
            piece = piece.partition(HEAD_END)[0] + HEAD_END
            left = len(piece)
        writer.write(piece[:left])
        heard += piece[:left]
        await writer.drain()
        left -= len(piece)
        if left <= 0 and fate.kind in {"stall", "mute"}:
            await asyncio.wait([onward])
            return
        if left <= 0 or not piece or fate.kind == "hold":
            return
