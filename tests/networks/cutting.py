"""A proxy that cuts connections: after so many bytes of the answer, after so long, or when the test says so."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import urlsplit

from ops.ports import address

CHUNK_BYTES: Final = 512  # little, so that a cut may fall anywhere


class Cutting:
    """Every connection through it ends early."""

    def __init__(self, upstream: str, after_bytes: int | None, after_s: float | None) -> None:
        parts = urlsplit(upstream)
        self._upstream = (str(parts.hostname), int(parts.port or 80))
        self.after_bytes = after_bytes
        self._after_s = after_s
        self.cuts = 0
        self.opened = 0
        self._open: dict[asyncio.StreamWriter, asyncio.StreamWriter] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        from_api, to_api = await asyncio.open_connection(*self._upstream)
        self.opened += 1
        self._open[writer] = to_api
        timer = self._after_s and asyncio.get_running_loop().call_later(self._after_s, self._cut, writer)
        asking = asyncio.create_task(_copy(reader, to_api))
        try:
            given = 0
            while data := await from_api.read(CHUNK_BYTES):
                if self.after_bytes is not None and given + len(data) > self.after_bytes:
                    writer.write(data[: self.after_bytes - given])
                    await writer.drain()
                    self._cut(writer)
                    break
                given += len(data)
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass  # one of the two left
        finally:
            asking.cancel()
            if timer:
                timer.cancel()
            self._open.pop(writer, None)
            writer.close()
            to_api.close()

    def cut_all(self) -> None:
        """Cut what is open now."""
        for writer in [*self._open]:
            self._cut(writer)

    def _cut(self, writer: asyncio.StreamWriter) -> None:
        if (to_api := self._open.pop(writer, None)) is not None:
            self.cuts += 1
            if writer.transport.get_write_buffer_size() == 0:
                writer.transport.abort()
            to_api.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    writer.transport.abort()  # whoever asked has left


@asynccontextmanager
async def cutting(
    upstream: str, *, after_bytes: int | None = None, after_s: float | None = None
) -> AsyncIterator[tuple[Cutting, str]]:
    """Such a proxy in front of this address, and its own address."""
    proxy = Cutting(upstream, after_bytes, after_s)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    async with server:
        yield proxy, address(*server.sockets[0].getsockname())
        server.close()
        proxy.cut_all()
