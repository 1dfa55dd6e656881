"""One writer process of ours."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

from tests.bench.log.appending import Appender, appender
from tests.bench.log.child import serve
from tests.bench.log.report import Tally


class Writer:
    """Appends in groups of one shape."""

    def __init__(self, database_url: str) -> None:
        self._database_url = database_url
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        self._appender: Appender | None = None
        self._events = 0

    def prepare(self, how: dict[str, Any]) -> None:
        self._events = how["events"]
        self._runner.run(self._open(how["runs"]))

    def go(self, seconds: float) -> Tally:
        assert self._appender is not None
        return self._runner.run(self._appender.calls(self._events, seconds=seconds))

    def close(self) -> None:
        self._runner.run(self._stack.aclose())
        self._runner.close()

    async def _open(self, runs: int) -> None:
        if self._appender is None:
            self._appender = await self._stack.enter_async_context(appender(self._database_url))
        await self._appender.open(runs)


if __name__ == "__main__":
    serve(Writer)
