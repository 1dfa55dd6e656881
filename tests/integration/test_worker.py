"""Runs carried by real worker processes: finished, killed, cancelled, handed over."""

import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from eventstore import wakeups
from eventstore.domain.run import RunState, fold
from eventstore.domain.transcript import public, section_text
from eventstore.handoff import Handoff
from ops.services import Endpoints
from tests.running import SAMPLE, Runs, Worker, start_worker, types, until
from tests.writing import new_tenant
from worker.llm.scripted_rules import load_rules
from worker.llm.scripted_server import ScriptedServer
from worker.workflows import contract_review

MILESTONES = [
    "Uploaded",
    "Parsing",
    "Extracting clauses",
    "Checking policy",
    "Drafting comments",
    "Validating",
    "Ready for review",
]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def model() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer(load_rules([Path(contract_review.__file__).parent]), host="127.0.0.1", port=0) as server:
        yield server


@pytest.fixture
def environ(services: Endpoints, database_url: str, model: ScriptedServer) -> dict[str, str]:
    return {
        "RUNWIRE_DATABASE_URL": database_url,
        "RUNWIRE_REDIS_URL": services.redis_url,
        "RUNWIRE_SCRIPTED_URL": model.url,
        "RUNWIRE_LEASE_S": "3",
        "RUNWIRE_HEARTBEAT_S": "1",
        "RUNWIRE_SWEEP_S": "0.5",
    }


@pytest_asyncio.fixture(loop_scope="session")
async def worker(environ: dict[str, str], tmp_path: Path) -> AsyncIterator[Worker]:
    started = await start_worker(environ, tmp_path / "worker.log")
    yield started
    await started.end()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def runs(api_engine: AsyncEngine, owner_engine: AsyncEngine) -> Runs:
    return Runs(api_engine, await new_tenant(owner_engine))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def handoff(services: Endpoints, redis: Redis) -> AsyncIterator[Handoff]:
    handing = Handoff(services.redis_url, redis)
    yield handing
    handing.close()


def output_of(state: RunState) -> Any:
    assert state.result is not None
    return state.result["output"]


async def order(model: ScriptedServer, what: str, value: dict[str, object]) -> None:
    async with httpx.AsyncClient(base_url=model.url.removesuffix("/v1")) as client:
        (await client.post(f"/scripted/{what}", json=value)).raise_for_status()


async def pace(model: ScriptedServer, pieces_per_s: float) -> None:
    await order(model, "pace", {"pieces_per_s": pieces_per_s})


async def order_fault(model: ScriptedServer, **fault: object) -> None:
    await order(model, "faults", fault)


async def test_a_contract_review_tells_its_seven_milestones_and_ends_with_a_validated_result(
    runs: Runs, worker: Worker, handoff: Handoff, model: ScriptedServer
) -> None:
    await pace(model, 0)
    run_id = await runs.submit("contract_review", SAMPLE)
    assert await handoff.hand_over(run_id)
    facts = await runs.ended(run_id)
    labels = list(dict.fromkeys(fact.data["label"] for fact in facts if fact.type == "progress"))
    assert labels == MILESTONES
    assert facts[-1].type == "result"
    state = fold(facts)
    assert state.status == "completed"
    assert output_of(state)["high"] == ["4", "5", "7"]
    assert output_of(state)["comments"] == section_text(state, "comments")
    assert [fact.data["tool"] for fact in facts if fact.type == "tool_call"] == ["search_policy"]
    assert (state.validation or {})["passed"]
    assert public(state)["result"]["final"] is True


async def test_a_run_whose_hint_was_lost_is_found_by_the_sweep(
    runs: Runs, worker: Worker, model: ScriptedServer
) -> None:
    await pace(model, 0)
    run_id = await runs.submit("drill", {"pieces": 5, "rate_per_s": 0})
    assert (await runs.ended(run_id))[-1].type == "result"


async def test_kill_9_in_the_middle_of_a_draft_loses_and_doubles_nothing(
    runs: Runs, environ: dict[str, str], handoff: Handoff, model: ScriptedServer, tmp_path: Path
) -> None:
    await pace(model, 0)
    await order_fault(model, kind="hang", after_pieces=30, when="draft comments")
    first = await start_worker(environ, tmp_path / "first.log")
    run_id = await runs.submit("contract_review", SAMPLE)
    await handoff.hand_over(run_id)
    await runs.has(run_id, "token", section="comments")
    await first.end(signal.SIGKILL)
    before = await runs.facts(run_id)
    second = await start_worker(environ, tmp_path / "second.log")
    facts = await runs.ended(run_id)
    await second.end()
    assert facts[-1].type == "result"
    assert [fact.data["attempt"] for fact in facts if fact.type == "started"] == [1, 2]
    closed = [fact.data["key"] for fact in facts if fact.type in ("step", "model_call", "tool_result", "finding")]
    assert len(closed) == len(set(closed)), "a completed call was repeated"
    dead = next(fact for fact in facts if fact.type == "retry").data["superseded"]
    assert [seq for first_, last in dead for seq in range(first_, last + 1)] == [
        fact.seq for fact in before if fact.type in ("token", "reasoning") and fact.data["step"] == "comment#1"
    ]
    state = fold(facts)
    assert section_text(state, "comments") == output_of(state)["comments"]


