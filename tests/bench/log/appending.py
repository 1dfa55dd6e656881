"""A writer of ours: so many runs, so many events for each in one call, through the same function as a worker."""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from typing import Final
from unittest.mock import patch
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from eventstore import catalogue, log
from eventstore.database import async_engine
from eventstore.domain import chain
from eventstore.domain.events import new_event
from eventstore.domain.record import NewEvent
from tests.bench.log.report import Tally
from tests.writing import NOW_US, new_tenant, started, submission, token

LEASE_S: Final = 3600.0
# What every contestant stores: one piece of draft text, some 90 bytes as JSON.
PIECE: Final = new_event(token("the words of a draft, twenty-four"), NOW_US)


def _nothing(_events: Sequence[NewEvent]) -> bytes:
    return bytes(32)


class Appender:
    """Some claimed runs and one connection. Nothing but the call is on the clock."""

    def __init__(self, api: AsyncEngine, connection: AsyncConnection, tenant: UUID, *, chained: bool = True) -> None:
        self._api = api
        self._chained = chained
        self.connection = connection
        self.tenant = tenant
        self.runs: list[UUID] = []
        self._batch_no = 0

    async def open(self, runs: int) -> None:
        """Go on with new runs."""
        submissions = [submission(self.tenant) for _ in range(runs)]
        async with self._api.begin() as connection:
            for asked in submissions:
                await catalogue.open_run(connection, asked)
        self.runs = [asked.run_id for asked in submissions]
        for run_id in self.runs:
            await log.claim(self.connection, run_id, "bench", LEASE_S)
        first = new_event(started(), NOW_US)
        self._batch_no = 1
        self._stored(await log.append(self.connection, [log.Batch(run, 1, 1, [first]) for run in self.runs], LEASE_S))

    async def call(self, events: int) -> float:
        """One call for all runs; the seconds that it took."""
        self._batch_no += 1
        batches = [log.Batch(run, 1, self._batch_no, [PIECE] * events) for run in self.runs]
        with nullcontext() if self._chained else patch.object(chain, "listing", _nothing):
            began = time.perf_counter()
            answers = await log.append(self.connection, batches, LEASE_S)
            took = time.perf_counter() - began
        self._stored(answers)
        return took

    async def calls(self, events: int, *, seconds: float | None = None, number: int | None = None) -> Tally:
        """Calls one after the other until they took so long, or for this number of times."""
        assert (seconds is None) != (number is None)
        took: list[float] = []
        spent = 0.0
        while len(took) < number if number is not None else spent < (seconds or 0):
            took.append(await self.call(events))
            spent += took[-1]
        return Tally(len(took) * events * len(self.runs), spent, tuple(took))

    def _stored(self, answers: Sequence[log.Answer]) -> None:
        assert {answer.verdict for answer in answers} == {"ok"}


@asynccontextmanager
async def appender(database_url: str, *, chained: bool = True) -> AsyncIterator[Appender]:
    """A writer in the roles that the processes have; it has no runs yet. Without its chain it lists nothing."""
    owner = async_engine(database_url, application="bench", role=None, pool_size=1)
    api = async_engine(database_url, application="bench-api", role="runwire_api", pool_size=1)
    worker = async_engine(database_url, application="bench-worker", role="runwire_worker", pool_size=1)
    try:
        async with worker.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            yield Appender(api, connection, await new_tenant(owner), chained=chained)
    finally:
        for engine in (owner, api, worker):
            await engine.dispose()
