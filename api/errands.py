"""What a request sets off and does not wait for: wake-ups and hand-overs, which may be lost without harm."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

logger = structlog.get_logger(__name__)


class Errands:
    """A bounded number of small tasks. One too many is dropped: the sweep hands over what was forgotten."""

    def __init__(self, errands_max: int) -> None:
        self._errands_max = errands_max
        self._under_way: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._under_way)

    def run(self, errand: Coroutine[Any, Any, Any]) -> None:
        """Set it off."""
        if len(self._under_way) >= self._errands_max:
            errand.close()
            logger.warning("too many errands under way: one dropped", errands_max=self._errands_max)
            return
        task = asyncio.create_task(errand)
        self._under_way.add(task)
        task.add_done_callback(self._done)

    async def finish(self, timeout_s: float) -> None:
        """Wait for those under way, this long at most."""
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=timeout_s)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled() and (fault := task.exception()) is not None:
            logger.error("an errand failed", fault=type(fault).__name__)
