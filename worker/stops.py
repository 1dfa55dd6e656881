"""Ways in which a run leaves its workflow's code before its end.

The first three are no `Exception`: an author's `except Exception` must not swallow them, and because the run stays
stopped, code that swallowed one anyway meets it again at its next call.
"""

from typing import Literal

StopReason = Literal["cancel", "deadline", "handover", "lost", "suspend"]


class Stop(BaseException):
    """The run is to stop: asked to, out of time, handed on, no longer ours, or all of it waits."""

    def __init__(self, reason: StopReason) -> None:
        self.reason: StopReason = reason
        super().__init__(reason)


class Diverged(BaseException):
    """The code does something else than the log says it did before; going on would mix two histories."""


class WorkflowFailed(Exception):
    """The workflow cannot go on, for a reason that may be shown. `code` is stable, the message is for people."""

    def __init__(self, code: str, message: str, *, retryable: bool = False) -> None:
        self.code = code
        self.message = message
        self.retryable = retryable
        super().__init__(f"{code}: {message}")


class ValidationFailed(WorkflowFailed):
    """The draft did not pass its checks; nothing of it is final."""

    def __init__(self, failed: list[str]) -> None:
        self.failed = failed
        super().__init__("validation_failed", f"The draft did not pass: {'; '.join(failed)}.", retryable=True)
