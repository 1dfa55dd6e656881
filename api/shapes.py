"""The JSON that answers about runs are made of."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import orjson
from pydantic import BaseModel, Field
from starlette.responses import Response

from api.fronts.feed import View
from api.negotiation import JSON
from api.states import Known
from eventstore.domain.lifecycle import TERMINAL_STATUSES, Status
from eventstore.domain.transcript import public


class Links(BaseModel):
    """Where to go on from here."""

    self: str
    events: str
    poll: str
    cancel: str
    decisions: str
    continue_: str | None = Field(None, alias="continue", description="where a run that takes this one up is asked for")


class RunStatus(BaseModel):
    """How a run stands."""

    id: UUID
    status: Status
    done: bool
    workflow: str
    title: str
    created_at: str
    links: Links


class RunInList(BaseModel):
    """A run as lists show it."""

    id: UUID
    workflow: str
    title: str
    status: Status
    created_at: str
    seq: int
    queue: dict[str, Any] | None = None


class RunList(BaseModel):
    """A page of runs, newest first; `next` is the cursor of the page after it."""

    runs: list[RunInList]
    next: UUID | None


def links(run_id: UUID, status: str | None = None) -> dict[str, str]:
    """The addresses of one run. Of one that ended without a result also where one is asked for that `continues` it."""
    own = f"/v1/runs/{run_id}"
    told = {"self": own, **{name: f"{own}/{name}" for name in ("events", "poll", "cancel", "decisions")}}
    return {**told, "continue": "/v1/runs"} if status in ("failed", "cancelled") else told


def answer(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer, without a detour over models: its parts are checked where they are made."""
    return Response(orjson.dumps(body), status, headers, JSON)


def seen_of(known: Known) -> dict[str, Any]:
    """What somebody who is shown this state is looking at: a decision names it."""
    return {"seq": known.seq, "chain": known.chain.hex()}


def state_body(run_id: UUID, known: Known, queue: dict[str, Any] | None) -> dict[str, Any]:
    """The state of a run as a role may see it."""
    addresses = links(run_id, known.state.status)
    return {"id": run_id, **public(known.state), "queue": queue, "seen": seen_of(known), "links": addresses}


def version(view: View, seq: int, status: str | None, *more: object) -> str:
    """The ETag of what a view shows of a run at one place in its log; it changes with every event and at the end."""
    return '"' + ".".join(map(str, (view.name, seq, status, *more))) + '"'


def is_done(status: str | None) -> bool:
    """Whether the run has ended."""
    return status in TERMINAL_STATUSES
