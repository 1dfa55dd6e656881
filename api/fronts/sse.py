"""Streams as our own ASGI response: whole frames only, a clean end, and a reader who takes nothing is dropped.

A keep-alive is `:` and one newline, sent only into silence: with a blank line after it several clients dispatch an
empty event. For the same reason `retry:` rides in the first real event. A reader who stops reading holds at most one
group of frames here and what the socket's buffers take; after the send time-out its connection is cut, not closed
politely, because a polite close would wait for it to read.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import cache
from typing import Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.figures import Outcome, StreamFigures
from api.fronts.feed import Frame
from api.fronts.outlet import Outlet, chunk, outlet_of
from api.fronts.sources import Source
from api.fronts.waits import Stuck, Wait, Waits
from api.negotiation import NDJSON, SSE
from api.settings import ApiSettings

ABORT: Final = "runwire.abort"  # the ASGI extension of our server that cuts a connection
HEADERS: Final = {"Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no"}


def event(frame: Frame) -> bytes:
    """A frame as one event of an event stream. An ephemeral one has no id: the reader's place stays what it was."""
    if frame.seq is None:
        return b"event: %s\ndata: %s\n\n" % (frame.type.encode(), frame.data)
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (frame.seq, frame.type.encode(), frame.data)


def line(frame: Frame) -> bytes:
    """A frame as one line of JSON."""
    return frame.data + b"\n"


class Wire:
    """How frames are written: the form of one, what the first begins with, and what is said into silence."""

    __slots__ = ("_chunk", "_frames", "keepalive", "media_type", "opening", "written")

    def __init__(
        self, media_type: str, written: Callable[[Frame], bytes], opening: bytes = b"", keepalive: bytes = b""
    ) -> None:
        self.media_type = media_type
        self.written = written
        self.opening = opening
        self.keepalive = keepalive
        self._frames: list[Frame] = []
        self._chunk = b""

    def chunk(self, frames: list[Frame]) -> bytes:
        """These frames as one chunk of HTTP. The last answer is kept: all readers of a run ask for the same."""
        if frames != self._frames:
            self._chunk = chunk(b"".join(map(self.written, frames)))
            self._frames = frames
        return self._chunk


@cache
def _event_stream(retry_ms: int) -> Wire:
    return Wire(SSE + "; charset=utf-8", event, b"retry: %d\n" % retry_ms, b":\n")


def event_stream(settings: ApiSettings) -> Wire:
    """Server-sent events."""
    return _event_stream(settings.retry_ms)


@cache
def json_lines() -> Wire:
    """One JSON object per line, and no other line: many readers of this format trip over an empty one."""
    return Wire(NDJSON, line)


def wire_for(media_type: str, settings: ApiSettings) -> Wire:
    """The wire of a negotiated format."""
    return event_stream(settings) if media_type == SSE else json_lines()


class StreamAnswer(Response):
    """Writes a source's frames until it closes, its reader leaves or the process drains."""

    def __init__(
        self,
        source: AbstractContextManager[Source],
        wire: Wire,
        waits: Waits,
        settings: ApiSettings,
        figures: StreamFigures,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status_code = 200
        self.background = None
        self._source = source
        self._wire = wire
        self._waits = waits
        self._settings = settings
        self._figures = figures
        self._outlet: Outlet | None = None
        self._opening = wire.opening
        self._clock: Callable[[], float] = time.monotonic
        self._spoke = 0.0
        self.init_headers({**HEADERS, **(headers or {}), "Content-Type": wire.media_type})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        if scope["method"] == "HEAD":
            await send(start)
            await send({"type": "http.response.body", "body": b""})
            return
        outcome: Outcome = "broken"
        self._figures.opened()
        try:
            async with self._waits.open(receive) as wait:
                try:
                    async with wait.bounded():
                        await send(start)
                        self._outlet = outlet_of(scope)
                        with self._source as source:
                            outcome = await self._write(source, wait, send)
                        await self._send(wait, send, b"", more=False)
                except Stuck:
                    outcome = "cut"
                    await _cut(scope, wait)
        except asyncio.CancelledError:
            outcome = "drained"
            raise
        finally:
            self._figures.closed(outcome)

    async def _write(self, source: Source, wait: Wait, send: Send) -> Outcome:
        clock, keepalive_s = wait.clock, self._settings.keepalive_s
        self._clock, self._spoke = clock, clock()
        if self._outlet is not None:
            wait.pen = self
        while not (source.closed or wait.over):
            # Nothing of what was written is held while we wait for more: a stream waits for most of its life.
            patience_s = max(0.0, self._spoke + keepalive_s - clock())
            if not await self._tell(await source.frames(wait, patience_s), wait, send):
                return _over(wait)
            if clock() - self._spoke >= keepalive_s:
                if self._wire.keepalive:
                    await self._send(wait, send, self._wire.keepalive)
                self._spoke = clock()
        return source.outcome if source.closed else _over(wait)

    async def _tell(self, frames: list[Frame], wait: Wait, send: Send) -> bool:
        """Write these frames; False if the wait was over before the last of them."""
        for group in self._groups(frames):
            if wait.over:
                return False
            await self._send(wait, send, self._opening + group)
            self._opening = b""
            self._spoke = wait.clock()
        if frames:
            self._figures.delivered(len(frames))
        return True

    @property
    def ready(self) -> bool:
        """As a pen: whether the socket takes more at once."""
        return self._outlet is not None and self._outlet.ready

    def write(self, frames: list[Frame]) -> None:
        """As a pen: what came at this moment, while this stream waits."""
        assert self._outlet is not None
        if frames:
            if self._opening:
                self._outlet.write(chunk(self._opening + b"".join(map(self._wire.written, frames))))
                self._opening = b""
            else:
                self._outlet.write(self._wire.chunk(frames))
            self._spoke = self._clock()
            self._figures.delivered(len(frames))

    def _groups(self, frames: Iterable[Frame]) -> Iterator[bytes]:
        """Whole frames in groups of about the size that a socket takes at once."""
        group: list[bytes] = []
        size = 0
        for frame in frames:
            written = self._wire.written(frame)
            group.append(written)
            size += len(written)
            if size >= self._settings.send_bytes:
                yield b"".join(group)
                group, size = [], 0
        if group:
            yield b"".join(group)

    async def _send(self, wait: Wait, send: Send, body: bytes, *, more: bool = True) -> None:
        if more and self.ready:
            assert self._outlet is not None
            self._outlet.write(chunk(body))
            return
        wait.sending_since = began = wait.clock()
        await send({"type": "http.response.body", "body": body, "more_body": more})
        wait.held_s += wait.clock() - began
        wait.sending_since = None


def _over(wait: Wait) -> Outcome:
    return "left" if wait.gone.is_set() else "drained"


async def _cut(scope: Scope, wait: Wait) -> None:
    abort = scope.get("extensions", {}).get(ABORT)
    if abort is not None:
        abort["abort"]()
        await wait.gone.wait()
