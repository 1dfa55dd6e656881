"""The fixtures for authors: `pytest_plugins = ("runwire_testing.plugin",)` in a test module brings `author`."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from uuid import uuid4

import pytest
import pytest_asyncio
from sqlalchemy import text

from eventstore import wakeups
from eventstore.database import async_engine
from eventstore.recorder import Recorder
from eventstore.workflow_folders import CODE, SETTING, workflow_folders
from ops.services import Endpoints
from runwire_testing.author import Author
from runwire_testing.bench import LEASE_S, Workbench, clock_us
from runwire_testing.model import ScriptedModel
from runwire_testing.servers import servers_of_our_own
from worker import workflows as ours
from worker.declare import Workflow
from worker.llm.chat import create_chat_model
from worker.llm.scripted_chat import Pace
from worker.llm.scripted_rules import load_rules
from worker.llm.scripted_server import ScriptedServer
from worker.llm.settings import ModelSettings
from worker.loading import load_workflow
from worker.registry import WORKFLOWS


@pytest.fixture(scope="session")
def author_servers() -> Iterator[Endpoints]:
    """PostgreSQL and Valkey for this session."""
    with servers_of_our_own() as endpoints:
        yield endpoints


@pytest.fixture
def author_folders(request: pytest.FixtureRequest) -> list[Path]:
    """The workflows that a test may start besides those that come along: its own, and those of the setting."""
    beside = [folder for folder in request.path.parents if (folder / CODE).is_file()]
    named = workflow_folders(os.environ.get(SETTING, ""))
    return [*beside[:1], *(folder for folder in named if folder not in beside)]


@pytest_asyncio.fixture
async def author(author_servers: Endpoints, author_folders: list[Path]) -> AsyncIterator[Author]:
    """Runs on real servers and a scripted model. No provider can be reached: its key and address are not read."""
    known: dict[str, Workflow] = {**WORKFLOWS, **{each.name: each for each in map(load_workflow, author_folders)}}
    scripts = load_rules([*author_folders, Path(ours.__file__).parent])
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(ScriptedServer(pace=Pace(0)))
        # Not read from the environment, where a provider's key may stand: defaults, and the scripted server's address.
        chat = create_chat_model(ModelSettings.model_construct(scripted_url=server.url))
        stack.push_async_callback(chat.aclose)
        bench = await _bench(stack, author_servers, known)
        made = Author(bench, ScriptedModel(server, scripts), chat)
        yield made
        await made.close()


async def _bench(stack: AsyncExitStack, servers: Endpoints, known: dict[str, Workflow]) -> Workbench:
    engines = {}
    for name, role in (("worker", "runwire_worker"), ("api", "runwire_api"), ("owner", None)):
        engines[name] = async_engine(servers.database_url, application="author-tests", role=role, pool_size=5)
        stack.push_async_callback(engines[name].dispose)
    redis = wakeups.connect(servers.redis_url)
    stack.push_async_callback(redis.aclose)
    tenant = uuid4()
    async with engines["owner"].begin() as connection:
        statement = text("INSERT INTO runwire.tenant VALUES (:id, :name)")
        await connection.execute(statement, {"id": tenant, "name": f"tests {tenant}"})
    recorder = Recorder(engines["worker"], redis, lease_s=LEASE_S, heartbeat_s=1.0, clock_us=clock_us)
    recording = asyncio.create_task(recorder.run())
    stack.push_async_callback(_end, recording)
    return Workbench(engines["worker"], engines["api"], redis, tenant, known, recorder)


async def _end(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
