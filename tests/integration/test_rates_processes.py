"""Four worker processes under one token limit, and Redis killed among them: what the provider sees keeps to it."""

import asyncio
import os
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from textwrap import dedent

import orjson
import pytest
import pytest_asyncio
import redis as blocking
from sqlalchemy.ext.asyncio import AsyncEngine

from eventstore import wakeups
from eventstore.handoff import Handoff
from ops.services import Endpoints, Services
from tests.running import Runs, start_worker, until
from tests.writing import new_tenant
from worker.llm.model import ModelRequest
from worker.llm.room import tokens_of
from worker.llm.scripted_chat import Pace
from worker.llm.scripted_rules import parse_rules, words
from worker.llm.scripted_server import ScriptedServer
from worker.llm.scripted_wire import usage_of
from worker.loading import known_workflows
from worker.registry import WORKFLOWS
from worker.waiting import WAITING

ROOT = Path(__file__).resolve().parents[2]
WORKERS = 4
WINDOW_S = 2
CALLS = 12  # that one window has room for
PHASE_S = 4.0
PROMPT = "Task: say a few words. " + "Here is what they are about. " * 40
SAID = " ".join("word" for _ in range(40))
SCRIPT = [{"name": "words", "when": ["say a few words"], "say": SAID}]
SPEAKER = '''
    """Says the same, many times."""

    from pydantic import BaseModel, ConfigDict

    from worker.author import Run, RunLimits, workflow

    class Times(BaseModel):
        model_config = ConfigDict(frozen=True, extra="forbid")
        times: int

    async def say(run: Run, number: int) -> None:
        await run.model("say", [{{"role": "user", "content": {prompt!r}}}], section=str(number))

    @workflow("speaker", version=1, title="Speaker", summary="Says the same.", input=Times, output=Times,
              milestones=("Speaking",), partial=lambda view: None, limits=RunLimits(run_s=180, attempts_max=3))
    async def speaker(run: Run, wanted: Times) -> Times:
        await run.milestone("Speaking")
        await run.each(list(range(wanted.times)), say, key=str)
        await run.validate(wanted, [])
        return wanted
'''


@pytest.fixture(scope="module")
def own_redis(services: Endpoints) -> Iterator[Services]:
    """A Valkey that may be killed."""
    base = Path(tempfile.mkdtemp(prefix="runwire-rates-"))
    base.chmod(0o755)
    try:
        with Services(base / "data", database_url=services.database_url) as own:
            yield own
    finally:
        shutil.rmtree(base, ignore_errors=True)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def provider() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer(parse_rules(orjson.dumps(SCRIPT), source="here"), pace=Pace(0)) as server:
        yield server


def calls_at(provider: ScriptedServer) -> list[float]:
    return sorted(entry["opened_mono"] for entry in provider.journal.entries())


def most_within(calls: list[float], seconds: float) -> int:
    """How many calls the fullest window has."""
    return max((sum(begin <= at < begin + seconds for at in calls) for begin in calls), default=0)


async def past(moment: float) -> None:
    """Until this machine's clock is past it."""

    async def look() -> bool | None:
        return time.monotonic() >= moment or None

    await until(look, "a phase to be over")


async def test_one_token_limit_holds_for_four_processes_while_redis_is_killed_and_comes_back(
    own_redis: Services,
    provider: ScriptedServer,
    database_url: str,
    api_engine: AsyncEngine,
    owner_engine: AsyncEngine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "speaker"
    folder.mkdir()
    (folder / "workflow.py").write_text(dedent(SPEAKER).format(prompt=PROMPT))
    drill = (ROOT / "policies/drill.toml").read_text(encoding="utf-8")
    (folder / "policy.toml").write_text(drill.replace('"drill"', '"speaker"'))
    monkeypatch.setitem(WORKFLOWS, "speaker", known_workflows(str(folder))["speaker"])
    usage = usage_of(PROMPT, [{"content": word} for word in words(SAID)])
    reserved = tokens_of(ModelRequest("m", ({"role": "user", "content": PROMPT},)), usage["completion_tokens"])
    limit = CALLS * max(reserved, usage["total_tokens"])
    environ = {
        "RUNWIRE_DATABASE_URL": database_url,
        "RUNWIRE_REDIS_URL": own_redis.endpoints.redis_url,
        "RUNWIRE_SCRIPTED_URL": provider.url,
        "RUNWIRE_WORKFLOWS": str(folder),
        "RUNWIRE_RUNS_MAX": "2",
        "RUNWIRE_SWEEP_S": "0.2",
        "RUNWIRE_FORGOTTEN_S": "0.5",
        "RUNWIRE_MODEL_TOKENS_PER_MINUTE": str(limit * 60 // WINDOW_S),
        "RUNWIRE_MODEL_RATE_WINDOW_S": str(WINDOW_S),
        "RUNWIRE_MODEL_RATE_OUTPUT_TOKENS": str(usage["completion_tokens"]),
    }
    workers = [await start_worker(environ, tmp_path / f"worker-{number}.log") for number in range(WORKERS)]
    hints = wakeups.connect(own_redis.endpoints.redis_url)
    handoff = Handoff(own_redis.endpoints.redis_url, hints)
    try:
        runs = Runs(api_engine, await new_tenant(owner_engine))
        ids = [await runs.submit("speaker", {"times": 200}) for _ in range(2 * WORKERS)]
        await handoff.hand_over(*ids)
        for run_id in ids:
            await runs.has(run_id, "started")
        began = time.monotonic()
        await past(began + PHASE_S)
        os.kill(own_redis.processes["valkey"], signal.SIGKILL)
        away = time.monotonic()
        await past(away + PHASE_S)
        assert own_redis.tend() == ["valkey"]
        with blocking.Redis.from_url(own_redis.endpoints.redis_url) as back:
            assert back.ping()
        there = time.monotonic()
        await past(there + PHASE_S)
        calls, ended = calls_at(provider), time.monotonic()
        waiting = [await runs.facts(run_id) for run_id in ids]
        owners = {fact.data["worker"] for facts in waiting for fact in facts if fact.type == "started"}
    finally:
        await asyncio.gather(*(worker.end(signal.SIGKILL) for worker in workers))
        handoff.close()
        await hints.aclose()
    assert len(owners) == WORKERS
    phases = [("together", began, away), ("alone", away, there), ("together again", there, ended)]
    counts = {name: len([at for at in calls if first <= at < last]) for name, first, last in phases}
    assert most_within(calls, WINDOW_S) < 2 * CALLS, f"{counts}: a sliding count never lets two through in one"
    for name, first, last in phases:
        assert counts[name] <= CALLS * ((last - first) / WINDOW_S + 1), name
        assert counts[name] >= CALLS / 2 * ((last - first) / WINDOW_S - 1), f"{name}: it stands still"
    assert any(fact.data.get("detail") == WAITING for facts in waiting for fact in facts if fact.type == "progress")
