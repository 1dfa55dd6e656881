"""A run whose owner dies after any of its appends ends as if nothing had happened: same fold, no call repeated."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import pytest_asyncio
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from eventstore import log
from eventstore.domain.record import Fact
from eventstore.domain.run import RunState, fold
from tests.owning import free, new_owner
from tests.running import SAMPLES, Runs, until
from tests.writing import new_tenant
from worker.llm.chat import create_chat_model
from worker.llm.scripted_chat import Pace
from worker.llm.scripted_rules import load_rules
from worker.llm.scripted_server import ScriptedServer
from worker.llm.settings import ModelSettings
from worker.registry import WORKFLOWS
from worker.runner import advance
from worker.workflows import contract_review

SHORT = {
    "title": "Two clauses",
    "text": "1. Liability\nThe customer bears unlimited liability.\n\n2. Law\nThe customer's law governs.\n",
}


@pytest_asyncio.fixture(loop_scope="session")
async def model(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    rules = load_rules([Path(contract_review.__file__).parent])
    async with ScriptedServer(rules, host="127.0.0.1", port=0, pace=Pace(0)) as server:
        monkeypatch.setenv("RUNWIRE_SCRIPTED_URL", server.url)
        chat = create_chat_model(ModelSettings())
        yield chat
        await chat.aclose()


async def killed_once(
    runs: Runs, engine: AsyncEngine, redis: Redis, model: Any, workflow: str, value: Any, at_seq: int
) -> tuple[list[Fact], bool]:
    """Run it with an owner that dies as soon as `at_seq` is recorded, then with one that lives."""
    run_id = await runs.submit(workflow, value, attempts_max=3)
    first = new_owner(engine, redis, model)
    task = asyncio.create_task(advance(first.bench, run_id, asyncio.Event()))

    async def reached() -> bool | None:
        async with engine.connect() as connection:
            head = await log.head(connection, run_id)
        return True if task.done() or (head is not None and head.seq >= at_seq) else None

    await until(reached, f"seq {at_seq}")
    died = not task.done()
    await first.die(task)
    await free(engine, run_id)
    second = new_owner(engine, redis, model)
    await advance(second.bench, run_id, asyncio.Event())
    await second.die(asyncio.create_task(asyncio.sleep(0)))
    return await runs.ended(run_id), died


def told(state: RunState) -> dict[str, Any]:
    """What must not depend on whether somebody died on the way."""
    return {
        "status": state.status,
        "result": state.result and state.result["output"],
        "sections": {name: "".join(piece.text for piece in pieces) for name, pieces in state.sections.items()},
        "findings": {item: dict(value) for item, (_, value) in state.findings.items()},
        "tools": [value["tool"] for _, value in state.tools.values()],
        "milestone": state.milestone and state.milestone["label"],
    }


@pytest.mark.parametrize(
    ("workflow", "value"),
    [
        ("contract_review", SHORT),
        ("drill", {"pieces": 12, "rate_per_s": 0, "steps": 3, "tool_calls": 2, "findings": 2}),
    ],
)
async def test_an_owner_that_dies_after_any_append_leaves_the_same_end(
    api_engine: AsyncEngine,
    worker_engine: AsyncEngine,
    owner_engine: AsyncEngine,
    redis: Redis,
    model: Any,
    workflow: str,
    value: Any,
) -> None:
    runs = Runs(api_engine, await new_tenant(owner_engine))
    whole, _ = await killed_once(runs, worker_engine, redis, model, workflow, value, at_seq=10_000)
    expected = told(fold(whole))
    assert expected["status"] == "completed"
    deaths = 0
    for at_seq in range(1, len(whole)):
        facts, died = await killed_once(runs, worker_engine, redis, model, workflow, value, at_seq)
        deaths += died
        assert told(fold(facts)) == expected, f"killed when {at_seq} was recorded"
        closed = [fact.data["key"] for fact in facts if fact.type in ("step", "model_call", "tool_result", "finding")]
        assert len(closed) == len(set(closed)), f"a call was repeated after a death at {at_seq}"
    assert deaths > len(whole) // 3, "most owners ended before they could be killed: this proves too little"


def test_the_samples_are_what_the_workflow_takes() -> None:
    for path in sorted(SAMPLES.glob("*.json")):
        WORKFLOWS["contract_review"].input.model_validate(orjson.loads(path.read_bytes()))
