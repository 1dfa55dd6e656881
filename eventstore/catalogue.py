"""Runs as a list, their inputs, and the workflows that workers have registered."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from eventstore.domain.lifecycle import Status
from eventstore.domain.record import NewEvent
from eventstore.sql import rows


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run as lists show it."""

    run_id: UUID
    tenant_id: UUID
    subject: str
    workflow: str
    title: str
    created_us: int
    status: Status
    seq: int


@dataclass(frozen=True, slots=True)
class Submission:
    """Everything that accepting a run stores at once."""

    run_id: UUID
    tenant_id: UUID
    subject: str
    workflow: str
    title: str
    idempotency_key: str | None
    body_digest: bytes
    input: bytes
    accepted: NewEvent


@dataclass(frozen=True, slots=True)
class Opened:
    """The answer to a submission: ok, replayed, mismatch or out_of_range."""

    verdict: str
    run_id: UUID
    recorded_us: int


@dataclass(frozen=True, slots=True)
class Registered:
    """A workflow as the workers described it."""

    name: str
    version: int
    manifest: Mapping[str, Any]
    runs_max: int | None = None
    on_gap: Literal["error", "restart"] = "error"
    version_wait_s: float = 3_600.0


async def open_run(connection: AsyncConnection, submission: Submission) -> Opened:
    """Accept a run: its catalogue row, its input, its first event and its head, together or not at all."""
    result = await rows(
        connection,
        "open_run",
        {
            "run": submission.run_id,
            "tenant": submission.tenant_id,
            "subject": submission.subject,
            "workflow": submission.workflow,
            "title": submission.title,
            "key": submission.idempotency_key,
            "body_digest": submission.body_digest,
            "input": submission.input,
            "version": submission.accepted.version,
            "occurred": submission.accepted.occurred_us,
            "accepted": submission.accepted.body,
        },
    )
    return Opened(*result[0])


async def find_run(connection: AsyncConnection, tenant_id: UUID, run_id: UUID) -> RunRow | None:
    """The run, if it is this tenant's. Another tenant's run looks like none."""
    result = await rows(connection, "run", {"run": run_id, "tenant": tenant_id})
    return RunRow(*result[0]) if result else None


async def list_runs(
    connection: AsyncConnection,
    tenant_id: UUID,
    *,
    subject: str | None,
    workflow: str | None,
    status: str | None,
    before: UUID | None,
    limit: int,
) -> list[RunRow]:
    """A page of runs, newest first."""
    result = await rows(
        connection,
        "runs",
        {
            "tenant": tenant_id,
            "subject": subject,
            "workflow": workflow,
            "status": status,
            "before": before,
            "limit": limit,
        },
    )
    return [RunRow(*row) for row in result]


async def read_input(connection: AsyncConnection, run_id: UUID) -> bytes | None:
    """The input as it was accepted."""
    result = await rows(connection, "input", {"run": run_id})
    return bytes(result[0][0]) if result else None


async def workflows(connection: AsyncConnection) -> list[Registered]:
    """What can be run."""
    return [Registered(*row) for row in await rows(connection, "workflows")]


async def register(connection: AsyncConnection, workflow: Registered) -> None:
    """Tell the API what this worker can run."""
    await rows(
        connection,
        "register_workflow",
        {
            "name": workflow.name,
            "version": workflow.version,
            "manifest": json.dumps(workflow.manifest),
            "runs_max": workflow.runs_max,
            "on_gap": workflow.on_gap,
            "version_wait_s": workflow.version_wait_s,
        },
    )
