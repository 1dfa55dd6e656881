"""Which run a caller may see, and as what. Somebody else's run looks like none."""

import re
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from api.callers import Caller
from api.fronts.feed import View
from api.service import Service
from eventstore import catalogue
from eventstore.catalogue import RunRow
from eventstore.domain.disclosure import Role
from eventstore.domain.errors import UnknownRun
from eventstore.domain.lifecycle import TERMINAL_STATUSES

RUN_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Sight:
    """A run as one caller may see it."""

    run: RunRow
    view: View
    chain: bytes = b""  # at the end of its log, where it was asked for

    @property
    def ended(self) -> bool:
        """Whether nothing more will be added to it."""
        return self.run.status in TERMINAL_STATUSES


def run_id_in(text: str) -> UUID:
    """A run id from a path. What cannot be one names no run."""
    if not RUN_ID.fullmatch(text):
        raise UnknownRun
    return UUID(text)


async def sight_of(service: Service, caller: Caller, run_id: str) -> Sight:
    """The run as `see` finds it, asked together with those of other requests, and with its chain hash."""
    standing = await service.standings.of(run_id_in(run_id))
    if standing is None or not caller.may_see(standing.run):
        raise UnknownRun
    run = standing.run
    return Sight(run, service.policies.view(run.workflow, caller.role), standing.chain)


async def see(
    connection: AsyncConnection, service: Service, caller: Caller, run_id: str, role: Role | None = None
) -> Sight:
    """The run, if it exists for this caller; seen in their own role, or in one that they may look through."""
    run = await catalogue.find_run(connection, caller.tenant_id, run_id_in(run_id))
    if run is None or not caller.may_see(run):
        raise UnknownRun
    return Sight(run, service.policies.view(run.workflow, role or caller.role))
