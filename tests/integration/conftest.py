"""What tests of workflows over the real log share."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.running import Runs
from tests.staging import Stage
from tests.writing import new_tenant


@pytest_asyncio.fixture(loop_scope="session")
async def stage(
    api_engine: AsyncEngine,
    worker_engine: AsyncEngine,
    owner_engine: AsyncEngine,
    redis: Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Stage]:
    made = Stage(Runs(api_engine, await new_tenant(owner_engine)), worker_engine, redis, monkeypatch)
    yield made
    await made.close()