async def test_a_worker_that_was_stopped_and_wakes_up_adds_not_one_byte(
    runs: Runs, environ: dict[str, str], handoff: Handoff, tmp_path: Path
) -> None:
    zombie = await start_worker(environ, tmp_path / "zombie.log")
    run_id = await runs.submit("drill", {"pieces": 4_000, "rate_per_s": 200, "steps": 40})
    await handoff.hand_over(run_id)
    await runs.has(run_id, "token")
    zombie.send(signal.SIGSTOP)
    other = await start_worker(environ, tmp_path / "other.log")
    await runs.has(run_id, "started", attempt=2)
    zombie.send(signal.SIGCONT)

    async def gave_up() -> bool | None:
        return True if "taken over" in (tmp_path / "zombie.log").read_text() else None

    await until(gave_up, "the zombie to notice")
    facts = await runs.facts(run_id)
    epochs = [fact.attempt for fact in facts if fact.type == "started"]
    assert epochs == [1, 2]
    takeover = next(fact.seq for fact in facts if fact.type == "started" and fact.attempt == 2)
    async with runs.engine.connect() as connection:
        rows = await connection.exec_driver_sql(
            "SELECT epoch FROM runwire.event WHERE run_id = %(run)s AND seq > %(seq)s", {"run": run_id, "seq": takeover}
        )
        assert {row[0] for row in rows} <= {2}
    await runs.cancel(run_id)
    await runs.ended(run_id)
    await zombie.end()
    await other.end()


async def test_cancel_closes_the_models_connection_and_keeps_the_best_partial_result(
    runs: Runs, worker: Worker, handoff: Handoff, model: ScriptedServer, redis: Redis
) -> None:
    await pace(model, 0)
    await order_fault(model, kind="hang", after_pieces=30, when="draft comments")
    run_id = await runs.submit("contract_review", SAMPLE)
    await handoff.hand_over(run_id)
    await runs.has(run_id, "token", section="comments")
    asked = await runs.cancel(run_id, "the wrong contract")
    assert asked.verdict == "ok"
    await wakeups.publish(redis, wakeups.CONTROL, run_id.hex)
    facts = await runs.ended(run_id)
    observed = next(fact for fact in facts if fact.type == "cancel_observed")
    assert observed.data["model_closed_us"] >= observed.data["seen_us"] - 1_000_000
    end = facts[-1].data
    assert facts[-1].type == "cancelled"
    assert (end["reason"], end["by"]["subject"], end["assembled_by"]) == ("the wrong contract", "ada", "workflow")
    assert len(end["partial"]["output"]["findings"]) == 8
    assert end["missing"] == ["Drafting comments", "Validating", "Ready for review"]
    assert end["partial"]["final"] is False
    async with httpx.AsyncClient() as client:
        journal = (await client.get(f"{model.url.removesuffix('/v1')}/scripted/journal")).json()
    requests = journal["requests"] if isinstance(journal, dict) else journal
    assert requests[-1]["ended"] == "client_closed"


async def test_a_queued_run_that_is_cancelled_never_starts(runs: Runs, environ: dict[str, str], tmp_path: Path) -> None:
    run_id = await runs.submit("contract_review", SAMPLE)
    asked = await runs.cancel(run_id)
    assert (asked.status, asked.owned) == ("stopping", False)
    worker = await start_worker(environ, tmp_path / "worker.log")
    facts = await runs.ended(run_id)
    await worker.end()
    assert types(facts) == ["accepted", "cancel_requested", "cancelled"]


async def test_a_broken_answer_is_retried_and_its_text_is_nowhere(
    runs: Runs, worker: Worker, handoff: Handoff, model: ScriptedServer
) -> None:
    await pace(model, 0)
    await order_fault(model, kind="cut", after_pieces=7, when="draft comments")
    run_id = await runs.submit("contract_review", SAMPLE)
    await handoff.hand_over(run_id)
    facts = await runs.ended(run_id)
    retry = next(fact for fact in facts if fact.type == "retry")
    assert retry.data["superseded"]
    assert facts[-1].type == "result"
    state = fold(facts)
    assert section_text(state, "comments") == output_of(state)["comments"]
    assert output_of(state)["comments"].count("were read") == 1


