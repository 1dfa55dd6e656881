"""Short ways for tests to put real events into a real log."""

from uuid import UUID, uuid4

import uuid_utils.compat
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from eventstore import catalogue, log
from eventstore.domain.events import (
    Accepted,
    Body,
    Milestone,
    Person,
    PolicyRef,
    Result,
    RunLimits,
    Started,
    Token,
    Usage,
    new_event,
)
from eventstore.domain.record import Recorded

NOW_US = 1_790_000_000_000_000
PLAN = [Milestone(state="uploaded", label="Uploaded"), Milestone(state="ready", label="Ready for review")]


def accepted(subject: str = "ada", workflow: str = "contract_review") -> Accepted:
    return Accepted(
        workflow=workflow,
        workflow_version=1,
        title="A contract",
        input_digest="00",
        input_bytes=2,
        caller=Person(subject=subject, role="user"),
        tenant="acme",
        policy=PolicyRef(version=1, digest="00"),
        milestones=PLAN,
        limits=RunLimits(run_s=180, attempts_max=3),
        trace_id="0" * 32,
    )


def started(attempt: int = 1) -> Started:
    return Started(attempt=attempt, worker="test", code="test", workflow_version=1)


def token(text_: str, attempt: int = 1) -> Token:
    return Token(text=text_, section="comments", step="draft#1", attempt=attempt)


def result() -> Result:
    return Result(output={"ok": True}, counts={"findings": 0}, usage=Usage())


async def new_tenant(owner: AsyncEngine, name: str | None = None) -> UUID:
    tenant = uuid4()
    async with owner.begin() as connection:
        await connection.execute(
            text("INSERT INTO runwire.tenant VALUES (:id, :name)"), {"id": tenant, "name": name or tenant.hex}
        )
    return tenant


def submission(tenant: UUID, *, key: str | None = None, digest: bytes = b"") -> catalogue.Submission:
    """A run that somebody asks for."""
    return catalogue.Submission(
        run_id=uuid_utils.compat.uuid7(),
        tenant_id=tenant,
        subject="ada",
        workflow="contract_review",
        title="A contract",
        idempotency_key=key,
        body_digest=digest,
        input=b"{}",
        accepted=new_event(accepted(), NOW_US),
    )


async def open_run(api: AsyncEngine, tenant: UUID, *, key: str | None = None, digest: bytes = b"") -> catalogue.Opened:
    async with api.begin() as connection:
        return await catalogue.open_run(connection, submission(tenant, key=key, digest=digest))


async def claim(worker: AsyncEngine, run_id: UUID, lease_s: float = 30.0, owner: str = "test") -> log.Claim:
    async with worker.begin() as connection:
        return await log.claim(connection, run_id, owner, lease_s)


def batch(run_id: UUID, epoch: int, number: int, *bodies: Body) -> log.Batch:
    return log.Batch(run_id, epoch, number, [new_event(body, NOW_US) for body in bodies])


async def append(worker: AsyncEngine, *batches: log.Batch) -> list[log.Answer]:
    async with worker.begin() as connection:
        return await log.append(connection, batches, 30.0)


async def events_of(connection: AsyncConnection, run_id: UUID, after: int = 0) -> list[Recorded]:
    """A run's log from a cursor to its end, however many pages that are."""
    events: list[Recorded] = []
    while True:
        page = await log.read_after(connection, run_id, events[-1].seq if events else after)
        events += page.events
        if not page.more:
            return events


async def running(api: AsyncEngine, worker: AsyncEngine, tenant: UUID, *bodies: Body) -> UUID:
    """A claimed run, epoch 1, whose first batch is `started` and these."""
    opened = await open_run(api, tenant)
    await claim(worker, opened.run_id)
    [answer] = await append(worker, batch(opened.run_id, 1, 1, started(), *bodies))
    assert answer.verdict == "ok"
    return opened.run_id
