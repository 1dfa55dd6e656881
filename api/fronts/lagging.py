"""What a slow reader is given: its draft text gathered, everything else as it is stored. Pure, frames in, frames out.

A reader lags when it is further behind than it may be *and* its own connection is what keeps it there: its socket has
taken nothing for so long, in sum, since it was last near the run's end. A fast reader of a long history is far behind
for a while and never lags; nor does anybody because this process has much to do.

Each stretch of draft events between two others becomes one `lagging` frame without an id: the first and last place in
the log that it stands for, how many events, and their text, piece by piece with its place. So a later `retry` can still
take back any part of it, and whoever folds the pieces as the events they were ends where all others end. What a `retry`
in the same page takes back is not even said. The stretch's last event follows as it is stored: it gives the reader its
place, so that who is cut off there comes back to what follows.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

import orjson

from api.fronts.feed import LAGGING, Frame, said

DRAFT_TYPES: Final = frozenset({"token", "reasoning"})
STRETCH_MIN: Final = 3  # with fewer events there is nothing to be won


class Bounds(NamedTuple):
    """How far behind a reader may be, and how long its socket may have held it up, before it lags."""

    events: int
    bytes: int
    held_s: float


class Lag:
    """Whether one reader lags. It goes on lagging until it is near the end again."""

    __slots__ = ("_bounds", "_held_s")

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._held_s = 0.0  # how long it had been held up when it was last near the end

    def near(self, held_s: float) -> None:
        """It has come to the end of what there is."""
        self._held_s = held_s

    def lags(self, events: int, size: Callable[[], int], held_s: float) -> bool:
        """With this many events and bytes before it, of a reader who was held up for this long since it came."""
        if held_s - self._held_s < self._bounds.held_s:
            return False
        if events < self._bounds.events and size() < self._bounds.bytes:
            self.near(held_s)
            return False
        return True


def conflated(frames: Sequence[Frame]) -> list[Frame]:
    """These frames with each stretch of draft text gathered. The places of all others stay, and so do their bytes."""
    kept: list[Frame] = []
    stretch: list[Frame] = []
    dead = _superseded(frames)
    for frame in frames:
        if frame.type in DRAFT_TYPES:
            stretch.append(frame)
        else:
            kept += _gathered(stretch, dead)
            kept.append(frame)
            stretch = []
    return kept + _gathered(stretch, dead)


def _gathered(stretch: list[Frame], dead: list[tuple[int, int]]) -> list[Frame]:
    if len(stretch) < STRETCH_MIN:
        return stretch
    *away, last = stretch
    return [_lagging([orjson.loads(frame.data) for frame in away], dead), last]


def _lagging(events: list[dict[str, Any]], dead: list[tuple[int, int]]) -> Frame:
    """One frame for these. Pieces are gathered with those that differ in nothing but their text."""
    drafts: dict[bytes, dict[str, Any]] = {}
    for event in events:
        seq, data = event["seq"], event["data"]
        if any(first <= seq <= last for first, last in dead):
            continue
        shared = {name: value for name, value in data.items() if name != "text"}
        draft = {"type": event["type"], "attempt": event["attempt"], "shared": shared}
        gathered = drafts.setdefault(orjson.dumps(draft), {**draft, "pieces": []})
        gathered["pieces"].append([seq, data.get("text", "")])
    return said(
        events[0]["run_id"],
        LAGGING,
        {
            "first": events[0]["seq"],
            "last": events[-1]["seq"],
            "count": len(events),
            "drafts": list(drafts.values()),
        },
    )


def _superseded(frames: Iterable[Frame]) -> list[tuple[int, int]]:
    """What the retries among these take back of what was said before them."""
    retries = (orjson.loads(frame.data) for frame in frames if frame.type == "retry")
    return [
        (first, min(last, retry["seq"])) for retry in retries for first, last in retry["data"].get("superseded", ())
    ]
