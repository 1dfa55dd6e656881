"""The log itself: append, claim, control, read. The only code that writes events, and it holds no connection.

Every function takes a connection that the caller has opened, says one statement and returns values. The order of a
run is made in the database: an append locks the run's head row to commit, so seq order, commit order and the order in
which readers see events are the same, and `seq > n` never skips one.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import dropwhile
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from eventstore.arrays import Byteas, Int2s, Int4s, Int8s, NotPackable, Texts, Uuids
from eventstore.domain import chain
from eventstore.domain.lifecycle import Status
from eventstore.domain.record import PLAIN_JSON, NewEvent, Recorded
from eventstore.sql import hot_rows, rows

PAGE_EVENTS_MAX: Final = 500
PAGE_BYTES_MAX: Final = 1_048_576
_BODY: Final = 9  # its place in a row that is read


@dataclass(frozen=True, slots=True)
class Batch:
    """What one owner wants stored for one run. Named by (epoch, batch_no): sent twice, it is stored once."""

    run_id: UUID
    epoch: int
    batch_no: int
    events: Sequence[NewEvent]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the log said to one batch: a verdict, the stored range, and whether somebody asked the run to stop."""

    run_id: UUID
    verdict: str
    first_seq: int | None
    last_seq: int | None
    recorded_us: int | None
    status: Status | None
    cancel: bool | None


@dataclass(frozen=True, slots=True)
class Claim:
    """The answer to a claim: claimed, held, waiting (nobody need look at it before it is due), closed or unknown.
    `parked` is how often an owner gave the run back because all of it waited."""

    verdict: str
    tenant_id: UUID | None
    epoch: int | None
    seq: int | None
    status: Status | None
    cancel: bool | None
    parked: int | None


@dataclass(frozen=True, slots=True)
class Head:
    """Where a run's log stands."""

    run_id: UUID
    tenant_id: UUID
    status: Status
    seq: int
    chain: bytes
    recorded_us: int
    epoch: int
    cancel: bool


@dataclass(frozen=True, slots=True)
class Page:
    """Events in order, and whether the log held more behind them when this was read. A page is cut at its bound of rows
    or of bytes, so how many events it has says nothing about the end."""

    events: list[Recorded]
    more: bool


@dataclass(frozen=True, slots=True)
class Forgotten:
    """A run that nobody works on."""

    run_id: UUID
    epoch: int
    status: Status
    cancel: bool


@dataclass(frozen=True, slots=True)
class Control:
    """The answer to a control event: ok, already, answered (`seq` is the decision's), not_asked, early, closed, refused
    or unknown."""

    verdict: str
    seq: int | None
    status: Status | None
    owned: bool | None


async def append(connection: AsyncConnection, batches: Sequence[Batch], lease_s: float) -> list[Answer]:
    """Store batches for many runs: one call, one verdict per run, in the order given. A batch without events is a
    heartbeat. A bad verdict for one run never touches another."""
    events = [event for batch in batches for event in batch.events]
    result = await hot_rows(
        connection,
        "append",
        {
            "runs": Uuids.of([batch.run_id for batch in batches]),
            "epochs": Int4s.of([batch.epoch for batch in batches]),
            "batches": Int4s.of([batch.batch_no for batch in batches]),
            "counts": Int4s.of([len(batch.events) for batch in batches]),
            "listings": Byteas.of([_listing(batch.events) for batch in batches]),
            "types": Texts.of([event.type for event in events]),
            "versions": Int2s.of([event.version for event in events]),
            "occurred": Int8s.of([event.occurred_us for event in events]),
            "encodings": Int2s.of([PLAIN_JSON] * len(events)),
            "keys": Uuids.none(len(events)),
            "bodies": Byteas.of([event.body for event in events]),
            "lease_s": lease_s,
        },
    )
    return [Answer(*row) for row in result]


async def claim(connection: AsyncConnection, run_id: UUID, owner: str, lease_s: float) -> Claim:
    """Become the run's owner if it has none by the database's clock; every older owner is fenced from then on."""
    row = await _one(connection, "claim", {"run": run_id, "owner": owner, "lease_s": lease_s})
    assert row is not None
    return Claim(*row)


async def release(connection: AsyncConnection, run_id: UUID, epoch: int) -> None:
    """Give a run back at once, if it is still ours."""
    await rows(connection, "release", {"run": run_id, "epoch": epoch})


