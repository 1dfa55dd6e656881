"""Readers of a run, one per front, each of whom can be cut off anywhere and comes back with its cursor.

Each keeps the envelopes' bytes as they came, so that fronts can be compared byte by byte.
"""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from uuid import UUID

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from eventstore.domain.lifecycle import TERMINAL_TYPES

BLOCK = re.compile(rb"(?::\n)*(?:retry: 1000\n)?id: (\d+)\nevent: (\w+)\ndata: (\{[^\n]*\})\n")
CUT_NEVER = 1 << 40


@dataclass
class Reader:
    """What one reader has of one run."""

    client: httpx.AsyncClient
    run_id: UUID
    limit: int = 3
    role: str = "user"
    cursor: int = 0
    envelopes: list[bytes] = field(default_factory=list)
    ended: bool = False
    query: str = ""
    heard: bytearray = field(default_factory=bytearray)  # of the stream that is being read now

    @property
    def has(self) -> int:
        """How many events have come, also on a stream that is still open."""
        return len(self.envelopes) + self.heard.count(b',"final":')

    async def read(self, cut: int = CUT_NEVER) -> None:
        """Read on; the connection is lost after this many bytes of the body."""
        raise NotImplementedError

    def keep(self, seq: int, type_: str, envelope: bytes) -> None:
        """An event that has come whole."""
        told = json.loads(envelope)
        assert (told["seq"], told["type"], told["run_id"]) == (seq, type_, str(self.run_id))
        assert seq > self.cursor, "an event came twice, or out of order"
        assert not self.ended, "an event came after the end"
        self.cursor = seq
        self.envelopes.append(envelope)
        self.ended = type_ in TERMINAL_TYPES


@dataclass
class SseReader(Reader):
    """Follows the event stream."""

    @property
    def path(self) -> str:
        return f"/v1/runs/{self.run_id}/events?{self.query}"

    async def read(self, cut: int = CUT_NEVER) -> None:
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": str(self.cursor)} if self.cursor else {})}
        body = await _body(self, self.path, headers, cut)
        if body is None:
            assert self.ended, "204 before the end"
            return
        for block in _whole(body, b"\n\n"):
            found = BLOCK.fullmatch(block[:-1])
            assert found, f"no event: {block!r}"
            self.keep(int(found[1]), found[2].decode(), found[3])


@dataclass
class ReplayReader(SseReader):
    """Watches the recording, through the eyes of a role."""

    @property
    def path(self) -> str:
        return f"/v1/audit/runs/{self.run_id}/replay?speed=max&as={self.role}"


@dataclass
class LinesReader(Reader):
    """Follows the stream of JSON lines."""

    async def read(self, cut: int = CUT_NEVER) -> None:
        headers = {"Accept": "application/x-ndjson"}
        body = await _body(self, f"/v1/runs/{self.run_id}/events?after={self.cursor}&{self.query}", headers, cut)
        for line in _whole(body or b"", b"\n"):
            envelope = line[:-1]
            told = json.loads(envelope)
            self.keep(told["seq"], told["type"], envelope)


@dataclass
class PollReader(Reader):
    """Asks again and again; an answer that is cut off is asked for once more."""

    async def read(self, cut: int = CUT_NEVER) -> None:
        while not self.ended:
            answer = await self.client.get(self.path)
            assert answer.status_code == 200, answer.text
            cut -= len(answer.content)
            if cut < 0:
                return
            self.take(answer)

    @property
    def path(self) -> str:
        return f"/v1/runs/{self.run_id}/poll?after={self.cursor}&limit={self.limit}&wait=5"

    def take(self, answer: httpx.Response) -> None:
        """Keep what an answer holds."""
        page = answer.json()
        assert len(page["events"]) <= self.limit
        for envelope in _elements(answer.content):
            told = json.loads(envelope)
            self.keep(told["seq"], told["type"], envelope)
        assert page["next_after"] >= self.cursor, "the cursor went back"
        assert page["more"] or not page["done"] or self.ended, "done, but the terminal event was never given"
        self.cursor = page["next_after"]


@dataclass
class PagesReader(PollReader):
    """Asks the stream's own address for pages."""

    @property
    def path(self) -> str:
        return f"/v1/runs/{self.run_id}/events?after={self.cursor}&limit={self.limit}&{self.query}"

    async def read(self, cut: int = CUT_NEVER) -> None:
        self.client.headers["Accept"] = "application/json"
        await super().read(cut)


@dataclass
class WebSocketReader(Reader):
    """Follows over a WebSocket."""

    async def read(self, cut: int = CUT_NEVER) -> None:
        own = f"{self.client.base_url}/v1/runs/{self.run_id}/ws?after={self.cursor}&{self.query}"
        key = {"Authorization": self.client.headers["Authorization"]}
        connection = await connect(own.replace("http", "ws", 1), additional_headers=key, compression=None)
        try:
            with suppress(ConnectionClosed):
                while True:
                    envelope = await connection.recv(decode=False)
                    cut -= len(envelope)
                    if cut < 0:
                        return
                    told = json.loads(envelope)
                    self.keep(told["seq"], told["type"], bytes(envelope))
            assert (connection.close_code == 1000) == self.ended
        finally:
            connection.transport.abort()
            await connection.wait_closed()


FRONTS: dict[str, type[Reader]] = {
    "sse": SseReader,
    "ndjson": LinesReader,
    "poll": PollReader,
    "pages": PagesReader,
    "ws": WebSocketReader,
    "replay": ReplayReader,
}
LIVE = [name for name in FRONTS if name != "replay"]


async def _body(reader: Reader, path: str, headers: dict[str, str], cut: int) -> bytes | None:
    """The body as far as it came; None when there is nothing more to come."""
    try:
        async with reader.client.stream("GET", path, headers=headers) as answer:
            if answer.status_code == 204:
                return None
            assert answer.status_code == 200, await answer.aread()
            async for chunk in answer.aiter_raw():
                reader.heard += chunk
                if len(reader.heard) >= cut:
                    break
        return bytes(reader.heard[:cut])
    finally:
        reader.heard.clear()


def _whole(body: bytes, end: bytes) -> Iterator[bytes]:
    """The parts that came whole; what follows the last end was cut off."""
    *whole, _ = body.split(end)
    return (part + end for part in whole)


def _elements(body: bytes) -> Iterator[bytes]:
    """The bytes of each element of `events`, as they stand in the answer."""
    start = body.index(b'"events":[') + len(b'"events":[')
    while body[start : start + 1] == b"{":
        depth, stop, in_text = 0, start, False
        while True:
            letter = body[stop : stop + 1]
            stop += 2 if letter == b"\\" else 1
            if letter == b'"':
                in_text = not in_text
            elif not in_text:
                depth += {b"{": 1, b"}": -1}.get(letter, 0)
                if depth == 0:
                    break
        yield body[start:stop]
        start = stop + (body[stop : stop + 1] == b",")
