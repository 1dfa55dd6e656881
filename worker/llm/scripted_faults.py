"""Faults on demand and the journal of the scripted model: what tests and drills steer, and what they measure."""

import itertools
import re
import time
from collections import deque
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

JOURNAL_MAX = 2_000
FAULTS_MAX = 1_000

_STATUS = re.compile(r"[45]\d\d")
KINDS = (
    "cut",  # the connection is closed in the middle of the body; what was sent arrives
    "reset",  # the connection is reset; what was sent and not yet read may be lost
    "early_end",  # a clean end of the body without a finish reason
    "malformed",  # a chunk of broken JSON
    "bad_utf8",  # a chunk that is no UTF-8
    "error_frame",  # an error object in the stream
    "failed",  # the answer is given up: `response.failed`, or an error object where there is no such event
    "no_finish",  # the stream says that it is over, but not why the answer ended
    "talk_on",  # pieces after the finish reason, and usage after them
    "hang",  # no further byte
    "slow_first",  # `delay_s` before the first byte
    "garble",  # `replace` changes the said text
    "not_a_stream",  # a JSON error with status 200
)


class Replacement(BaseModel):
    """A change of the said text."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    old: str = Field(alias="from", min_length=1)
    new: str = Field(alias="to")


class Fault(BaseModel):
    """One order: the next `times` requests whose prompt has `when` in it fail this way."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    after_pieces: int = Field(default=0, ge=0)
    retry_after_s: float | None = Field(default=None, ge=0)
    error_code: str | None = None
    delay_s: float = Field(default=1.0, ge=0)
    times: int = Field(default=1, ge=1)
    when: str = ""
    replace: Replacement | None = None

    @field_validator("kind")
    @classmethod
    def _known(cls, kind: str) -> str:
        if kind not in KINDS and not _STATUS.fullmatch(kind):
            raise ValueError(f"must be a status such as 429 or 500, or one of {', '.join(KINDS)}")
        return kind

    @field_validator("when")
    @classmethod
    def _usable(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        return pattern

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.kind == "garble") != (self.replace is not None):
            raise ValueError("garble, and only garble, needs replace")
        return self

    @property
    def status(self) -> int | None:
        """The HTTP status that this fault answers with."""
        return int(self.kind) if self.kind.isdigit() else None


class Faults:
    """The orders that wait, first in, first out."""

    def __init__(self) -> None:
        self._queue: list[tuple[Fault, int]] = []

    def add(self, fault: Fault) -> None:
        if len(self._queue) >= FAULTS_MAX:
            raise OverflowError(f"{FAULTS_MAX} faults wait already")
        self._queue.append((fault, fault.times))

    def clear(self) -> None:
        self._queue.clear()

    def take(self, prompt: str, text: str) -> Fault | None:
        """The first order that fits this request, used up once. A garble order waits for a text that it can change."""
        for place, (fault, left) in enumerate(self._queue):
            if fault.replace is not None and fault.replace.old not in text:
                continue
            if not re.search(fault.when, prompt, re.MULTILINE):
                continue
            if left > 1:
                self._queue[place] = (fault, left - 1)
            else:
                del self._queue[place]
            return fault
        return None

    def waiting(self) -> list[dict[str, Any]]:
        return [{**fault.model_dump(by_alias=True), "times": left} for fault, left in self._queue]


@dataclass(slots=True)
class Entry:
    """One request as the server saw it. `…_mono` is the machine's monotonic clock, the same in every process."""

    id: str
    client: str
    model: str
    rule: str
    prompt_digest: str
    fault: str | None
    api: str
    opened_at: str
    opened_mono: float
    first_piece_at: str | None = None
    first_piece_mono: float | None = None
    closed_at: str | None = None
    closed_mono: float | None = None
    pieces: int = 0
    ended: str | None = None

    def sent_piece(self) -> None:
        """Count a piece. What is written after the end went nowhere."""
        if self.ended is not None:
            return
        self.pieces += 1
        if self.first_piece_mono is None:
            self.first_piece_at, self.first_piece_mono = _now()

    def close(self, ended: str) -> None:
        """Say how it ended; the first word counts."""
        if self.ended is None:
            self.ended = ended
            self.closed_at, self.closed_mono = _now()


class Journal:
    """The latest requests; an older one gives way to a new one."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque(maxlen=JOURNAL_MAX)
        self._numbers = itertools.count(1)

    def open(
        self, *, client: str, model: str, rule: str, prompt_digest: str, fault: str | None, api: str = "chat"
    ) -> Entry:
        at, mono = _now()
        entry = Entry(f"req_{next(self._numbers)}", client, model, rule, prompt_digest, fault, api, at, mono)
        self._entries.append(entry)
        return entry

    def clear(self) -> None:
        self._entries.clear()

    def entries(self) -> list[dict[str, Any]]:
        return [asdict(entry) for entry in self._entries]


def _now() -> tuple[str, float]:
    return datetime.now(UTC).isoformat(timespec="microseconds"), time.monotonic()
