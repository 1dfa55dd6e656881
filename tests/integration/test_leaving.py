"""A worker that is told to go is gone soon, wherever its runs are, and another one takes each of them up."""

import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from eventstore.handoff import Handoff
from ops.scaffold import new_workflow
from tests.integration.test_worker import environ, handoff, model, order_fault, pace, runs
from tests.running import SAMPLE, Runs, Worker, start_worker, until
from worker.llm.scripted_server import ScriptedServer
from worker.loading import load_workflow

__all__ = ["environ", "handoff", "model", "runs"]  # fixtures

STUCK = '''
"""A step that blocks its thread for good."""

import threading

from pydantic import BaseModel, ConfigDict

from worker.author import Check, Run, RunView, workflow


class Nothing(BaseModel):
    model_config = ConfigDict(extra="forbid")


def block() -> None:
    threading.Event().wait()


def best_partial(view: RunView) -> None:
    return None


@workflow(
    "stuck",
    version=1,
    title="Stuck",
    summary="Blocks a thread.",
    input=Nothing,
    output=Nothing,
    milestones=("Blocking",),
    partial=best_partial,
)
async def stuck(run: Run, given: Nothing) -> Nothing:
    await run.milestone("Blocking")
    await run.step("block", block)
    return await run.validate(given, [Check("it is nothing", lambda made: True)])
'''

Start = Callable[[Mapping[str, str], Path], Awaitable[Worker]]


@pytest_asyncio.fixture(loop_scope="session")
async def started() -> AsyncIterator[Start]:
    """Starts workers; none of them outlives its test."""
    workers: list[Worker] = []

    async def start(environ: Mapping[str, str], log_file: Path) -> Worker:
        workers.append(await start_worker(environ, log_file))
        return workers[-1]

    yield start
    for worker in workers:
        await worker.end(signal.SIGKILL)


COMMENTS = "Task: draft comments"


def asked(model: ScriptedServer, **entry: Any) -> bool:
    """Whether the model server has such a request in its journal."""
    return any(all(each[name] == value for name, value in entry.items()) for each in model.journal.entries())


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "slow_first", "delay_s": 60.0},
        {"kind": "hang", "after_pieces": 0},
        {"kind": "hang", "after_pieces": 40},
        {"kind": "429", "retry_after_s": 25.0},
    ],
    ids=["before the first byte", "before the first piece", "between two pieces", "before another attempt"],
)
async def test_a_worker_goes_at_any_point_of_a_model_call(
    fault: dict[str, Any],
    runs: Runs,
    environ: dict[str, str],
    handoff: Handoff,
    model: ScriptedServer,
    started: Start,
    tmp_path: Path,
) -> None:
    await pace(model, 0)
    model.journal.clear()
    await order_fault(model, when=COMMENTS, **fault)
    first = await started(environ, tmp_path / "first.log")
    run_id = await runs.submit("contract_review", SAMPLE, attempts_max=1)
    await handoff.hand_over(run_id)

    async def there() -> bool | None:
        return asked(model, fault=fault["kind"]) or None

    await until(there, "the call")
    if fault["kind"] == "hang" and fault["after_pieces"]:
        await runs.has(run_id, "token", section="comments")
    if fault["kind"] == "429":
        await runs.has(run_id, "retry", reason="provider_busy")
    assert await first.end() == 0
    assert (await runs.facts(run_id))[-1].type not in {"result", "error", "cancelled"}
    second = await started(environ, tmp_path / "second.log")
    facts = await runs.ended(run_id)
    assert facts[-1].type == "result", "a hand-over is no attempt"
    assert await second.end() == 0


async def test_a_worker_goes_though_a_thread_of_a_workflow_never_ends(
    runs: Runs, environ: dict[str, str], handoff: Handoff, started: Start, tmp_path: Path
) -> None:
    folder = new_workflow("stuck", tmp_path)
    for name in ("models.py", "prompts.py", "stuck.script.json", "test_stuck.py"):
        (folder / name).unlink()
    shutil.rmtree(folder / "samples")
    (folder / "workflow.py").write_text(STUCK.lstrip())
    worker = await started({**environ, "RUNWIRE_WORKFLOWS": str(folder)}, tmp_path / "worker.log")
    run_id = await runs.submit(load_workflow(folder), {})
    await handoff.hand_over(run_id)
    await runs.has(run_id, "progress", state="blocking")
    assert await worker.end() == 0
    await runs.cancel(run_id)
    last = await started(environ, tmp_path / "last.log")
    assert (await runs.ended(run_id))[-1].type == "cancelled"
    await last.end()
