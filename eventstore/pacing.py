"""How often the draft text of one run is stored: at once, until the machine is busy.

What a piece of text costs after it is stored - an event, a frame for each reader - is paid on the same machine, or on
one that is as busy. When commits become slow, pieces of one run that come within a gap are let join into one event: the
cost of a piece falls with the number that join, and nobody reads that fast. The gap grows while commits are slow and
goes when they are quick again; between the two it stays as it is, so that it settles where it is just long enough.
"""

from typing import Final

SLOW_S: Final = 0.010
QUICK_S: Final = 0.005
GAP_S_FIRST: Final = 0.025
GAP_S_MAX: Final = 0.060
LOOK_S: Final = 0.25
GROWS: Final = 1.5
SHRINKS: Final = 0.9


class Pace:
    """The least time between two pieces of one run's draft text in the log."""

    def __init__(self) -> None:
        self.gap_s = 0.0
        self._look_at = 0.0
        self._commits = 0
        self._spent_s = 0.0

    def took(self, now: float, seconds: float) -> None:
        """A commit was answered after so long."""
        self._commits += 1
        self._spent_s += seconds
        if now < self._look_at:
            return
        mean_s = self._spent_s / self._commits
        if mean_s > SLOW_S:
            self.gap_s = min(GAP_S_MAX, max(GAP_S_FIRST, self.gap_s * GROWS))
        elif mean_s < QUICK_S:
            self.gap_s = self.gap_s * SHRINKS if self.gap_s > GAP_S_FIRST else 0.0
        self._look_at, self._commits, self._spent_s = now + LOOK_S, 0, 0.0
