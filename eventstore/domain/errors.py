"""What can go wrong in the log, without a word of HTTP. The docstring is the default message."""


class EventStoreError(Exception):
    """The event store refused or could not do what was asked."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())


class UnknownRun(EventStoreError):
    """There is no such run."""


class RunClosed(EventStoreError):
    """The run has ended; nothing can be added to it."""


class Fenced(EventStoreError):
    """Another worker has claimed this run since; this one may not write to it any more."""


class AppendRefused(EventStoreError):
    """The log refused this batch."""

    def __init__(self, verdict: str, message: str | None = None) -> None:
        self.verdict = verdict
        super().__init__(message or f"The log refused this batch: {verdict}.")


class NotStorable(EventStoreError):
    """This value cannot be stored, because it could not be read back faithfully."""

    def __init__(self, message: str, pointer: str = "") -> None:
        self.pointer = pointer
        super().__init__(message)


class PolicyError(EventStoreError):
    """A disclosure policy is broken; nothing starts with it."""


class IdempotencyMismatch(EventStoreError):
    """This idempotency key was used before with another request."""


class LogUnavailable(EventStoreError):
    """The log cannot be reached at the moment."""


class LogShut(EventStoreError):
    """The log takes no new events until an operator acknowledges what it lost. What is stored can be read."""
