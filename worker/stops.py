"""Ways in which a run leaves its workflow's code before its end.

The halts are no `Exception`: an author's `except Exception` must not swallow them, and because they stick, code that
swallowed one anyway meets it again at its next call, and what it returns does not count.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

StopReason = Literal["cancel", "deadline", "handover", "lost", "suspend", "over"]


@dataclass(frozen=True, slots=True)
class Site:
    """Where in a workflow's code a call is made."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{'/'.join(Path(self.file).parts[-2:])}:{self.line}"


def caller(depth: int = 1) -> Site:
    """The place that called the function that asks; one more for each function in between."""
    frame = sys._getframe(depth + 1)
    return Site(frame.f_code.co_filename, frame.f_lineno)


class Halt(BaseException):
    """The code is to end here."""

    def again(self) -> "Halt":
        """The same halt for the next call that meets it, without the way that this one has gone."""
        return type(self)(*self.args)


class Stop(Halt):
    """The run is to stop: asked to, out of time, handed on, no longer ours, or all of it waits."""

    def __init__(self, reason: StopReason) -> None:
        self.reason: StopReason = reason
        super().__init__(reason)


class Diverged(Halt):
    """The code does something else than the log says it did before; going on would mix two histories."""


class Misused(Halt):
    """The code calls `run` in a way that no log could bring back in the same order."""


class Left(Halt):
    """This part of the run goes on no more: another part beside it has failed, or it ended before its calls did."""


class Exhausted(Halt):
    """A limit of the run is reached, named as in its first event."""

    def __init__(self, limit: str) -> None:
        self.limit = limit
        super().__init__(limit)


class Rewind(Halt):
    """A stream broke that this branch was reading: whatever it made of it is dead, and the branch runs again."""


class WorkflowFailed(Exception):
    """The workflow cannot go on, for a reason that may be shown. `code` is stable, the message is for people; `call` is
    the one that failed, where one did."""

    call: str | None = None

    def __init__(self, code: str, message: str, *, retryable: bool = False) -> None:
        self.code = code
        self.message = message
        self.retryable = retryable
        super().__init__(f"{code}: {message}")

    def of(self, call: str | None) -> Self:
        """The same, of this call."""
        self.call = call
        return self


class ValidationFailed(WorkflowFailed):
    """The draft did not pass its checks; nothing of it is final."""

    def __init__(self, failed: list[str]) -> None:
        self.failed = failed
        super().__init__("validation_failed", f"The draft did not pass: {'; '.join(failed)}.", retryable=True)


class StepFailed(WorkflowFailed):
    """A step failed for good. What was raised in it is told by name: after a crash there is only the log."""

    def __init__(self, code: str, message: str, *, retryable: bool = False, raised: str = "") -> None:
        self.raised = raised
        super().__init__(code, message, retryable=retryable)
