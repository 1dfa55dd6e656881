"""Where runs stand, as the log says it now, for all requests of one moment in one question.

Nothing is remembered from one question to the next but when a run was last seen to move: an answer is what the log held
after the request came, whichever process wrote it. So whoever has just cancelled a run, through this process or another
one, is never told afterwards that nothing has changed.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from api.gathering import Gathered, Held
from eventstore.arrays import Uuids
from eventstore.catalogue import RunRow
from eventstore.sql import hot_rows

MOVES_MAX: Final = 10_000


class Standing(NamedTuple):
    """A run, and the chain hash at the end of its log."""

    run: RunRow
    chain: bytes


class Standings:
    """Where runs stand, and for how long each has stood there as far as this process has seen."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._held = Held(engine)
        self._asked: Gathered[UUID, Standing] = Gathered(self._ask)
        self._moves: OrderedDict[UUID, tuple[int, float]] = OrderedDict()

    async def of(self, run_id: UUID) -> Standing | None:
        """Where this run stands; None when there is no such run."""
        return await self._asked.of(run_id)

    def silent_s(self, run: RunRow) -> float:
        """How long the run has said nothing; 0 when we see it for the first time."""
        now, before = monotonic(), self._moves.get(run.run_id)
        if before is not None and before[0] == run.seq:
            return now - before[1]
        self._moves[run.run_id] = (run.seq, now)
        self._moves.move_to_end(run.run_id)
        if len(self._moves) > MOVES_MAX:
            self._moves.popitem(last=False)
        return 0.0

    async def close(self) -> None:
        """Let go of the connection."""
        await self._asked.close()
        await self._held.close()

    async def _ask(self, run_ids: Sequence[UUID]) -> Mapping[UUID, Standing]:
        asked = {"runs": Uuids.of(run_ids)}
        found = await self._held.ask(lambda connection: hot_rows(connection, "standings", asked))
        return {row[0]: Standing(RunRow(*row[:8]), row[8]) for row in found}
