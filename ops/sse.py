"""Server-sent events out of the bytes of a stream, in whatever pieces the network brings them."""

import re
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
LONGEST_LINE_BYTES: Final = 8 * 2**20


class SseError(Exception):
    """This is no stream of server-sent events."""


class Sse(NamedTuple):
    """One event: its id (empty when it has none of its own), its name and its data."""

    id: str
    event: str
    data: str


def events(pieces: Iterable[bytes]) -> Iterator[Sse]:
    """The whole events of a stream. What stands after the last blank line was cut off and is left out."""
    name, own_id, data = "", "", list[str]()
    for line in _lines(pieces):
        if not line:
            if data:
                yield Sse(own_id, name or "message", "\n".join(data))
            name, own_id, data = "", "", []
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            name = value
        elif field == "data":
            data.append(value)
        elif field == "id" and "\0" not in value:
            own_id = value


def _lines(pieces: Iterable[bytes]) -> Iterator[str]:
    rest = b""
    for piece in pieces:
        rest += piece
        at = 0
        for found in _LINE_END.finditer(rest):
            if found[0] == b"\r" and found.end() == len(rest):
                break  # it may be half of \r\n
            yield rest[at : found.start()].decode("utf-8", "replace")
            at = found.end()
        rest = rest[at:]
        if len(rest) > LONGEST_LINE_BYTES:
            raise SseError("a line of this stream has no end")
