"""How far ahead the log has room: its partitions as ranges of time, and what it means when one is not there.

An event lies in the partition of its run's id, which holds the time at which the run was accepted. So a missing
partition stops new runs and no run that is under way. The sweep of every worker makes partitions a month ahead; only
when that has failed for weeks, or when somebody detached one, does the runway become short.
"""

import re
from collections.abc import Iterable
from typing import Final
from uuid import UUID

from psycopg import errors
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from eventstore.sql import rows

DAY_S: Final = 86_400
AHEAD_S: Final = 28 * DAY_S  # runwire.ensure_partitions makes four whole weeks beyond the current one
RUNWAY_WARN_S: Final = 14 * DAY_S
RUNWAY_PAGE_S: Final = 3 * DAY_S
HINT: Final = (
    "new runs are refused once it is used up: let a worker run and read why it cannot make partitions, or attach a "
    "detached one again; ops/runbooks/log.md, PartitionsRunOut"
)

_BOUND: Final = re.compile(r"FROM \('([0-9a-f-]{36})'\) TO \('([0-9a-f-]{36})'\)")


def runway_s(bounds: Iterable[str], now_us: int) -> float:
    """Seconds from now on without a gap in the partitions; 0 when not even now has one."""
    ranges = sorted((_at_us(found[1]), _at_us(found[2])) for bound in bounds if (found := _BOUND.search(bound)))
    end_us = now_us
    for first_us, last_us in ranges:
        if first_us <= end_us < last_us:
            end_us = last_us
    return (end_us - now_us) / 1e6


async def look(connection: AsyncConnection) -> tuple[int, float]:
    """How many partitions there are, and the runway in seconds."""
    [(bounds, now_us)] = await rows(connection, "partitions")
    return len(bounds), runway_s(bounds, now_us)


def is_missing(fault: IntegrityError) -> bool:
    """Whether the log refused a row because no partition takes it. A broken constraint would name itself."""
    said = fault.orig
    if not isinstance(said, errors.CheckViolation):
        return False
    return said.diag.table_name == "event" and said.diag.constraint_name is None


def _at_us(bound: str) -> int:
    """The moment that the smallest UUIDv7 of a range stands for."""
    return int.from_bytes(UUID(bound).bytes[:6]) * 1_000
