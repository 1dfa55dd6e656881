"""One event of a run as a program gets it, and the two frames that stand in no log."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

TERMINAL: Final = frozenset({"result", "cancelled", "error"})
EPHEMERAL: Final = frozenset({"lagging", "reset"})


@dataclass(frozen=True, slots=True)
class Event:
    """An event of any type. `seq` is its place in the log and the cursor everywhere; 0 for frames that are in no log.

    `data` is what your role may see of it: a field that is not there was not written, or is not for you. `envelope` is
    all that the server said, with whatever a newer one says besides.
    """

    seq: int
    run_id: str
    type: str
    at: str
    attempt: int
    final: bool
    data: Mapping[str, Any]
    envelope: Mapping[str, Any] = field(repr=False, compare=False)

    @property
    def terminal(self) -> bool:
        """Whether the run ends with it."""
        return self.type in TERMINAL

    @property
    def time(self) -> datetime:
        """When it was recorded."""
        return datetime.fromisoformat(self.at)


@dataclass(frozen=True, slots=True)
class LaggingEvent(Event):
    """You read more slowly than the run writes, and pieces of draft text were gathered for you. They follow as the
    events that they were, without those that a later attempt had taken back already. No result is ever left out."""


@dataclass(frozen=True, slots=True)
class ResetEvent(Event):
    """The run's whole state at one place, for a reader that asked for it: forget what you had before."""
