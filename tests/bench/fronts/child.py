"""A process that is given orders: a line of JSON each, answered by a line of JSON."""

import asyncio
import json
import os
import resource
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Self

import uvloop

from tests.bench.log.child import Child

Orders = Mapping[str, Callable[..., Awaitable[Any]]]
LINE_BYTES_MAX = 2**24


class Ordered(Child):
    """The parent's side of such a process."""

    @classmethod
    async def of(cls, module: str, given: Mapping[str, Any], complaints: Path) -> Self:
        return await cls.start(module, json.dumps(given), complaints)

    async def order(self, name: str, **how: Any) -> Any:
        return (await self._ask({"do": name, **how}))["done"]


def obey(orders: Callable[[dict[str, Any]], Orders]) -> None:
    """The whole life of the process: it ends when nobody orders any more."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints must not be taken for an answer
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

    async def live() -> None:
        known = orders(json.loads(sys.argv[1]))
        lines = asyncio.StreamReader(limit=LINE_BYTES_MAX)
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
        print(json.dumps({"ready": True}), file=answers)
        while line := await lines.readline():
            asked = json.loads(line)
            print(json.dumps({"done": await known[asked.pop("do")](**asked)}), file=answers)
        if close := known.get("close"):
            await close()

    uvloop.run(live())