async def test_a_draft_that_fails_its_checks_ends_in_error_with_the_partial_result(
    runs: Runs, worker: Worker, handoff: Handoff, model: ScriptedServer
) -> None:
    await pace(model, 0)
    await order_fault(
        model, kind="garble", when="draft comments", replace={"from": "Clause 5", "to": "Clause five"}, times=1
    )
    run_id = await runs.submit("contract_review", SAMPLE)
    await handoff.hand_over(run_id)
    facts = await runs.ended(run_id)
    assert facts[-1].type == "error"
    assert facts[-1].data["code"] == "validation_failed"
    assert "name every high risk" in facts[-1].data["message"]
    state = fold(facts)
    assert not (state.validation or {})["passed"]
    assert public(state)["result"] is None
    assert (state.partial or {})["output"]["findings"]


async def test_a_provider_that_stays_busy_ends_the_run_with_a_message_that_is_ours(
    runs: Runs, worker: Worker, handoff: Handoff, model: ScriptedServer
) -> None:
    await pace(model, 0)
    await order_fault(model, kind="500", times=3, when="draft comments")
    run_id = await runs.submit("contract_review", SAMPLE)
    await handoff.hand_over(run_id)
    facts = await runs.ended(run_id)
    assert facts[-1].type == "error"
    assert facts[-1].data["code"] == "provider_busy"
    assert [fact.data.get("next_attempt") for fact in facts if fact.type == "retry"] == [2, 3, None]


async def test_a_run_that_kills_its_worker_each_time_is_given_up(
    runs: Runs, environ: dict[str, str], tmp_path: Path, handoff: Handoff
) -> None:
    run_id = await runs.submit("drill", {"pieces": 50, "rate_per_s": 0, "fail_at": 3, "fault": "kill"}, attempts_max=1)
    worker = await start_worker(environ, tmp_path / "victim.log")
    await handoff.hand_over(run_id)
    await worker.process.wait()
    assert worker.process.returncode == -signal.SIGKILL
    second = await start_worker(environ, tmp_path / "second.log")
    facts = await runs.ended(run_id)
    await second.end()
    assert facts[-1].data["code"] == "attempts_exhausted"


async def test_a_stopped_worker_hands_its_runs_over_at_once(
    runs: Runs, environ: dict[str, str], handoff: Handoff, tmp_path: Path
) -> None:
    first = await start_worker(environ, tmp_path / "first.log")
    run_id = await runs.submit("drill", {"pieces": 1_000, "rate_per_s": 400, "steps": 10}, attempts_max=1)
    await handoff.hand_over(run_id)
    await runs.has(run_id, "token")
    assert await first.end() == 0
    facts = await runs.facts(run_id)
    assert (facts[-1].type, facts[-1].data["reason"]) == ("retry", "handover")
    second = await start_worker(environ, tmp_path / "second.log")
    facts = await runs.ended(run_id)
    assert facts[-1].type == "result"
    assert await second.end() == 0


async def test_a_run_that_hangs_meets_its_deadline(runs: Runs, worker: Worker, handoff: Handoff) -> None:
    run_id = await runs.submit("drill", {"pieces": 5, "fail_at": 2, "rate_per_s": 0, "fault": "hang"}, run_s=1.0)
    await handoff.hand_over(run_id)
    facts = await runs.ended(run_id)
    assert facts[-1].data["code"] == "limit_run_s"


async def test_a_flushed_queue_loses_nothing(
    runs: Runs, environ: dict[str, str], handoff: Handoff, redis: Redis, tmp_path: Path
) -> None:
    run_ids = [await runs.submit("drill", {"pieces": 20, "rate_per_s": 0}) for _ in range(5)]
    await handoff.hand_over(*run_ids)
    await redis.flushall()
    worker = await start_worker(environ, tmp_path / "worker.log")
    for run_id in run_ids:
        assert (await runs.ended(run_id))[-1].type == "result"
    await worker.end()


async def test_a_run_that_said_more_than_one_event_holds_still_ends(
    runs: Runs, worker: Worker, handoff: Handoff
) -> None:
    order = {"pieces": 300, "rate_per_s": 0, "text_bytes": 4_096, "fail_at": 299}
    run_id = await runs.submit("drill", order)
    await handoff.hand_over(run_id)
    facts = await runs.ended(run_id)
    assert facts[-1].data["code"] == "drill"
    assert facts[-1].data["partial"]["left_out"] == ["sections"]
    assert facts[-1].data["partial"]["output"]["characters"] == 299 * 4_096
    assert len(public(fold(facts))["partial"]["sections"]["drill"]) == 299 * 4_096
