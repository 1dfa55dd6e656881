"""How many workers live, by the leases that they hold: a worker that calls a model holds one."""

import time
from typing import Final

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from eventstore import log

FRESH_S: Final = 1.0


class Neighbours:
    """Asked for at most once a second; the last answer counts while the log is away."""

    def __init__(self, engine: AsyncEngine, owner: str) -> None:
        self._engine = engine
        self._owner = owner
        self._known: int | None = None
        self._until = 0.0

    async def live(self) -> int | None:
        """This one and all others; None while it was never known."""
        if time.monotonic() >= self._until:
            self._until = time.monotonic() + FRESH_S
            try:
                async with self._engine.connect() as connection:
                    self._known = len(await log.owners(connection) | {self._owner})
            except (SQLAlchemyError, OSError, TimeoutError):
                pass
        return self._known
