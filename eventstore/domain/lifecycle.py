"""The life of a run as a table: (status, event type) -> next status. What is not in the table does not happen.

The database holds the same table (`runwire.transition`) and the append function refuses what it lacks; a test
compares the two. The diagram in ARCHITECTURE.md is generated from here.
"""

from collections.abc import Mapping
from typing import Final, Literal, get_args

Status = Literal["queued", "running", "waiting", "stopping", "completed", "failed", "cancelled"]
STATUSES: Final[tuple[Status, ...]] = get_args(Status)
TERMINAL_STATUSES: Final[frozenset[Status]] = frozenset({"completed", "failed", "cancelled"})
TERMINAL_TYPES: Final[frozenset[str]] = frozenset({"result", "cancelled", "error"})
# Written by the API, on nobody's epoch. A decision may also be the sweep's, when a question's wait is over.
CONTROL_TYPES: Final[frozenset[str]] = frozenset({"accepted", "cancel_requested", "decision"})
FINAL_TYPE: Final = "result"  # the only type that is ever final

WORK: Final = (
    "progress",
    "reasoning",
    "token",
    "tool_call",
    "tool_result",
    "finding",
    "step",
    "model_call",
    "retry",
    "validation",
)


def _row(stay: Status, **moves: Status) -> dict[str, Status]:
    return {**dict.fromkeys(WORK, stay), **moves}


TABLE: Final[Mapping[Status, Mapping[str, Status]]] = {
    # A cancelled queued run ends without ever having started: nobody asks a model for it.
    "queued": {"started": "running", "cancel_requested": "stopping", "cancelled": "cancelled", "error": "failed"},
    # `started` again: another worker took the run over after a crash.
    "running": _row(
        "running",
        started="running",
        escalation="waiting",
        decision="running",
        cancel_requested="stopping",
        result="completed",
        cancelled="cancelled",
        error="failed",
    ),
    # A person is asked. Other branches may go on meanwhile, and another worker may look at it; no result before the
    # answer. `decision` in `running` is the answer to one of several questions after another was answered.
    "waiting": _row(
        "waiting",
        started="waiting",
        escalation="waiting",
        decision="running",
        cancel_requested="stopping",
        cancelled="cancelled",
        error="failed",
    ),
    # No `result` here. Whoever comes first in the log decides the race between a cancel and a result.
    "stopping": _row("stopping", started="stopping", cancel_observed="stopping", cancelled="cancelled", error="failed"),
    "completed": {},
    "failed": {},
    "cancelled": {},
}


def next_status(status: Status | None, type_: str) -> Status | None:
    """The status after this event, or None when the table refuses it."""
    if status is None:
        return "queued" if type_ == "accepted" else None
    return TABLE[status].get(type_)


def diagram() -> str:
    """The table as a Mermaid state diagram; moves from a status to itself are gathered in one note each."""
    lines = ["stateDiagram-v2", "    [*] --> queued: accepted"]
    for status, row in TABLE.items():
        lines += [f"    {status} --> {to}: {type_}" for type_, to in row.items() if to != status]
    lines += [f"    {status} --> [*]" for status in STATUSES if status in TERMINAL_STATUSES]
    for status, row in TABLE.items():
        if stays := [type_ for type_, to in row.items() if to == status]:
            lines += [f"    note right of {status}", f"        stays: {', '.join(stays)}", "    end note"]
    return "\n".join(lines) + "\n"
