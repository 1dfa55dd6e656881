"""A run's place in line as the wire tells it, and the refusal of one run too many in it."""

from collections.abc import Iterable
from typing import Any, Final
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncConnection

from api.callers import Caller
from api.errors import TooManyQueued
from api.service import Service
from eventstore import queue
from eventstore.catalogue import RunRow
from eventstore.domain.lifecycle import TERMINAL_STATUSES
from eventstore.queue import Bounds, Place

QUEUE_FULL_RETRY_S: Final = 10


class InLine(BaseModel):
    """Where a run stands in line. `position` 1 is next; a lower bound unless `exact`. `reason`: turn (it is the others'
    turn, or no worker has room), tenant, caller or workflow (as many of these are under way as may be), no_worker (none
    that is there can carry this version: no position)."""

    position: int | None
    exact: bool
    reason: str


async def lines(connection: AsyncConnection, service: Service, runs: Iterable[RunRow]) -> dict[UUID, InLine]:
    """The places of those of these runs that are in line."""
    open_runs = [run.run_id for run in runs if run.status not in TERMINAL_STATUSES]
    if not open_runs:
        return {}
    settings = service.settings
    bounds = Bounds(settings.tenant_runs_max, settings.caller_runs_max)
    found = await queue.places(connection, open_runs, bounds)
    return {run_id: in_line(place) for run_id, place in found.items()}


async def line_of(connection: AsyncConnection, service: Service, run: RunRow) -> InLine | None:
    """The place of one run, if it is in line."""
    return (await lines(connection, service, [run])).get(run.run_id)


def in_line(place: Place) -> InLine:
    """The place as the wire tells it."""
    return InLine(position=place.position, exact=place.exact, reason=place.reason)


def body_of(place: InLine | None) -> dict[str, Any] | None:
    """The place as JSON."""
    return place.model_dump() if place is not None else None


def tag_of(place: InLine | None) -> tuple[object, ...]:
    """What an ETag must hold of it: a place moves without an event."""
    return () if place is None else (place.position, place.exact, place.reason)


async def keep_in_bounds(connection: AsyncConnection, service: Service, caller: Caller) -> None:
    """Refuse the run that was just put into line if it is one too many; whoever asked for it takes it back with this.

    Requests of the same moment do not see each other's runs, so a line can come to be longer by as many as the API has
    connections.
    """
    settings = service.settings
    line = await queue.queued(
        connection, caller.tenant_id, caller.subject, settings.tenant_queued_max, settings.caller_queued_max
    )
    for whose, count, most in (
        ("of yours", line.of_caller, line.caller_max),
        ("of your tenant", line.of_tenant, line.tenant_max),
    ):
        if count > most:
            service.figures.refusals.refused("queued")
            raise TooManyQueued(
                f"{most} runs {whose} wait to begin: as many as may. Try again when some of them have begun.",
                headers={"Retry-After": str(QUEUE_FULL_RETRY_S)},
            )
