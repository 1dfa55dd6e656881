"""Verification: the whole chain of a run, walked again from its first event to its head."""

import asyncio
from collections.abc import Iterator
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncConnection

from api.access import see
from api.service import Asked, Who
from eventstore import log
from eventstore.domain import chain
from eventstore.domain.errors import UnknownRun
from eventstore.domain.record import Recorded

router = APIRouter(prefix="/v1/audit", tags=["audit"])


class Verified(BaseModel):
    """What the walk found. `fault_seq` is the first event that does not fit."""

    id: str
    ok: bool
    events: int
    chain: str
    head_seq: int
    fault_seq: int | None
    fault: str | None


def _events(loop: asyncio.AbstractEventLoop, connection: AsyncConnection, run_id: UUID) -> Iterator[Recorded]:
    """A run's events for a thread that walks them. The loop reads them for it, so that one page at a time is held."""
    page = log.Page([], True)
    after = 0
    while page.more:
        page = asyncio.run_coroutine_threadsafe(log.read_after(connection, run_id, after), loop).result()
        yield from page.events
        after = page.events[-1].seq if page.events else after


@router.get("/runs/{run_id}/verification", summary="Check a run's chain of evidence")
async def verify(service: Asked, caller: Who, run_id: str) -> Verified:
    async with service.engine.connect() as connection:
        # One snapshot, so that an event behind the head is evidence and not only newer than our look at the head.
        await connection.execution_options(isolation_level="REPEATABLE READ")
        sight = await see(connection, service, caller, run_id)
        head = await log.head(connection, sight.run.run_id)
        if head is None:
            raise UnknownRun
        events = _events(asyncio.get_running_loop(), connection, head.run_id)
        found = await asyncio.to_thread(chain.verify, head.run_id, head.tenant_id, events, head.seq, head.chain)
    return Verified(
        id=str(head.run_id),
        ok=found.ok,
        events=found.events,
        chain=found.chain.hex(),
        head_seq=head.seq,
        fault_seq=found.fault_seq,
        fault=found.fault,
    )
