"""Who reads through this process, told to the log every second, for the runs that stop when nobody does.

A stream and a request that waits read for as long as they are open; any other request for the moment in which it was
answered. Runs that do not ask for readers are told of once and then forgotten about.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from time import monotonic
from typing import Final
from uuid import UUID, uuid4

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from eventstore import readers

TELL_S: Final = 2.0  # to tell it; a reader's leave is then told with the next one
UNASKED_MAX: Final = 10_000

logger = structlog.get_logger(__name__)


class Readers:
    """The readers of one process."""

    def __init__(
        self, engine: AsyncEngine, *, every_s: float, gone_s: float, clock: Callable[[], float] = monotonic
    ) -> None:
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")  # one statement, told every second
        self._every_s = every_s
        self._gone_s = gone_s
        self._clock = clock
        self._process = uuid4()
        self._open: Counter[UUID] = Counter()
        self._left: dict[UUID, float] = {}  # when a run was last read by somebody who no longer does
        self._unasked: set[UUID] = set()  # runs that do not ask for readers, and never will
        self._known: tuple[datetime, float] | None = None  # the database's clock, and ours when we heard of it

    @contextmanager
    def reading(self, run_id: UUID) -> Iterator[None]:
        """Somebody reads this run for as long as the block lasts."""
        self._open[run_id] += 1
        try:
            yield
        finally:
            self._open[run_id] -= 1
            if not self._open[run_id]:
                del self._open[run_id]
            self.seen(run_id)

    def seen(self, run_id: UUID) -> None:
        """Somebody has read this run just now."""
        if run_id not in self._unasked:
            self._left[run_id] = self._clock()

    def unasked(self, run_id: UUID) -> bool:
        """Whether we know that this run does not stop when nobody reads it."""
        return run_id in self._unasked

    async def run(self) -> None:
        """Tell of them, for ever. What could not be told is told later; until then nobody is judged by our silence."""
        while True:
            await self.tell()
            await asyncio.sleep(self._every_s)

    async def tell(self, *, leaves: bool = False) -> bool:
        """Tell of them now; False when the log is away."""
        now, open_now = self._clock(), set(self._open)
        told = {run_id: now - at for run_id, at in self._left.items()}
        told |= dict.fromkeys(open_now - self._unasked, 0.0)
        known = None
        if self._known is not None:
            at, heard = self._known
            known = at + timedelta(seconds=now - heard)
        try:
            async with asyncio.timeout(TELL_S), self._engine.connect() as connection:
                said = await readers.report(
                    connection, self._process, told, known=known, gone_s=self._gone_s, leaves=leaves
                )
        except (SQLAlchemyError, OSError, TimeoutError) as fault:
            logger.debug("readers are told of later", fault=type(fault).__name__)
            return False
        self._known = said.at, self._clock()
        self._left = {run_id: at for run_id, at in self._left.items() if at > now}
        if len(self._unasked) > UNASKED_MAX:
            self._unasked.clear()
        self._unasked |= told.keys() - said.runs
        return True
