"""How tests wait: for a condition that something recorded, and never longer than a bound."""

import asyncio
from collections.abc import Awaitable, Callable

BOUND_S = 10.0


async def until(condition: Callable[[], bool | Awaitable[bool]], bound_s: float = BOUND_S) -> None:
    """Look again and again, leaving the loop to others in between, until the condition holds."""
    async with asyncio.timeout(bound_s):
        while True:
            told = condition()
            if told if isinstance(told, bool) else await told:
                return
            await asyncio.sleep(0)
