"""One serving API for all tests of a module, and runs behind it that the test writes."""

from collections.abc import AsyncIterator

import pytest_asyncio
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from ops.services import Endpoints
from tests.contract.runs import Stage
from tests.serving import register, serving


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stage(
    database_url: str, services: Endpoints, api_engine: AsyncEngine, worker_engine: AsyncEngine, redis: Redis
) -> AsyncIterator[Stage]:
    await register(worker_engine)
    async with serving(database_url, services.redis_url, keepalive_s=0.2, poll_wait_s_max=5) as api:
        yield Stage(api, api_engine, worker_engine, redis)
