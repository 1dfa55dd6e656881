"""What goes wrong between a client and its server, as exceptions that say what to do about it."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, NamedTuple

PROBLEM: Final = "application/problem+json"
# Answers of a server, or of something before it, that will do better later.
TRY_AGAIN: Final = frozenset({408, 425, 429, 500, 502, 503, 504})

Json = dict[str, Any]


class Answer(NamedTuple):
    """What came back: the status, the headers and, where it was read, the body."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def kind(self) -> str:
        """The media type, without its parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def retry_after_s(self) -> float | None:
        """How long the server asks us to wait."""
        return _seconds(self.headers.get("retry-after", "").strip())

    def content(self) -> Json | None:
        """The JSON object in it; None when it holds none."""
        try:
            value = json.loads(self.body)
        except ValueError:
            return None
        return value if isinstance(value, dict) else None


class RunwireError(Exception):
    """Anything that this package raises by itself."""


class Unreachable(RunwireError):
    """The server did not answer, or not with anything of use, for as long as there was patience."""


class RedirectRefused(RunwireError):
    """The server pointed to a place that the key must not be sent to."""


class RunFailed(RunwireError):
    """The run ended with an error. `partial` is what it had by then; `retryable` says whether a new run may help."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        super().__init__(str(data.get("message") or "the run failed"))
        self.code = str(data.get("code") or "error")
        self.partial: Mapping[str, Any] = data.get("partial") or {}
        self.retryable = bool(data.get("retryable"))


class RunCancelled(RunwireError):
    """The run was stopped. `partial` is what it had by then."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        super().__init__(str(data.get("reason") or "the run was stopped"))
        self.partial: Mapping[str, Any] = data.get("partial") or {}


class Place(NamedTuple):
    """One place in the request and what is wrong there."""

    pointer: str
    detail: str


class Problem(RunwireError):
    """The server understood the request and said no (RFC 9457). Name `request_id` when you ask about it."""

    def __init__(self, answer: Answer) -> None:
        told = answer.content() or {}
        self.status = answer.status
        self.code = str(told.get("code") or f"http-{answer.status}")
        self.title = str(told.get("title") or "")
        self.detail = str(told.get("detail") or told.get("title") or f"the server answered {answer.status}")
        self.request_id = str(told.get("request_id") or answer.headers.get("x-request-id", ""))
        self.retry_after_s = answer.retry_after_s
        self.errors = tuple(
            Place(str(one.get("pointer", "")), str(one.get("detail", "")))
            for one in told.get("errors") or ()
            if isinstance(one, dict)
        )
        self.allowed = tuple(str(one) for one in told.get("allowed") or ())
        allowed = (f"allowed: {', '.join(self.allowed)}",) if self.allowed else ()
        places = (f"{one.pointer} {one.detail}".strip() for one in self.errors)
        super().__init__("; ".join([self.detail, *places, *allowed]))

    @property
    def pointer(self) -> str:
        """The first place in the request that is wrong; empty when it is none in particular."""
        return self.errors[0].pointer if self.errors else ""


class NotAuthenticated(Problem):
    """The server does not know this key."""


class NotAllowed(Problem):
    """The key's role may not do this."""


class NotFound(Problem):
    """There is no such run or workflow, or it is somebody else's."""


class Conflict(Problem):
    """The run has moved on."""


class Invalid(Problem):
    """The request does not fit: `errors` says where."""


class TooMany(Problem):
    """A limit is reached; `retry_after_s` says when to come back."""


_KINDS: Final[Mapping[int, type[Problem]]] = {
    400: Invalid,
    401: NotAuthenticated,
    403: NotAllowed,
    404: NotFound,
    409: Conflict,
    422: Invalid,
    429: TooMany,
}


def problem_of(answer: Answer) -> Problem:
    """The exception that fits this answer."""
    return _KINDS.get(answer.status, Problem)(answer)


def _seconds(value: str) -> float | None:
    """Of seconds, or of a date."""
    if not value:
        return None
    if value.isdecimal():
        return float(value)
    try:
        then = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (then - datetime.now(UTC)).total_seconds()) if then.tzinfo else None
