"""The checks of a validation: asked in a thread, because what an author asks there may never come to an end."""

import asyncio
from collections.abc import Sequence
from typing import Any

from eventstore.domain import events
from worker.declare import Check
from worker.threads import in_thread, within
from worker.work import Work


async def outcomes_of(work: Work, checks: Sequence[Check], value: Any) -> list[events.CheckOutcome]:
    """How each check went, in their order. All of them together may take as long as a step; then the run ends, for
    what could be said of a check that never answered?"""

    def ask() -> list[events.CheckOutcome]:
        return [events.CheckOutcome(name=check.name, passed=check.holds(value)) for check in checks]

    doing = asyncio.ensure_future(in_thread(ask))
    if not await within(doing, work.limits.step_s, 0.0):
        raise work.exhausted("step_s")
    return doing.result()
