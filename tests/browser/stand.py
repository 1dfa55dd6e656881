"""A real API with a run that the test writes, and what stands between it and the clients; it may be started again."""

import json
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from eventstore.domain.events import Body
from tests.browser.between import Between
from tests.contract.runs import Stage
from tests.serving import Api, Writer, serving
from tests.writing import events_of, started, token

SETTINGS = {"keepalive_s": 0.2, "retry_ms": 50, "poll_wait_s_max": 5}


@dataclass
class Stand:
    """One API behind one proxy, and the run that is followed."""

    database_url: str
    redis_url: str
    worker: AsyncEngine
    api_engine: AsyncEngine
    redis: Redis
    between: Between
    api: Api = field(init=False)
    writer: Writer = field(init=False)
    _serving: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def start(self) -> None:
        """Serve, on another port than before."""
        self.api = await self._serving.enter_async_context(serving(self.database_url, self.redis_url, **SETTINGS))
        self.between.target = self.api.address

    async def stop(self) -> None:
        """Stop as at a new release: streams end, and the proxy finds nobody."""
        await self._serving.aclose()

    async def new_run(self) -> str:
        """A run of ada's that has begun: two events and one piece of text."""
        self.writer = Writer(self.worker, await self.api.submit(), self.redis)
        await self.writer.append(started(), token("Clause 4.1"))
        self.between.opened_after.clear()
        self.between.polls.clear()
        return str(self.writer.run_id)

    async def write(self, *bodies: Body) -> int:
        return await self.writer.append(*(bodies or [token("more ")]))

    async def expected(self) -> list[dict[str, Any]]:
        """Every event of the run as ada is shown it."""
        stage = Stage(self.api, self.api_engine, self.worker, self.redis)
        return [json.loads(frame) for frame in await stage.expected(self.writer.run_id, "user")]

    async def stored(self) -> int:
        async with self.api_engine.connect() as connection:
            return len(await events_of(connection, self.writer.run_id))
