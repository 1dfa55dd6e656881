"""Bytes of a response body to the pieces of an answer, whichever of the provider's formats they are in."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import orjson

from worker.llm.model import Piece, Usage
from worker.llm.shapes import malformed
from worker.llm.sse import Frame, SseFrames


class Decoder(Protocol):
    """One answer while it comes in, in one of the formats: JSON objects to pieces, pure.

    `finish_raw` is the provider's word for the end and None while the answer is open; `complete` means that nothing of
    ours can follow.
    """

    finish_raw: str | None
    usage: Usage | None
    model_served: str | None
    system_fingerprint: str | None
    complete: bool

    @property
    def finish(self) -> str | None:
        """The end in our words."""
        ...

    @property
    def refusal(self) -> str | None:
        """What the model said instead of an answer."""
        ...

    def feed(self, chunk: Mapping[str, Any]) -> list[Piece]:
        """Give the pieces of one object."""
        ...

    def close_unfinished(self) -> list[Piece]:
        """For a provider that may forget the finish: end an answer whose tool calls are whole, and give them."""
        ...


class Reading:
    """One response body; `done` once the stream said that it is over, `frames` counts what carried data."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self.done = False
        self.frames = 0
        self._sse = SseFrames()

    def feed(self, data: bytes) -> Iterator[Piece]:
        """Give the pieces that these bytes complete; those before a fault come before it is raised."""
        decoder = self.decoder
        for frame in self._sse.feed(data):
            if self.done:
                return
            if not frame.data:
                continue  # some gateways keep a connection open this way
            self.frames += 1
            if frame.data.startswith(b"[DONE]"):
                self.done = True
                return
            yield from decoder.feed(_object(frame))
            self.done = decoder.complete


def _object(frame: Frame) -> dict[str, Any]:
    try:
        value = orjson.loads(frame.data)
    except orjson.JSONDecodeError:  # bad UTF-8 as well
        raise malformed("a chunk that is no JSON") from None
    if not isinstance(value, dict):
        raise malformed("a chunk of the wrong shape")
    if frame.event == b"error" and not value.get("error"):
        return {"error": value or True}
    return value
