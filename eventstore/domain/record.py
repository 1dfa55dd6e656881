"""An event before it is stored (NewEvent), as it is stored (Recorded), and as readers meet it (Fact)."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from pydantic_core import from_json

from eventstore.domain.upcasts import upcast

EPOCH_START = datetime(1970, 1, 1, tzinfo=UTC)
_NAIVE_START = EPOCH_START.replace(tzinfo=None)
PLAIN_JSON = 0  # the one encoding so far; the number is part of every leaf hash


@dataclass(frozen=True, slots=True)
class NewEvent:
    """A fact that a writer wants stored. The body is serialised once, here, and never again."""

    type: str
    version: int
    occurred_us: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Fact:
    """What a reader works with: the decoded, upcast body and its place in the log."""

    seq: int
    type: str
    at_us: int
    attempt: int
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Recorded:
    """One row of the log, with the exact bytes that its chain covers."""

    run_id: UUID
    seq: int
    epoch: int
    type: str
    version: int
    occurred_us: int
    recorded_us: int
    encoding: int
    key_id: UUID | None
    body: bytes
    chain: bytes

    def fact(self) -> Fact:
        """The event as readers meet it. `attempt` is the call's own where it has one, else the worker's epoch."""
        data = upcast(self.type, self.version, from_json(self.body))
        attempt = data.get("attempt")
        return Fact(self.seq, self.type, self.recorded_us, self.epoch if attempt is None else attempt, data)


def rfc3339(at_us: int) -> str:
    """Microseconds since 1970 as the wire writes them: UTC, six decimals, Z."""
    # Not strftime: the C library's looks for the time zone's file each time.
    return (_NAIVE_START + timedelta(microseconds=at_us)).isoformat(timespec="microseconds") + "Z"


def to_us(moment: datetime) -> int:
    """An aware datetime as whole microseconds since 1970, exactly."""
    return (moment - EPOCH_START) // timedelta(microseconds=1)
