"""Server-sent events out of the bytes of a stream, in whatever pieces the network brings them."""

import re
from typing import Final, NamedTuple

BOM: Final = b"\xef\xbb\xbf"
EVENT_BYTES_MAX: Final = 16 * 2**20
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
_DIGITS: Final = re.compile(r"[0-9]{1,9}", re.ASCII)


class SseError(Exception):
    """This is no stream of server-sent events."""


class Sse(NamedTuple):
    """One event: its id (empty when it has none of its own), its name and its data."""

    id: str
    event: str
    data: str


class Parser:
    """Takes bytes, gives whole events. What stands after the last blank line was cut off and is never given.

    Lines end with CR, LF or both, a mark at the very beginning is skipped, comments are no events. An id does not
    stand for the events after it here: what has none of its own is not in the log, and no place to go on from.
    """

    def __init__(self) -> None:
        self.retry_s: float | None = None  # how long the server asks us to wait before we come back
        self._begun = False
        self._line = bytearray()
        self._after_cr = False
        self._name, self._id, self._data, self._held = "", "", list[str](), 0

    def feed(self, piece: bytes) -> list[Sse]:
        """The events that are whole with this piece."""
        if not self._begun:
            piece = bytes(self._line) + piece
            self._line.clear()
            if len(piece) < len(BOM) and BOM.startswith(piece):
                self._line += piece
                return []
            piece, self._begun = piece.removeprefix(BOM), True
        if self._after_cr and piece:
            piece, self._after_cr = piece.removeprefix(b"\n"), False
        found: list[Sse] = []
        at = 0
        for end in _LINE_END.finditer(piece):
            self._line += piece[at : end.start()]
            at = end.end()
            self._take(found)
        self._line += piece[at:]
        self._after_cr = self._after_cr if not piece else piece.endswith(b"\r")
        if len(self._line) + self._held > EVENT_BYTES_MAX:
            raise SseError("an event of this stream has no end")
        return found

    def _take(self, found: list[Sse]) -> None:
        line = self._line.decode("utf-8", "replace")
        self._line.clear()
        if not line:
            if self._data:
                found.append(Sse(self._id, self._name or "message", "\n".join(self._data)))
            self._clear()
            return
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
            self._held += len(value) + 1
        elif field == "event":
            self._name = value
        elif field == "id" and "\0" not in value:
            self._id = value
        elif field == "retry" and _DIGITS.fullmatch(value):
            self.retry_s = int(value) / 1000

    def _clear(self) -> None:
        self._name, self._id, self._data, self._held = "", "", list[str](), 0
