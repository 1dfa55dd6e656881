"""Runs that ask and sleep hold no worker, sleep through nothing, and end the same whoever dies on the way."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from pydantic import BaseModel, ConfigDict
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from eventstore import log
from eventstore.domain.events import Decision, Person, RunLimits, new_event
from eventstore.domain.lifecycle import TERMINAL_TYPES
from eventstore.domain.record import Fact
from eventstore.domain.run import RunState, fold
from eventstore.handoff import Handoff
from ops.services import Endpoints
from tests.integration.test_crash_anywhere import SHORT, model, told
from tests.owning import Owner, free, new_owner
from tests.running import ADA, Runs, start_worker, types, until
from tests.serving import serving
from tests.writing import NOW_US, new_tenant
from worker.declare import Check, Workflow, workflow
from worker.registry import WORKFLOWS
from worker.run import Run
from worker.runner import advance

__all__ = ["model"]  # the scripted model, as a fixture

QUICK = {"pieces": 0, "rate_per_s": 0, "tool_calls": 0, "findings": 0}
ASKING = {**QUICK, "questions": 1}


@pytest.fixture
def environ(services: Endpoints, database_url: str) -> dict[str, str]:
    return {
        "RUNWIRE_DATABASE_URL": database_url,
        "RUNWIRE_REDIS_URL": services.redis_url,
        "RUNWIRE_SCRIPTED_URL": "http://127.0.0.1:1/v1",
        "RUNWIRE_LEASE_S": "3",
        "RUNWIRE_HEARTBEAT_S": "1",
        "RUNWIRE_SWEEP_S": "0.2",
    }


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def runs(api_engine: AsyncEngine, owner_engine: AsyncEngine) -> Runs:
    return Runs(api_engine, await new_tenant(owner_engine))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def handoff(services: Endpoints, redis: Redis) -> AsyncIterator[Handoff]:
    handing = Handoff(services.redis_url, redis)
    yield handing
    handing.close()


@pytest_asyncio.fixture(loop_scope="session")
async def owner(worker_engine: AsyncEngine, redis: Redis, model: Any) -> AsyncIterator[Owner]:
    one = new_owner(worker_engine, redis, model)
    yield one
    await one.die(asyncio.create_task(asyncio.sleep(0)))


def open_questions(facts: list[Fact]) -> list[Fact]:
    answered = {fact.data["escalation"] for fact in facts if fact.type == "decision"}
    return [fact for fact in facts if fact.type == "escalation" and fact.seq not in answered]


async def answer(runs: Runs, run_id: UUID, choice: str = "yes") -> list[log.Control]:
    """Answer whatever the run asks at the moment."""
    given = []
    for asked in open_questions(await runs.facts(run_id)):
        closing = {name: asked.data[name] for name in ("key", "place", "args", "attempt")}
        body = Decision(escalation=asked.seq, because="answered", by=ADA, choice=choice, **closing)
        async with runs.engine.begin() as connection:
            given.append(await log.control(connection, run_id, new_event(body, NOW_US)))
    return given


async def resting(runs: Runs, run_id: UUID, parked: int = 1) -> None:
    """Wait until an owner has given the run back because all of it waits."""

    async def look() -> bool | None:
        async with runs.engine.connect() as connection:
            row = await connection.exec_driver_sql(
                "SELECT parked >= %(parked)s AND lease_until IS NULL AND due_at IS NOT NULL "
                "FROM runwire.head WHERE run_id = %(run)s",
                {"run": run_id, "parked": parked},
            )
            return True if row.scalar_one() else None

    await until(look, "the run to rest")


async def to_the_end(owner: Owner, runs: Runs, run_id: UUID, choice: str | None = "yes") -> list[Fact]:
    """Carry the run with one owner, answering on the way."""

    async def turn() -> list[Fact] | None:
        await advance(owner.bench, run_id, asyncio.Event())
        facts = await runs.facts(run_id)
        if facts[-1].type in TERMINAL_TYPES:
            return facts
        if choice is not None:
            await answer(runs, run_id, choice)
        return None

    return await until(turn, "the end of the run")


async def test_a_question_is_asked_by_one_worker_and_its_answer_used_by_another(
    runs: Runs, environ: dict[str, str], handoff: Handoff, tmp_path: Path
) -> None:
    first = await start_worker(environ, tmp_path / "first.log")
    run_id = await runs.submit("drill", ASKING, attempts_max=1)
    await handoff.hand_over(run_id)
    await resting(runs, run_id)
    assert (await runs.state(run_id)).status == "waiting"
    assert await first.end() == 0
    [given] = await answer(runs, run_id)
    assert (given.verdict, given.status, given.owned) == ("ok", "running", False)
    second = await start_worker(environ, tmp_path / "second.log")
    facts = await runs.ended(run_id)
    await second.end()
    assert facts[-1].type == "result"
    assert [fact.data["attempt"] for fact in facts if fact.type == "started"] == [1, 1]
    assert types(facts)[:7] == ["accepted", "started", "progress", "escalation", "decision", "started", "progress"]


async def test_runs_that_wait_hold_no_place_and_others_go_on(
    runs: Runs, environ: dict[str, str], handoff: Handoff, tmp_path: Path
) -> None:
    worker = await start_worker({**environ, "RUNWIRE_RUNS_MAX": "1"}, tmp_path / "worker.log")
    waiting = [await runs.submit("drill", ASKING) for _ in range(200)]
    await handoff.hand_over(*waiting)
    for run_id in waiting:
        await resting(runs, run_id)
    other = await runs.submit("drill", QUICK)
    await handoff.hand_over(other)
    assert (await runs.ended(other))[-1].type == "result"
    for run_id in waiting:
        assert [given.verdict for given in await answer(runs, run_id)] == ["ok"]
    await handoff.hand_over(*waiting)
    for run_id in waiting:
        assert (await runs.ended(run_id))[-1].type == "result"
    await worker.end()


async def test_an_answer_wakes_the_run_though_the_queue_was_flushed(
    runs: Runs, environ: dict[str, str], handoff: Handoff, redis: Redis, tmp_path: Path
) -> None:
    worker = await start_worker(environ, tmp_path / "worker.log")
    run_id = await runs.submit("drill", ASKING)
    await handoff.hand_over(run_id)
    await resting(runs, run_id)
    await redis.flushall()
    await answer(runs, run_id)  # and nobody is told
    assert (await runs.ended(run_id))[-1].type == "result"
    await worker.end()


async def test_an_answer_over_the_api_hands_the_run_over_without_the_sweep(
    services: Endpoints, database_url: str, environ: dict[str, str], runs: Runs, tmp_path: Path
) -> None:
    worker = await start_worker(environ, tmp_path / "worker.log")
    async with serving(database_url, services.redis_url) as api, api.client("operator") as client:

        async def submitted() -> UUID | None:  # once the worker has told what it can run
            given = await client.post("/v1/runs", json={"workflow": "drill", "input": ASKING})
            return UUID(given.json()["id"]) if given.status_code == 202 else None

        run_id = await until(submitted, "the worker")
        await resting(runs, run_id)
        state = (await client.get(f"/v1/runs/{run_id}")).json()
        body = {"escalation": state["questions"][0]["seq"], "choice": "yes", "seen": state["seen"]}
        assert (await client.post(f"/v1/runs/{run_id}/decisions", json=body)).status_code == 202
        assert (await runs.ended(run_id))[-1].type == "result"
    await worker.end()


async def test_when_nobody_answers_the_sweep_takes_the_default(
    runs: Runs, environ: dict[str, str], handoff: Handoff, tmp_path: Path
) -> None:
    worker = await start_worker(environ, tmp_path / "worker.log")
    run_id = await runs.submit("drill", {**ASKING, "wait_s": 2.0})
    await handoff.hand_over(run_id)
    facts = await runs.ended(run_id)
    await worker.end()
    assert facts[-1].type == "result"
    asked, decided = (next(fact for fact in facts if fact.type == type_) for type_ in ("escalation", "decision"))
    assert (decided.data["because"], decided.data["choice"]) == ("wait_over", "yes")
    assert decided.data["by"] == {"subject": "runwire", "role": "service"}
    assert decided.at_us >= asked.at_us + 2_000_000
    assert [given.verdict for given in await answer(runs, run_id)] == []


async def test_a_sleep_goes_on_while_no_worker_is_there(
    runs: Runs, environ: dict[str, str], handoff: Handoff, tmp_path: Path
) -> None:
    first = await start_worker(environ, tmp_path / "first.log")
    run_id = await runs.submit("drill", {**QUICK, "sleep_s": 2.0}, attempts_max=1)
    await handoff.hand_over(run_id)
    await resting(runs, run_id)
    assert await first.end() == 0
    second = await start_worker(environ, tmp_path / "second.log")
    facts = await runs.ended(run_id)
    await second.end()
    assert facts[-1].type == "result"
    lay_down, rose = (fact for fact in facts if fact.type == "step" and fact.data["name"] == "rest")
    assert (lay_down.data["status"], rose.data["status"]) == ("intent", "ok")
    assert rose.at_us >= lay_down.at_us + 2_000_000


async def test_a_cancel_ends_a_resting_run_on_any_worker(
    runs: Runs, environ: dict[str, str], handoff: Handoff, tmp_path: Path
) -> None:
    first = await start_worker(environ, tmp_path / "first.log")
    asking, sleeping = await runs.submit("drill", ASKING), await runs.submit("drill", {**QUICK, "sleep_s": 3_600})
    await handoff.hand_over(asking, sleeping)
    for run_id in (asking, sleeping):
        await resting(runs, run_id)
    await first.end()
    for run_id in (asking, sleeping):
        assert (await runs.cancel(run_id)).owned is False
    second = await start_worker(environ, tmp_path / "second.log")
    for run_id in (asking, sleeping):
        assert types(await runs.ended(run_id))[-2:] == ["cancel_requested", "cancelled"]
    await second.end()


async def test_the_clock_of_a_worker_decides_no_wait(runs: Runs, owner: Owner) -> None:
    object.__setattr__(owner.bench, "clock_us", lambda: 4_102_444_800_000_000)
    run_id = await runs.submit("drill", {**QUICK, "sleep_s": 3_600})
    await advance(owner.bench, run_id, asyncio.Event())
    asking = await runs.submit("drill", ASKING)
    for _ in range(2):
        await advance(owner.bench, asking, asyncio.Event())
        await resting(runs, asking)
        await resting(runs, run_id)
    assert not [fact for fact in await runs.facts(asking) if fact.type == "decision"]


async def test_a_sleep_beyond_the_runs_own_time_ends_with_it(runs: Runs, owner: Owner) -> None:
    run_id = await runs.submit("drill", {**QUICK, "sleep_s": 3_600}, run_s=1.2)
    facts = await to_the_end(owner, runs, run_id)
    assert facts[-1].data["code"] == "limit_run_s"


async def test_the_runs_own_time_stands_still_while_somebody_is_asked(runs: Runs, owner: Owner) -> None:
    run_id = await runs.submit("drill", {**ASKING, "wait_s": 2.0}, run_s=1.9)
    facts = await to_the_end(owner, runs, run_id, choice=None)
    assert facts[-1].type == "result", facts[-1].data
    assert facts[-1].at_us - facts[0].at_us > 2_000_000


async def test_waits_are_no_failed_attempts(runs: Runs, owner: Owner) -> None:
    run_id = await runs.submit("drill", {**QUICK, "questions": 5}, attempts_max=1)
    facts = await to_the_end(owner, runs, run_id)
    assert facts[-1].type == "result"
    assert len([fact for fact in facts if fact.type == "started"]) == 6


async def test_an_answer_that_comes_while_the_owner_leaves_is_used_at_once(
    runs: Runs, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    suspend = log.suspend

    async def late(connection: Any, run_id: UUID, *more: Any) -> str:
        await answer(runs, run_id)
        return await suspend(connection, run_id, *more)

    monkeypatch.setattr(log, "suspend", late)
    run_id = await runs.submit("drill", ASKING)
    await advance(owner.bench, run_id, asyncio.Event())
    assert (await runs.facts(run_id))[-1].type == "result"


async def killed_once(
    runs: Runs, new: Callable[[], Owner], workflow_: str, value: Any, choice: str, at_seq: int
) -> tuple[list[Fact], bool]:
    """Carry it with an owner that dies as soon as `at_seq` is recorded, then with one that lives."""
    run_id = await runs.submit(workflow_, value, attempts_max=3)
    first = new()
    going: asyncio.Task[Any] = asyncio.create_task(to_the_end(first, runs, run_id, choice))

    async def reached() -> bool | None:
        async with runs.engine.connect() as connection:
            head = await log.head(connection, run_id)
        return True if going.done() or (head is not None and head.seq >= at_seq) else None

    await until(reached, f"seq {at_seq}")
    died = not going.done()
    await first.die(going)
    await free(first.bench.engine, run_id)
    second = new()
    facts = await to_the_end(second, runs, run_id, choice)
    await second.die(asyncio.create_task(asyncio.sleep(0)))
    return facts, died


@pytest.mark.parametrize(
    ("name", "value", "choice"),
    [
        ("drill", {**QUICK, "pieces": 2, "steps": 2, "questions": 2, "sleep_s": 0.01}, "yes"),
        ("contract_review", {**SHORT, "ask_about_high_risk": True}, "comment"),
        ("contract_review", {**SHORT, "ask_about_high_risk": True}, "stop"),
    ],
)
async def test_an_owner_that_dies_after_any_append_asks_nothing_twice(
    api_engine: AsyncEngine,
    worker_engine: AsyncEngine,
    owner_engine: AsyncEngine,
    redis: Redis,
    model: Any,
    name: str,
    value: Any,
    choice: str,
) -> None:
    runs = Runs(api_engine, await new_tenant(owner_engine))

    def new() -> Owner:
        return new_owner(worker_engine, redis, model)

    def all_told(state: RunState) -> dict[str, Any]:
        return {**told(state), "asked": [(one["name"], one["decision"]["choice"]) for one in state.questions.values()]}

    whole, _ = await killed_once(runs, new, name, value, choice, at_seq=10_000)
    expected = all_told(fold(whole))
    assert expected["asked"]
    assert expected["status"] == ("failed" if choice == "stop" else "completed")
    deaths = 0
    for at_seq in range(1, len(whole)):
        facts, died = await killed_once(runs, new, name, value, choice, at_seq)
        deaths += died
        assert all_told(fold(facts)) == expected, f"killed when {at_seq} was recorded"
        keys = [fact.data["key"] for fact in facts if fact.type == "escalation"]
        assert len(keys) == len(set(keys)), f"asked twice after a death at {at_seq}"
    assert deaths > len(whole) // 3, "most owners ended before they could be killed: this proves too little"


class Nothing(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Said(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    said: str


def declared(fn: Callable[[Run, Nothing], Awaitable[Said]]) -> Workflow:
    declare = workflow(
        "stubborn", version=1, title="Stubborn", summary="For tests.", input=Nothing, output=Said,
        milestones=("Only",), partial=lambda view: None, limits=RunLimits(run_s=60, attempts_max=1),
    )  # fmt: skip
    return declare(fn)


async def test_code_that_catches_everything_cannot_swallow_a_wait(
    runs: Runs, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stubborn(run: Run, _: Nothing) -> Said:
        for _attempt in range(3):
            try:
                said = (await run.ask("which", "Which?", to="user", choices=("a", "b"))).choice
                break
            except BaseException:  # noqa: BLE001 - what a test of stubborn code is about
                continue
        else:
            said = "swallowed"
        return await run.validate(Said(said=str(said)), [Check("fine", lambda r: True)])

    monkeypatch.setitem(WORKFLOWS, "stubborn", declared(stubborn))
    run_id = await runs.submit("stubborn", {})
    await advance(owner.bench, run_id, asyncio.Event())
    await resting(runs, run_id)
    assert types(await runs.facts(run_id)) == ["accepted", "started", "escalation"]
    facts = await to_the_end(owner, runs, run_id, "b")
    assert facts[-1].data["output"] == {"said": "b"}


async def test_a_question_without_a_default_that_nobody_answers_fails_the_run(
    runs: Runs, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def asking(run: Run, _: Nothing) -> Said:
        given = await run.ask("which", "Which?", to="user", answer=Said, wait_s=0.001)
        return await run.validate(given.value, [Check("fine", lambda r: True)])

    monkeypatch.setitem(WORKFLOWS, "stubborn", declared(asking))
    run_id = await runs.submit("stubborn", {})

    facts = await to_the_end(owner, runs, run_id, choice=None)
    assert facts[-1].data["code"] == "not_answered"
    assert [fact.data["because"] for fact in facts if fact.type == "decision"] == ["wait_over"]


async def test_an_answer_is_a_value_of_the_model_that_was_asked_for(
    runs: Runs, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def asking(run: Run, _: Nothing) -> Said:
        given = await run.ask("which", "Which?", to="user", answer=Said, default=Said(said="nothing"))
        assert isinstance(given.value, Said)
        assert given.by == "ada"
        return await run.validate(given.value, [Check("fine", lambda r: True)])

    monkeypatch.setitem(WORKFLOWS, "stubborn", declared(asking))
    run_id = await runs.submit("stubborn", {})
    await advance(owner.bench, run_id, asyncio.Event())
    [asked] = open_questions(await runs.facts(run_id))
    assert asked.data["default"] == {"said": "nothing"}
    closing = {name: asked.data[name] for name in ("key", "place", "args", "attempt")}
    by = Person(subject="ada", role="user")
    body = Decision(escalation=asked.seq, because="answered", by=by, answer={"said": "so"}, **closing)
    async with runs.engine.begin() as connection:
        await log.control(connection, run_id, new_event(body, NOW_US))
    facts = await to_the_end(owner, runs, run_id)
    assert facts[-1].data["output"] == {"said": "so"}
