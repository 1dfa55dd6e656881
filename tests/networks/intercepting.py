"""What a network does whose clients are told of no proxy: it sends their requests through one all the same."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

from ops.ports import address


@asynccontextmanager
async def intercepting(target: str, proxy: str) -> AsyncIterator[str]:
    """An address where requests for the target go through the proxy; each connection carries one."""
    through = urlsplit(proxy)

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_connection(through.hostname, through.port)
        with suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            line, *fields = head.split("\r\n")[:-2]
            method, path, version = line.split(" ")
            kept = [each for each in fields if not each.lower().startswith(("host:", "connection:"))]
            host = urlsplit(target).netloc
            asked = [f"{method} {target}{path} {version}", f"Host: {host}", "Connection: close", *kept]
            to_writer.write("\r\n".join([*asked, "", ""]).encode("latin-1"))
            onward = asyncio.create_task(_copy(reader, to_writer))
            await _copy(to_reader, writer)
            onward.cancel()
        for each in (writer, to_writer):
            each.close()

    server = await asyncio.start_server(carry, "127.0.0.1", 0)
    async with server:
        yield address(*server.sockets[0].getsockname())
        server.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.transport.abort() if reader.exception() else writer.close()