async def suspend(connection: AsyncConnection, run_id: UUID, epoch: int, seq: int, due_us: int) -> str:
    """Give a run back of which all waits, until it is due: parked, moved (the log holds more than `seq`) or fenced."""
    row = await _one(connection, "suspend", {"run": run_id, "epoch": epoch, "seq": seq, "due": due_us})
    assert row is not None
    return str(row[0])


async def forgotten(connection: AsyncConnection, after_s: float, limit: int) -> list[Forgotten]:
    """Runs that nobody works on and that were last handed over more than `after_s` ago; marks them as handed over."""
    result = await rows(connection, "forgotten", {"after_s": after_s, "limit": limit})
    return [Forgotten(*row) for row in result]


async def control(connection: AsyncConnection, run_id: UUID, event: NewEvent) -> Control:
    """Append one control event on the run's own chain, under the same lock as the worker's."""
    row = await _one(connection, "control", {"run": run_id, "type": event.type, **_said(event)})
    assert row is not None
    return Control(*row)


async def lapse(connection: AsyncConnection, run_id: UUID, event: NewEvent) -> Control:
    """Append the decision that nobody made in time, once the question's wait is over by the database's clock."""
    row = await _one(connection, "lapse", {"run": run_id, **_said(event)})
    assert row is not None
    return Control(*row)


def _said(event: NewEvent) -> dict[str, Any]:
    return {"version": event.version, "occurred": event.occurred_us, "body": event.body}


async def read_after(
    connection: AsyncConnection,
    run_id: UUID,
    after: int,
    limit: int = PAGE_EVENTS_MAX,
    bytes_max: int = PAGE_BYTES_MAX,
) -> Page:
    """The next events of one run: at most `limit`, and at most `bytes_max` of bodies; a larger one comes alone."""
    asked = {"run": run_id, "after": after, "limit": limit, "bytes": bytes_max}
    result = await rows(connection, "read_after", asked)
    cut = _cut(result)
    return Page([Recorded(*row) for row in result], cut is not None)


async def read_many(
    connection: AsyncConnection,
    cursors: Mapping[UUID, int],
    limit: int = PAGE_EVENTS_MAX,
    bytes_max: int = PAGE_BYTES_MAX,
) -> dict[UUID, Page]:
    """The next events of many runs, each from its own cursor, in one question; runs without any are left out.

    The bounds are for all runs together, so that the answer is one page's memory however many runs are asked for. They
    are read in the order given. The run in which it was cut has `more`; those behind it were not read: they have an
    empty page with `more`, and whoever asks again asks for them first.
    """
    asked = {
        "runs": Uuids.of(list(cursors)),
        "afters": Int4s.of(list(cursors.values())),
        "limit": limit,
        "bytes": bytes_max,
    }
    result = await hot_rows(connection, "read_many", asked)
    cut = _cut(result)
    found: dict[UUID, list[Recorded]] = {}
    for row in result:
        found.setdefault(row[0], []).append(Recorded(*row))
    pages = {run_id: Page(events, False) for run_id, events in found.items()}
    if cut is not None:
        unread = dropwhile(lambda run_id: run_id != cut[0], cursors)
        pages.update((run_id, Page(found.get(run_id, []), True)) for run_id in unread)
    return pages


def _cut(result: list[Any]) -> Any:
    """Take off the row without a body that says that the log holds more, if there is one."""
    return result.pop() if result and result[-1][_BODY] is None else None


async def owners(connection: AsyncConnection) -> set[str]:
    """The workers that carry runs now."""
    return {row[0] for row in await rows(connection, "owners", {})}


async def head(connection: AsyncConnection, run_id: UUID) -> Head | None:
    """Where the run's log stands; None when there is no such run."""
    row = await _one(connection, "head", {"run": run_id})
    return Head(*row) if row is not None else None


async def ensure_partitions(connection: AsyncConnection) -> int:
    """Make room for the weeks to come."""
    row = await _one(connection, "ensure_partitions", {})
    assert row is not None
    return int(row[0])


def _listing(events: Sequence[NewEvent]) -> bytes:
    try:
        return chain.listing(events)
    except (struct.error, OverflowError) as fault:
        raise NotPackable(str(fault)) from fault


async def _one(connection: AsyncConnection, statement: str, parameters: dict[str, Any]) -> Any:
    found = await rows(connection, statement, parameters)
    return found[0] if found else None
