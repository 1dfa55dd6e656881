"""The page about clients is true: each of its programs runs as it stands, and what it names exists."""

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

import runwire
from eventstore.domain.events import Progress
from ops.services import Endpoints
from runwire import AsyncClient
from tests.house import ROOT
from tests.serving import DEADLINE_S, Api, Writer, register, serving
from tests.writing import result, started, token

GUIDE = (ROOT / "docs/clients.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"^```python\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
MILESTONE = Progress(state="ready", label="Ready for review", index=1, total=1, key="ready")
SAYS = [
    ["now: Ready for review", "draft: Hello", "final: {'ok': True}"],
    ["{'ok': True}"],
    ["3 token", "6 result"],
    ["4 progress", "6 result"],
    ["'contract_review'", "queued 1", "stopping", "'Mine'", "moved-on", "422 /input", "lacks text"],
    ["1 accepted", "6 result {'status': 'complete'"],
]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def api(database_url: str, services: Endpoints, worker_engine: AsyncEngine) -> AsyncIterator[Api]:
    await register(worker_engine)
    async with serving(database_url, services.redis_url, keepalive_s=0.2, retry_ms=10) as api:
        yield api


async def carry_all(api: Api, worker: AsyncEngine, redis: Redis) -> None:
    """Do a worker's part for every run that is not about to be stopped."""
    carried: set[str] = set()
    async with AsyncClient(api.address, api.key()) as client:
        while True:
            async for run in client.runs(50, status="queued"):
                if run["id"] not in carried and run["title"] != "Mine":
                    carried.add(run["id"])
                    writer = Writer(worker, UUID(run["id"]), redis)
                    await writer.append(started(), token("Hello"))
                    await writer.append(MILESTONE, token("world"))
                    await writer.append(result())
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(("program", "says"), list(zip(PROGRAMS, SAYS, strict=True)), ids=list(map(str, range(1, 7))))
async def test_a_program_of_the_page_runs_as_it_stands(
    api: Api, worker_engine: AsyncEngine, redis: Redis, program: str, says: list[str]
) -> None:
    program = program.replace('"http://127.0.0.1:8080", "rw_…"', f'"{api.address}", "{api.key()}"')
    environ = {**os.environ, "RUNWIRE_URL": api.address, "RUNWIRE_KEY": api.key(), "PYTHONPATH": str(ROOT)}
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, env=environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    carrying: asyncio.Task[Any] = asyncio.create_task(carry_all(api, worker_engine, redis))
    talking = asyncio.create_task(child.communicate())
    await asyncio.wait({carrying, talking}, timeout=DEADLINE_S, return_when=asyncio.FIRST_COMPLETED)
    carrying.cancel()
    if not talking.done():
        child.kill()
    with suppress(asyncio.CancelledError):
        await carrying
    out, _ = await talking
    said = out.decode()
    assert child.returncode == 0, said
    assert [one for one in says if one not in said] == [], said


def test_every_name_that_the_page_gives_to_the_client_is_one_of_its_names() -> None:
    named = re.findall(
        r"`([A-Z]\w+(?:Event|Refused|Many|Authenticated|Found|Allowed)|Invalid|Conflict|Problem)`", GUIDE
    )
    assert len(named) > 8
    assert [name for name in named if not hasattr(runwire, name)] == []
    fields = re.findall(r"`(\w+_s)`", GUIDE)
    known = {*runwire.Pace.__dataclass_fields__, "retry_after_s"}
    assert [name for name in fields if name not in known] == []
