"""Which worker carries what, with real worker processes: deploys, versions that are gone, deaths, and Redis away."""

import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from uuid import UUID

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from eventstore import queue
from eventstore.domain.record import Fact
from eventstore.queue import Bounds, Taker
from eventstore.vitals import read_vitals
from ops.scaffold import new_workflow
from ops.services import Endpoints
from tests.running import Runs, Worker, start_worker
from tests.serving import NOWHERE
from tests.writing import new_tenant
from worker.declare import Workflow
from worker.loading import load_workflow

LEGS = '''
"""What the runners do outside of the run."""

import asyncio
import os
from pathlib import Path


async def say(word: str) -> str:
    return word


async def wait_at(gate: str) -> bool:
    while not Path(gate).exists():
        await asyncio.sleep(0.02)
    return True


async def die(gate: str) -> None:
    while not Path(gate + ".die").exists():
        await asyncio.sleep(0.02)
    os._exit(9)
'''
RELAY = '''
"""Two legs, with a gate between them."""

from pydantic import BaseModel, ConfigDict

from worker.author import Check, Run, RunView, workflow

from .legs import die, say, wait_at


class Baton(BaseModel):
    model_config = ConfigDict(extra="forbid")
    gate: str
    poison: bool = False
    effect: bool = False


class Legs(BaseModel):
    model_config = ConfigDict(extra="forbid")
    first: str
    second: str
    version: int


def best_partial(view: RunView) -> None:
    return None


@workflow(
    "relay",
    version=VERSION,
    resumes=RESUMES,
    on_gap="restart",
    version_wait_s=1.5,
    title="Relay",
    summary="Runs two legs.",
    input=Baton,
    output=Legs,
    milestones=("Running",),
    partial=best_partial,
)
async def relay(run: Run, baton: Baton) -> Legs:
    await run.milestone("Running")
    first = await run.step("first", say, f"first WORD {run.version}", returns=str)
    if baton.effect:
        await run.step("send", say, "sent", effect=True, returns=str)
    if baton.poison:
        await run.step("die", die, baton.gate)
    await run.step("gate", wait_at, baton.gate, returns=bool)
    second = await run.step("second", say, "second WORD", returns=str)
    made = Legs(first=first, second=second, version=run.version)
    return await run.validate(made, [Check("both ran", lambda legs: bool(legs.second))])
'''
Start = Callable[..., Awaitable[Worker]]


def release(parent: Path, version: int, resumes: tuple[int, ...], word: str) -> Path:
    """The workflow's folder as one release has it."""
    parent.mkdir()
    folder = new_workflow("relay", parent)
    for name, source in (("workflow.py", RELAY), ("legs.py", LEGS)):
        told = source.replace("VERSION", str(version)).replace("RESUMES", str(resumes)).replace("WORD", word)
        (folder / name).write_text(told.lstrip())
    for sample in (folder / "samples").glob("*.json"):
        sample.write_text('{"gate": "/"}')
    return folder


@pytest_asyncio.fixture(loop_scope="session")
async def start(services: Endpoints, database_url: str, tmp_path: Path) -> AsyncIterator[Start]:
    """Starts workers; none of them outlives its test."""
    workers: list[Worker] = []

    async def begin(*folders: Path, **settings: str) -> Worker:
        environ = {
            "RUNWIRE_DATABASE_URL": database_url,
            "RUNWIRE_REDIS_URL": services.redis_url,
            "RUNWIRE_WORKFLOWS": os.pathsep.join(map(str, folders)),
            "RUNWIRE_SCRIPTED_URL": "http://127.0.0.1:1/v1",  # nobody speaks here
            "RUNWIRE_LEASE_S": "2",
            "RUNWIRE_HEARTBEAT_S": "0.5",
            "RUNWIRE_SWEEP_S": "0.2",
            **settings,
        }
        workers.append(await start_worker(environ, tmp_path / "worker.log"))
        return workers[-1]

    yield begin
    for worker in workers:
        await worker.end(signal.SIGKILL)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def runs(api_engine: AsyncEngine, owner_engine: AsyncEngine) -> Runs:
    return Runs(api_engine, await new_tenant(owner_engine))


async def at_gate(runs: Runs, run_id: UUID) -> None:
    await runs.has(run_id, "step", name="first")


def starts(facts: list[Fact]) -> list[int]:
    return [fact.data["workflow_version"] for fact in facts if fact.type == "started"]


