"""Follows one run on a display to its end, and says what Ctrl-C means meanwhile."""

import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from ops.client import Client, Frame
from ops.display import Display
from ops.exits import CANCELLED, COMPLETED, FAILED, INTERRUPTED
from ops.lines import in_line

ENDS: Final = {"result": COMPLETED, "cancelled": CANCELLED, "error": FAILED}
ENDED: Final = {"completed": COMPLETED, "cancelled": CANCELLED, "failed": FAILED}
ASKED_ON_THE_COMMAND_LINE: Final = "asked for with Ctrl-C"

Frames = Callable[[int], Iterator[Frame]]


class Following:
    """One run being followed; remembers how far it was shown."""

    def __init__(self, client: Client, run_id: str, after: int = 0, queue: Mapping[str, Any] | None = None) -> None:
        self.client = client
        self.run_id = run_id
        self.cursor = after
        self._place = in_line(queue)

    def to_the_end(self, display: Display, frames: Frames | None = None) -> int:
        """Show every event from the cursor on; answers the exit code that fits the run's end."""
        source = frames or (lambda after: self.client.follow(self.run_id, after))
        with display:
            self.client.notice = display.notice
            if self._place:
                display.notice(self._place)
            for frame in source(self.cursor):
                display.show(frame)
                self.cursor = max(self.cursor, frame.seq)
                if frame.terminal:
                    return ENDS[frame.name]
        # The cursor was at the end already: nothing to show, but how it ended is still an answer.
        return ENDED.get(str(self.client.state(self.run_id).get("status")), COMPLETED)


def follow_or_ask(following: Following, new_display: Callable[[], Display], again: str, *, from_start: bool) -> int:
    """Follow a run that this command started. Ctrl-C asks whether to detach or to cancel; the second one detaches.

    After a cancel the run is followed on, `from_start` for a display that must know all of it.
    """
    try:
        return following.to_the_end(new_display())
    except KeyboardInterrupt:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            return detached(again)
    try:
        if not _wants_to_cancel():
            return detached(again)
        following.client.cancel(following.run_id, ASKED_ON_THE_COMMAND_LINE)
        following.cursor = 0 if from_start else following.cursor
        return following.to_the_end(new_display())
    except (KeyboardInterrupt, EOFError):
        return detached(again)


def detached(again: str) -> int:
    """Say that the run goes on, and how to come back to it."""
    print(f"Detached: the run goes on. Come back with: {again}", file=sys.stderr, flush=True)
    return INTERRUPTED


def _wants_to_cancel() -> bool:
    while True:
        print("\nDetach and let the run go on, or cancel it? [d/c] ", end="", file=sys.stderr, flush=True)
        answer = input().strip().lower()
        if answer in {"", "d", "detach"}:
            return False
        if answer in {"c", "cancel"}:
            return True
