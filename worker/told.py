"""What the log tells of one run, as far as its owner has read: the facts, and the state that they fold to."""

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from eventstore import log
from eventstore.domain.record import Fact
from eventstore.domain.run import RunState, fold
from eventstore.run_writer import RunWriter


async def read_facts(engine: AsyncEngine, run_id: UUID, after: int = 0) -> list[Fact]:
    """The whole log of a run from a cursor on."""
    facts: list[Fact] = []
    while True:
        async with engine.connect() as connection:
            page = await log.read_after(connection, run_id, after)
        facts += [event.fact() for event in page.events]
        if not page.more:
            return facts
        after = page.events[-1].seq


class Told:
    """The log behind an owner. It is this owner's alone while nobody fences it."""

    def __init__(self, engine: AsyncEngine, writer: RunWriter) -> None:
        self.facts: list[Fact] = []
        self._engine = engine
        self._writer = writer
        self._folded = RunState()
        self._folded_to = 0

    async def read_on(self) -> list[Fact]:
        """What was stored since we last looked; answers all of it."""
        after = self.facts[-1].seq if self.facts else 0
        self.facts += await read_facts(self._engine, self._writer.run_id, after)
        return self.facts

    async def state(self) -> RunState:
        """The state after all that this owner has said."""
        await self._writer.flush()
        await self.read_on()
        self._folded = fold(self.facts[self._folded_to :], self._folded)
        self._folded_to = len(self.facts)
        return self._folded