async def test_runs_of_an_old_release_go_on_under_one_that_covers_it_and_wait_alarm_and_end_without(
    runs: Runs, start: Start, tmp_path: Path, owner_engine: AsyncEngine
) -> None:
    old: Workflow = load_workflow(release(tmp_path / "v1", 1, (), "one"))
    covering = load_workflow(release(tmp_path / "v2", 2, (1,), "two"))
    alone = load_workflow(release(tmp_path / "v3", 3, (), "three"))
    assert [flow.covers for flow in (old, covering, alone)] == [(1,), (1, 2), (3,)]
    gate = tmp_path / "gate"
    first = await start(old.folder)
    crossing = await runs.submit(old, {"gate": str(gate)})
    await at_gate(runs, crossing)
    second = await start(covering.folder)
    assert await first.end() == 0
    await runs.has(crossing, "started", workflow_version=2)
    gate.touch()
    facts = await runs.ended(crossing)
    assert starts(facts) == [1, 2]
    assert facts[-1].data["output"] == {"first": "first one 1", "second": "second two", "version": 1}
    assert facts[-1].data["counts"]["changed_calls"] == 1
    gate.unlink()
    harmless = await runs.submit(old, {"gate": str(gate)})
    did_something = await runs.submit(old, {"gate": str(gate), "effect": True})
    for run_id in (harmless, did_something):
        await at_gate(runs, run_id)
    await runs.has(did_something, "step", name="send", status="ok")
    assert await second.end() == 0
    async with owner_engine.begin() as connection:  # what would be so after a while
        await connection.execute(text("UPDATE runwire.coverage SET seen_at = seen_at - interval '1 minute'"))
    async with runs.engine.connect() as connection:
        places = await queue.places(connection, [harmless, did_something], Bounds(9, 9))
        vitals = await read_vitals(connection)
    assert [place.reason for place in places.values()] == ["no_worker"] * 2
    assert (vitals.uncovered_runs, vitals.uncovered_age_s > 0) == (2, True)
    gate.touch()
    await start(alone.folder)
    facts = await runs.ended(did_something)
    assert (facts[-1].type, facts[-1].data["code"]) == ("error", "version_gone")
    facts = await runs.ended(harmless)
    assert starts(facts) == [2, 3]
    assert facts[-1].data["output"] == {"first": "first three 3", "second": "second three", "version": 3}
    [anew] = [fact for fact in facts if fact.type == "retry" and fact.data.get("version")]
    assert (anew.data["version"], anew.data["superseded"]) == (3, [[2, anew.seq - 1]])
    assert (await runs.state(harmless)).status == "completed"


async def test_a_run_that_kills_its_worker_ends_after_three_and_its_neighbours_end_well(
    runs: Runs, start: Start, tmp_path: Path
) -> None:
    flow = load_workflow(release(tmp_path / "v1", 1, (), "one"))
    gate = tmp_path / "gate"
    poison = await runs.submit(flow, {"gate": str(gate), "poison": True})
    neighbours = [await runs.submit(flow, {"gate": str(gate)}) for _ in range(3)]
    death = tmp_path / "gate.die"
    patient = {"RUNWIRE_LEASE_S": "5"}  # on a busy machine a worker must not lose what it carries: that would be a mark
    for attempt in (1, 2):  # as a supervisor does
        worker = await start(flow.folder, **patient)
        for run_id in (poison, *neighbours):  # all stored the same with each worker: then the oldest is tried first
            await runs.began(run_id, attempt)
            await at_gate(runs, run_id)
        death.touch()
        assert await worker.process.wait() == 9
        death.unlink()
    death.touch()
    assert await (await start(flow.folder, **patient)).process.wait() == 9
    survivor = await start(flow.folder, **patient)
    gate.touch()  # as suspects they may be begun before it, and it waits for a worker that carries no other suspect
    for run_id in neighbours:
        assert (await runs.ended(run_id))[-1].type == "result"
    facts = await runs.ended(poison)
    assert (facts[-1].type, facts[-1].data["code"]) == ("error", "attempts_exhausted")
    assert len(starts(facts)) == 3
    assert await survivor.end() == 0


async def test_without_redis_what_silent_workers_left_is_taken_up_and_what_must_end_ends(
    runs: Runs, start: Start, tmp_path: Path, worker_engine: AsyncEngine
) -> None:
    order = {"pieces": 1, "rate_per_s": 0, "tool_calls": 0, "findings": 0}
    left = [await runs.submit("drill", order) for _ in range(60)]
    gone = Taker("gone", 0.001, Bounds(1_000, 1_000), [("drill", 1)])
    async with worker_engine.begin() as connection:
        assert len((await queue.take(connection, gone, 100)).runs) == 60
    flow = load_workflow(release(tmp_path / "v9", 9, (), "nine"))
    stopped = await runs.submit(flow, {"gate": "/"})  # nobody knows this workflow
    await runs.cancel(stopped)
    waited = await runs.submit(flow, {"gate": "/"})
    worker = await start(RUNWIRE_REDIS_URL=NOWHERE, RUNWIRE_RUNS_MAX="20", RUNWIRE_QUEUE_WAIT_S="1")
    for run_id in left:
        assert (await runs.ended(run_id))[-1].type == "result"
    assert (await runs.ended(stopped))[-1].type == "cancelled"
    facts = await runs.ended(waited)
    assert (facts[-1].type, facts[-1].data["code"]) == ("error", "limit_queue_wait")
    assert await worker.end() == 0


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"resumes": (3,)}, "resumes names"), ({"runs_max": 0}, "runs_max"), ({"version_wait_s": 0.0}, "version_wait_s")],
)
def test_a_declaration_that_makes_no_sense_is_refused(wrong: dict[str, object], said: str, tmp_path: Path) -> None:
    folder = release(tmp_path / "v2", 2, (), "two")
    code = (folder / "workflow.py").read_text()
    for name, value in wrong.items():
        lines = [line for line in code.split("\n") if not line.startswith(f"    {name}=")]
        code = "\n".join(lines).replace('    title="Relay",', f'    title="Relay",\n    {name}={value!r},')
    (folder / "workflow.py").write_text(code)
    with pytest.raises(ValueError, match=said):
        load_workflow(folder)
