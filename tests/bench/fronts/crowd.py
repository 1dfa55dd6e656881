"""The reading process: thousands of SSE readers that keep little, count every event and hash every byte of its data."""

import asyncio
import gc
import os
import re
import time
from collections import Counter
from collections.abc import Sequence
from hashlib import sha256
from typing import Any, Final, cast
from urllib.parse import urlsplit

from tests.bench.fronts.child import Orders, obey
from tests.bench.fronts.judging import judged, late

DATA: Final = re.compile(rb'data: (\{"seq": ?(\d+).*\})\r?\n')
LAST_CHUNK: Final = b"0\r\n\r\n"
CONNECTING_MAX: Final = 500  # at the same time, where the connecting itself is not what is measured


class Reader(asyncio.Protocol):
    """One reader of one path; goes on after `seq`, where it was cut."""

    def __init__(self, crowd: "Crowd", path: str, after: int = 0) -> None:
        self.crowd = crowd
        self.path = path
        self.seq = after
        self.frames = 0
        self.lost = 0  # events that were left out, came twice or out of order
        self.digest = sha256()
        self.refused = ""
        self.transport: asyncio.Transport | None = None
        self.kept: list[tuple[float, bytes]] = []  # when each event came, and its data
        self._rest = b""
        self._answered = False

    def itself(self) -> "Reader":
        return self

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.crowd.connected += 1
        self._rest, self._answered = b"", False
        self.transport.write(self.crowd.asked(self))

    def data_received(self, data: bytes) -> None:
        if not self._answered:
            self._answered = True
            if not data.startswith(b"HTTP/1.1 200 "):
                self.refused = data[:300].decode("latin-1")
            self.crowd.answered += 1
        whole = self._rest + data
        end, keeps, at = 0, self.crowd.keeps, time.time()
        for found in DATA.finditer(whole):
            seq = int(found[2])
            self.lost += seq != self.seq + 1
            self.seq = seq
            self.frames += 1
            self.digest.update(found[1])
            if keeps:
                self.kept.append((at, found[1]))
            end = found.end()
            if seq == self.crowd.awaited:
                self.crowd.reached += 1
        self._rest = whole[end:]
        if data.endswith(LAST_CHUNK) and self.transport is not None:
            self.transport.abort()  # the server would keep the connection for the next request
        self.crowd.moved.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self.crowd.connected -= 1
        self.crowd.moved.set()


class Crowd:
    """All readers of this process."""

    def __init__(self) -> None:
        self.readers: list[Reader] = []
        self.answered = 0  # of all requests, first bytes
        self.connected = 0
        self.awaited = -1
        self.reached = 0
        self.keeps = False
        self.moved = asyncio.Event()
        self._headers = b""
        self._host: tuple[str, int] = ("", 0)

    def asked(self, reader: Reader) -> bytes:
        cursor = b"Last-Event-ID: %d\r\n" % reader.seq if reader.seq else b""
        return b"GET %s HTTP/1.1\r\n%s%s\r\n" % (reader.path.encode(), self._headers, cursor)

    async def follow(
        self,
        address: str,
        paths: Sequence[str],
        *,
        each: int = 1,
        key: str = "",
        at_once: int = CONNECTING_MAX,
        keep: bool = False,
        after: int = 0,
        more: str = "",
    ) -> dict[str, Any]:
        """So many readers more of each path; returns when all were answered. What they keep is judged in the end."""
        self.keeps = keep
        parts = urlsplit(address)
        self._host = (str(parts.hostname), int(parts.port or 80))
        caller = f"Authorization: Bearer {key}\r\n{more}" if key else more
        self._headers = f"Host: {parts.netloc}\r\nAccept: text/event-stream\r\n{caller}".encode()
        new = [Reader(self, path, after) for path in paths for _ in range(each)]
        self.readers += new
        return await self._connect(new, at_once)

    async def until(self, seq: int, within_s: float = 60.0) -> dict[str, Any]:
        """Wait until every reader has come to this seq; what they were told so far."""
        self.awaited, began = seq, time.time()
        self.reached = sum(reader.seq >= seq for reader in self.readers)
        async with asyncio.timeout(within_s):
            while self.reached < len(self.readers):
                await self._news()
        return {"at": time.time(), "took_s": time.time() - began, **self._told()}

    async def ended(self, within_s: float = 60.0) -> None:
        """Wait until the server has closed every connection."""
        async with asyncio.timeout(within_s):
            while self.connected:
                await self._news()

    async def judge(self, **how: Any) -> dict[str, Any]:
        """What readers that kept everything were told, and how late."""
        return judged([reader.kept for reader in self.readers], **how)

    async def late(self, **how: Any) -> dict[str, Any]:
        """The same of events that say themselves when they were due."""
        return late([reader.kept for reader in self.readers], **how)

    async def cut(self, seq: int, within_s: float = 60.0) -> dict[str, Any]:
        """Cut every connection at once and have all readers return at once, each with its cursor, until all have come
        to this seq."""
        began, self.answered = time.time(), 0
        for reader in self.readers:
            if reader.transport is not None:
                reader.transport.abort()
        while self.connected:
            await self._news()
        connected = await self._connect(self.readers, len(self.readers))
        told = await self.until(seq, within_s)
        return {**told, **connected, "took_s": told["at"] - began}

    async def leave(self) -> dict[str, Any]:
        """All readers go; the next crowd is a new one."""
        told = self._told()
        for reader in self.readers:
            if reader.transport is not None:
                reader.transport.abort()
        while self.connected:
            await self._news()
        self.readers, self.answered, self.awaited, self.reached = [], 0, -1, 0
        return told

    async def _connect(self, readers: Sequence[Reader], at_once: int) -> dict[str, Any]:
        began, loop, wanted = time.time(), asyncio.get_running_loop(), self.answered
        for first in range(0, len(readers), at_once):
            some = readers[first : first + at_once]
            wanted += len(some)
            await asyncio.gather(*(loop.create_connection(reader.itself, *self._host) for reader in some))
            while self.answered < wanted:
                await self._news()
        if refused := [reader.refused for reader in self.readers if reader.refused]:
            raise RuntimeError(f"{len(refused)} readers were refused, the first with: {refused[0]}")
        return {"at": began, "readers": len(self.readers), "connect_s": time.time() - began}

    async def _news(self) -> None:
        self.moved.clear()
        await asyncio.wait_for(self.moved.wait(), 30)

    def _told(self) -> dict[str, Any]:
        own = os.times()
        return {
            "frames": sum(reader.frames for reader in self.readers),
            "lost": sum(reader.lost for reader in self.readers),
            "digests": Counter(f"{reader.path} {reader.digest.hexdigest()}" for reader in self.readers),
            "cpu_s": own.user + own.system,
        }


def orders(given: dict[str, Any]) -> Orders:
    """What this process does when it is told to."""
    crowd = Crowd()
    names = ("follow", "until", "ended", "judge", "late", "cut", "leave")
    return {name: getattr(crowd, name) for name in names}


if __name__ == "__main__":
    gc.disable()  # our own pauses would be taken for the service's
    obey(orders)
