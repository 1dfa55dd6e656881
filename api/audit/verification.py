"""Verification: the whole chain of a run, walked again from its first event to its head."""

import asyncio

from fastapi import APIRouter
from pydantic import BaseModel

from api.access import see
from api.service import Asked, Who
from eventstore import log
from eventstore.domain import chain
from eventstore.domain.errors import UnknownRun
from eventstore.domain.record import Recorded
from eventstore.tail import PAGE_EVENTS_MAX

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


@router.get("/runs/{run_id}/verification", summary="Check a run's chain of evidence")
async def verify(service: Asked, caller: Who, run_id: str) -> Verified:
    async with service.engine.connect() as connection:
        # One snapshot, so that an event behind the head is evidence and not only newer than our look at the head.
        await connection.execution_options(isolation_level="REPEATABLE READ")
        sight = await see(connection, service, caller, run_id)
        head = await log.head(connection, sight.run.run_id)
        if head is None:
            raise UnknownRun
        events: list[Recorded] = []
        while page := await log.read_after(connection, head.run_id, events[-1].seq if events else 0, PAGE_EVENTS_MAX):
            events += page
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
