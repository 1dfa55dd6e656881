"""An author's place for the length of one test: connections, a scripted model, and a worker that runs go through."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from uuid import uuid4

from sqlalchemy import text

from eventstore import wakeups
from eventstore.database import async_engine
from ops.services import Endpoints
from runwire_testing.author import Author
from runwire_testing.bench import LEASE_S, WatchedRecorder, Workbench, clock_us
from runwire_testing.clock import Clock
from runwire_testing.model import ScriptedModel
from worker import workflows as ours
from worker.declare import Workflow
from worker.llm.chat import create_chat_model
from worker.llm.scripted_chat import Pace
from worker.llm.scripted_rules import load_rules
from worker.llm.scripted_server import ScriptedServer
from worker.llm.settings import ModelSettings
from worker.loading import load_workflow
from worker.registry import WORKFLOWS


@asynccontextmanager
async def authoring(servers: Endpoints, folders: Sequence[Path]) -> AsyncIterator[Author]:
    """An author's place on these servers: the workflows that come along, and those of the folders."""
    known: dict[str, Workflow] = {**WORKFLOWS, **{each.name: each for each in map(load_workflow, folders)}}
    scripts = load_rules([*folders, Path(ours.__file__).parent])
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(ScriptedServer(pace=Pace(0)))
        # Not read from the environment, where a provider's key may stand: defaults, and the scripted server's address.
        chat = create_chat_model(ModelSettings.model_construct(scripted_url=server.url))
        stack.push_async_callback(chat.aclose)
        bench = await _bench(stack, servers, known)
        yield Author(bench, ScriptedModel(server, scripts), chat)


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
    recorder = WatchedRecorder(engines["worker"], redis, lease_s=LEASE_S, heartbeat_s=1.0, clock_us=clock_us)
    recording = asyncio.create_task(recorder.run())
    stack.push_async_callback(_end, recording)
    clock = Clock(engines["owner"])
    stack.push_async_callback(clock.back)
    bench = Workbench(engines["worker"], engines["api"], redis, tenant, known, recorder, clock)
    stack.push_async_callback(bench.close)
    await bench.register()
    return bench


async def _end(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
