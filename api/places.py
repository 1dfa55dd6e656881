"""Places in line, for whoever polls a run that was never begun: those of one moment are asked together."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from api.gathering import Gathered
from eventstore import queue
from eventstore.queue import Bounds, Place


class Places:
    """Where runs stand in line."""

    def __init__(self, engine: AsyncEngine, bounds: Bounds) -> None:
        self._engine = engine
        self._bounds = bounds
        self._asked: Gathered[UUID, Place] = Gathered(self._ask)

    async def of(self, run_id: UUID) -> Place | None:
        """The place of a run that was not begun; None when it is not in line."""
        return await self._asked.of(run_id)

    async def _ask(self, run_ids: Sequence[UUID]) -> Mapping[UUID, Place]:
        async with self._engine.connect() as connection:
            return await queue.places(connection, run_ids, self._bounds)
