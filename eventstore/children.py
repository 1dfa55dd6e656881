"""Runs that another run asks for: opened and stopped in the name of the run that asks, by its owner only."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from eventstore.domain.record import NewEvent
from eventstore.log import Control
from eventstore.sql import rows


@dataclass(frozen=True, slots=True)
class Asking:
    """Who asks: a run, by one of its calls, and the epoch of its owner."""

    run_id: UUID
    epoch: int
    key: str


@dataclass(frozen=True, slots=True)
class ChildRun:
    """What is asked for."""

    run_id: UUID
    workflow: str
    title: str
    input: bytes
    accepted: NewEvent


async def open_child(connection: AsyncConnection, asking: Asking, child: ChildRun) -> str:
    """Open it, unless that was done before: ok, fenced, stopping, unknown_workflow or mismatch."""
    [row] = await rows(
        connection,
        "open_child",
        {
            "parent": asking.run_id,
            "epoch": asking.epoch,
            "key": asking.key,
            "run": child.run_id,
            "workflow": child.workflow,
            "title": child.title,
            "input": child.input,
            "version": child.accepted.version,
            "occurred": child.accepted.occurred_us,
            "accepted": child.accepted.body,
        },
    )
    return str(row[0])


async def stop_child(connection: AsyncConnection, parent: UUID, epoch: int, run_id: UUID, request: NewEvent) -> Control:
    """Ask it to stop: what `log.control` answers, and fenced when this is not the parent's owner."""
    [row] = await rows(
        connection,
        "stop_child",
        {
            "parent": parent,
            "epoch": epoch,
            "run": run_id,
            "version": request.version,
            "occurred": request.occurred_us,
            "body": request.body,
        },
    )
    return Control(*row)
