"""Who starts next: taking runs in fair order and within their bounds, a run's place in line, and what nobody carries.

The order and the bounds are the database's (`migrations/sql/0005_queue_*.sql`). A worker asks for as many runs as it
has room for; no message names who is next, so a worker that is full keeps nothing from one that is not.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from eventstore.arrays import Int4s, Texts, Uuids
from eventstore.domain.lifecycle import Status
from eventstore.sql import rows

TAKE_RUNS_MAX: Final = 100  # in one transaction, for which no other worker takes
ENDINGS_MAX: Final = 50
LINE_ROWS: Final = 2_000  # looked at for a place in line; further behind, a place is a lower bound
LIVE_S: Final = 15.0  # who has not said for this long what it covers is not there (the SQL says the same)


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many runs of one tenant and of one caller may be under way at once, unless the tenant has its own bounds."""

    tenant_runs_max: int
    caller_runs_max: int


@dataclass(frozen=True, slots=True)
class Taker:
    """A worker that asks for runs: who it is, how long it may be silent, and which versions it covers."""

    owner: str
    lease_s: float
    bounds: Bounds
    covers: Sequence[tuple[str, int]]


@dataclass(frozen=True, slots=True)
class Taken:
    """A run that is now the taker's. `crashes`: how often it may have been what its owners died of; `blamed`: the last
    time nothing else can have been. `why` is empty, or says that it only needs to be ended: stopped, queue_wait,
    version_gone."""

    run_id: UUID
    tenant_id: UUID
    epoch: int
    seq: int
    status: Status
    cancel: bool
    parked: int
    crashes: int
    blamed: bool
    why: str


@dataclass(frozen=True, slots=True)
class Found:
    """What a taker got, and whether more could start now on a worker that has room or covers other versions."""

    runs: list[Taken]
    more: bool


@dataclass(frozen=True, slots=True)
class Place:
    """A place in line. `position` counts from 1; a lower bound unless `exact`, and None while nobody covers its
    version."""

    position: int | None
    exact: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Queued:
    """How many runs wait to begin, of a tenant and of one caller, counted no further than just past their bounds."""

    of_tenant: int
    tenant_max: int
    of_caller: int
    caller_max: int


async def take(
    connection: AsyncConnection,
    taker: Taker,
    room: int,
    *,
    on_trial: int = 0,
    suspects: int = 0,
    wait_s: float | None = None,
    up_s: float = 0.0,
) -> Found:
    """Claim what is next, up to `room` runs, and what only needs to be ended. With `wait_s` also what waited that long
    to begin, or whose version nobody covers any more, as a worker sees it that has been there for `up_s`. Of the runs
    that it carries, `suspects` may have killed workers, `on_trial` of them not for long yet."""
    result = await rows(
        connection,
        "take",
        {
            **_covers(taker.covers),
            "owner": taker.owner,
            "lease_s": taker.lease_s,
            "room": min(room, TAKE_RUNS_MAX),
            "on_trial": on_trial,
            "suspects": suspects,
            "tenant_max": taker.bounds.tenant_runs_max,
            "caller_max": taker.bounds.caller_runs_max,
            "endings": ENDINGS_MAX,
            "wait_s": wait_s,
            "up_s": up_s,
        },
    )
    runs = [Taken(*row) for row in result if row[0] is not None]
    return Found(runs, len(runs) < len(result))


async def tend(connection: AsyncConnection, taker: Taker) -> tuple[int, int]:
    """Say what this worker covers; bring back into line what is due, and what owners had that fell silent. Answers how
    many of each."""
    [row] = await rows(connection, "tend", {**_covers(taker.covers), "lease_s": taker.lease_s})
    return int(row[0]), int(row[1])


async def move_on(connection: AsyncConnection, run_id: UUID, epoch: int, version: int) -> None:
    """A run goes on under another version of its workflow, if it is still ours."""
    await rows(connection, "move_on", {"run": run_id, "epoch": epoch, "version": version})


async def places(connection: AsyncConnection, run_ids: Iterable[UUID], bounds: Bounds) -> dict[UUID, Place]:
    """Where these runs stand in line; those that are not in line are left out."""
    asked = {
        "runs": Uuids.of(list(run_ids)),
        "rows": LINE_ROWS,
        "live_s": LIVE_S,
        "tenant_max": bounds.tenant_runs_max,
        "caller_max": bounds.caller_runs_max,
    }
    return {run_id: Place(*told) for run_id, *told in await rows(connection, "places", asked)}


async def queued(
    connection: AsyncConnection, tenant_id: UUID, subject: str, tenant_max: int, caller_max: int
) -> Queued:
    """How many runs wait to begin, beside the bounds for them, which a tenant may have of its own."""
    asked = {"tenant": tenant_id, "subject": subject, "tenant_max": tenant_max, "caller_max": caller_max}
    [row] = await rows(connection, "queued", asked)
    return Queued(*row)


def _covers(covers: Sequence[tuple[str, int]]) -> dict[str, object]:
    return {
        "names": Texts.of([name for name, _ in covers]),
        "versions": Int4s.of([version for _, version in covers]),
    }
