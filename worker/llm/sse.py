"""Bytes of an event stream to whole frames, however the network cut them."""

from collections.abc import Iterator
from dataclasses import dataclass

from worker.llm.model import ModelFault

FRAME_BYTES_MAX = 1 << 20
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Frame:
    """One event: its name, empty for the default one, and its data lines joined."""

    event: bytes
    data: bytes


class SseFrames:
    """Keeps the unfinished line and the unfinished frame between two reads.

    A frame counts when its blank line came: what the end of the stream cuts off was never a frame.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._skip_lf = False
        self._at_start = True
        self._event = b""
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> Iterator[Frame]:
        """Give the frames that this chunk completes."""
        if not chunk:
            return
        lines = (self._rest + self._one_line_end(chunk)).split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            frame = self._line(line)
            if frame is not None:
                yield frame
        if len(self._rest) + self._size > FRAME_BYTES_MAX:
            raise ModelFault("malformed", "The model server sent a frame that is too large.", retryable=True)

    def _one_line_end(self, chunk: bytes) -> bytes:
        """Turn every line end into LF; a CR at the end of a chunk may have its LF in the next one."""
        if self._skip_lf and chunk.startswith(b"\n"):
            chunk = chunk[1:]
            self._skip_lf = False
            if not chunk:
                return chunk
        self._skip_lf = chunk.endswith(b"\r")
        if b"\r" not in chunk:
            return chunk
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _line(self, line: bytes) -> Frame | None:
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(_BOM)
        if not line:
            return self._close_frame()
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
            self._size += len(value)
            if self._size > FRAME_BYTES_MAX:
                raise ModelFault("malformed", "The model server sent a frame that is too large.", retryable=True)
        elif name == b"event":
            self._event = value
        return None

    def _close_frame(self) -> Frame | None:
        frame = Frame(self._event, b"\n".join(self._data)) if self._data else None
        self._event = b""
        self._data = []
        self._size = 0
        return frame
