"""A process that follows runs as the API does, through `Tails`, and journals each event that it was given.

Now and then it lets go of a tail and comes back with its cursor, as a client that reconnects. When it is told to stop
it looks for runs once more, follows all of them to their ends, and ends.
"""

import asyncio
import random
import signal
import sys
from uuid import UUID

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from eventstore import wakeups
from eventstore.database import async_engine
from eventstore.domain.lifecycle import TERMINAL_TYPES
from eventstore.tail import Tails
from tests.faults.journal import Journal, Kind, digest, stretches
from tests.faults.orders import AWAY_S, LOG_AWAY, ReaderOrder

LOOK_S = 0.3
OPEN_MAX = 400  # runs followed at a time
STAY_PAGES = 40  # pages until it lets go, on average
RUNS = text("SELECT run_id FROM runwire.run")

logger = structlog.get_logger(__name__)


class Reader:
    """The runs that one process follows."""

    def __init__(self, order: ReaderOrder, engine: AsyncEngine, tails: Tails) -> None:
        self._order = order
        self._engine = engine
        self._tails = tails
        self._journal = Journal(order.journals, order.name)
        self._known: set[UUID] = set()
        self._open = asyncio.Semaphore(OPEN_MAX)
        self._random = random.Random(f"{order.seed} {order.name}")
        self.last = asyncio.Event()  # look for runs once more, then no more

    async def run(self) -> None:
        """Follow all runs to their ends; returns after the last look."""
        feeding = asyncio.create_task(self._tails.run())
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._look(tasks, feeding))
        finally:
            feeding.cancel()

    async def _look(self, tasks: asyncio.TaskGroup, feeding: "asyncio.Task[None]") -> None:
        while True:
            last = self.last.is_set()  # asked before the look: everything that was there then is seen
            assert not feeding.done(), feeding
            try:
                async with self._engine.connect() as connection:
                    found = {row[0] for row in await connection.execute(RUNS)}
            except LOG_AWAY:
                await asyncio.sleep(AWAY_S)
                continue
            for run_id in sorted(found - self._known):
                self._known.add(run_id)
                if self._order.follows(run_id):
                    tasks.create_task(self._follow(run_id))
            if last:
                return
            await asyncio.sleep(LOOK_S)

    async def _follow(self, run_id: UUID) -> None:
        cursor, ended = 0, False
        async with self._open:
            while not ended:
                cursor, ended = await self._stay(run_id, cursor)

    async def _stay(self, run_id: UUID, cursor: int) -> tuple[int, bool]:
        """Read on from the cursor, for a while; answers the new cursor, and whether the run has ended."""
        with self._tails.follow(run_id) as tail:
            for _ in range(self._random.randint(1, 2 * STAY_PAGES)):
                try:
                    page = await tail.page(cursor)
                except LOG_AWAY:
                    await asyncio.sleep(AWAY_S)
                    continue
                if not page:
                    await tail.moved(cursor, 1.0)
                    continue
                seen = [(entry.seq, digest(entry.recorded.body)) for entry in page]
                for first, digests in stretches(seen):
                    self._journal.note(Kind.SEEN, run_id, 0, first, digests)
                cursor = page[-1].seq
                if page[-1].recorded.type in TERMINAL_TYPES:
                    return cursor, True
        return cursor, False


async def main(order: ReaderOrder) -> None:
    engine = async_engine(order.database_url, application="faults-reader", role="runwire_api", pool_size=5)
    redis = wakeups.connect(order.redis_url)
    reader = Reader(order, engine, Tails(engine, redis))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, reader.last.set)
    logger.info("reading", name=order.name)
    await reader.run()


if __name__ == "__main__":
    asyncio.run(main(ReaderOrder.model_validate_json(sys.argv[1])))
