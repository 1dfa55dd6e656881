"""Who reads the runs that stop when nobody does: asked for at acceptance, told by API processes, judged by a sweep.

Nobody is ever taken for absent because they could not be seen. A run is stopped only when every API process that is
there has told of its readers up to a moment behind the run's time, without a gap before it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from eventstore.domain.events import OnDisconnect
from eventstore.domain.record import NewEvent
from eventstore.log import Control
from eventstore.sql import rows


@dataclass(frozen=True, slots=True)
class Reported:
    """Which of the runs that were told of ask for readers, and the database's time of that."""

    runs: frozenset[UUID]
    at: datetime


@dataclass(frozen=True, slots=True)
class Unread:
    """A run that seems to have lost its readers."""

    run_id: UUID
    after_s: float


async def expect(connection: AsyncConnection, run_id: UUID, policy: OnDisconnect) -> None:
    """From now on the run's time without readers counts; said in the transaction that accepts it."""
    await rows(
        connection,
        "expect_readers",
        {"run": run_id, "after_s": policy.cancel_after_s, "while_waiting": policy.while_waiting},
    )


async def report(
    connection: AsyncConnection,
    process: UUID,
    read_s_ago: Mapping[UUID, float],
    *,
    known: datetime | None,
    gone_s: float,
    leaves: bool = False,
) -> Reported:
    """One API process tells which runs were read, and how long ago. `known` is a moment of the database's clock before
    it looked: so far its word reaches."""
    told = {
        "process": process,
        "runs": list(read_s_ago),
        "agos": list(read_s_ago.values()),
        "known": known,
        "gone_s": gone_s,
        "leaves": leaves,
    }
    [row] = await rows(connection, "report_readers", told)
    return Reported(frozenset(row[0]), row[1])


async def unread(connection: AsyncConnection, gone_s: float, limit: int) -> list[Unread]:
    """Runs that seem to have lost their readers; `abandon` decides."""
    return [Unread(*row) for row in await rows(connection, "unread", {"gone_s": gone_s, "limit": limit})]


async def abandon(connection: AsyncConnection, run_id: UUID, event: NewEvent, gone_s: float) -> Control:
    """Store this cancel request, if still nobody reads the run: control's verdicts, or `early` or `asked`."""
    asked = {
        "run": run_id,
        "gone_s": gone_s,
        "version": event.version,
        "occurred": event.occurred_us,
        "body": event.body,
    }
    [row] = await rows(connection, "abandon", asked)
    return Control(*row)
