"""Answering what a run asks: one answer per question, from those who may, to what they were looking at."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import httpx
import pytest
import pytest_asyncio
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from eventstore import log
from eventstore.domain.events import CancelRequested, Decision, Error, Escalation, Person, new_event
from ops.services import Endpoints
from tests.serving import Api, Writer, register, serving
from tests.writing import NOW_US, events_of, started, token

CALL: dict[str, Any] = {"key": "fee#1", "place": 1, "args": "00"}
NUMBER = {
    "type": "object",
    "required": ["eur"],
    "additionalProperties": False,
    "properties": {"eur": {"type": "number"}},
}
ADA = Person(subject="ada", role="user")


def question(**more: Any) -> Escalation:
    given = {"choices": ["keep", "drop"], "to": "reviewer", "wait_s": 600.0} | more
    return Escalation(name="fee", question="Keep the fee?", **CALL, **given)


def default(escalation: int) -> Decision:
    by = Person(subject="runwire", role="service")
    return Decision(escalation=escalation, because="wait_over", by=by, choice="keep", **CALL)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def api(database_url: str, services: Endpoints, worker_engine: AsyncEngine) -> AsyncIterator[Api]:
    await register(worker_engine)
    async with serving(database_url, services.redis_url, poll_wait_s_max=5) as api:
        yield api


@pytest_asyncio.fixture(loop_scope="session")
async def ada(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    async with api.client() as client:
        yield client


async def asked(api: Api, worker: AsyncEngine, **more: Any) -> tuple[Writer, int]:
    """A run that asks; its owner, and the seq of the question."""
    writer = Writer(worker, await api.submit())
    return writer, await writer.append(started(), question(**more))


async def seen(client: httpx.AsyncClient, run_id: UUID) -> dict[str, Any]:
    """What somebody who looks at the run now is looking at."""
    told: dict[str, Any] = (await client.get(f"/v1/runs/{run_id}")).json()["seen"]
    return told


async def decide(client: httpx.AsyncClient, run_id: UUID, seq: int, choice: str, **more: Any) -> httpx.Response:
    body = {"escalation": seq, "choice": choice, "seen": await seen(client, run_id), **more}
    return await client.post(f"/v1/runs/{run_id}/decisions", json=body)


async def decisions(engine: AsyncEngine, run_id: UUID) -> list[dict[str, Any]]:
    async with engine.connect() as connection:
        return [dict(event.fact().data) for event in await events_of(connection, run_id) if event.type == "decision"]


async def test_an_answer_is_stored_with_who_gave_it_and_what_they_were_looking_at(
    api: Api, ada: httpx.AsyncClient, worker_engine: AsyncEngine
) -> None:
    run, seq = await asked(api, worker_engine)
    before = (await ada.get(f"/v1/runs/{run.run_id}")).json()
    assert before["status"] == "waiting"
    assert [(one["seq"], one["choices"]) for one in before["questions"]] == [(seq, ["keep", "drop"])]
    answer = await decide(ada, run.run_id, seq, "drop", note="Too high.")
    assert answer.status_code == 202, answer.text
    assert (answer.json()["status"], answer.json()["decision"]) == ("running", {"seq": seq + 1})
    [stored] = await decisions(worker_engine, run.run_id)
    assert stored == {
        **CALL,
        "attempt": 1,
        "escalation": seq,
        "because": "answered",
        "by": {"subject": "ada", "role": "user"},
        "choice": "drop",
        "note": "Too high.",
        "seen_seq": before["seen"]["seq"],
        "seen_chain": before["seen"]["chain"],
    }
    after = (await ada.get(f"/v1/runs/{run.run_id}")).json()
    assert after["status"] == "running"
    assert after["questions"][0]["decision"]["choice"] == "drop"
    polled = (await ada.get(f"/v1/runs/{run.run_id}/poll")).json()
    assert polled["questions"] == after["questions"]
    assert [event["type"] for event in polled["events"]] == ["accepted", "started", "escalation", "decision"]


async def test_the_same_answer_again_is_the_same_answer_also_after_the_end(
    api: Api, ada: httpx.AsyncClient, worker_engine: AsyncEngine
) -> None:
    run, seq = await asked(api, worker_engine)
    first = await decide(ada, run.run_id, seq, "keep")
    again = await decide(ada, run.run_id, seq, "keep", note="I said so")
    await run.append(Error(code="x", message="No.", partial={}, retryable=False))
    late = await decide(ada, run.run_id, seq, "keep")
    assert [first.status_code, again.status_code, late.status_code] == [202, 200, 200]
    assert first.json()["decision"] == again.json()["decision"] == late.json()["decision"]
    other = await decide(ada, run.run_id, seq, "drop")
    assert (other.status_code, other.json()["code"]) == (409, "moved-on")
    assert len(await decisions(worker_engine, run.run_id)) == 1


async def test_of_two_answers_at_once_the_log_takes_one(
    api: Api, ada: httpx.AsyncClient, worker_engine: AsyncEngine
) -> None:
    for _ in range(10):
        run, seq = await asked(api, worker_engine)
        both = await asyncio.gather(*(decide(ada, run.run_id, seq, choice) for choice in ("keep", "drop")))
        assert sorted(one.status_code for one in both) == [202, 409]
        [stored] = await decisions(worker_engine, run.run_id)
        assert stored["choice"] == ("keep", "drop")[[one.status_code for one in both].index(202)]


async def test_what_other_branches_did_meanwhile_does_not_void_an_answer(
    api: Api, ada: httpx.AsyncClient, worker_engine: AsyncEngine
) -> None:
    run, seq = await asked(api, worker_engine)
    looked_at = await seen(ada, run.run_id)
    await run.append(token("Somebody else speaks."))
    body = {"escalation": seq, "choice": "keep", "seen": looked_at}
    assert (await ada.post(f"/v1/runs/{run.run_id}/decisions", json=body)).status_code == 202
    await run.append(token("And goes on."))


async def test_two_questions_have_an_answer_each(api: Api, ada: httpx.AsyncClient, worker_engine: AsyncEngine) -> None:
    run, first = await asked(api, worker_engine)
    second = await run.append(question())
    assert (await decide(ada, run.run_id, second, "drop")).status_code == 202
    assert (await decide(ada, run.run_id, first, "keep")).status_code == 202
    told = [(one["escalation"], one["choice"]) for one in await decisions(worker_engine, run.run_id)]
    assert told == [(second, "drop"), (first, "keep")]


async def test_who_was_looking_at_another_log_or_at_no_question_is_told_to_look_again(
    api: Api, ada: httpx.AsyncClient, worker_engine: AsyncEngine
) -> None:
    run, seq = await asked(api, worker_engine)
    now = await seen(ada, run.run_id)
    earlier = (await ada.get(f"/v1/runs/{run.run_id}?at=1")).json()["seen"]
    wrong = {
        "another chain": {"escalation": seq, "seen": {**now, "chain": "00" * 32}},
        "a place that is not there": {"escalation": seq, "seen": {**now, "seq": 999}},
        "before the question": {"escalation": seq, "seen": earlier},
        "not a question": {"escalation": 2, "seen": now},
        "no event": {"escalation": 999, "seen": now},
    }
    for what, body in wrong.items():
        answer = await ada.post(f"/v1/runs/{run.run_id}/decisions", json={"choice": "keep", **body})
        assert (answer.status_code, answer.json()["code"]) == (409, "moved-on"), what
    assert await decisions(worker_engine, run.run_id) == []


async def test_only_roles_that_the_policy_names_may_answer_and_strangers_see_no_run(
    api: Api, ada: httpx.AsyncClient, worker_engine: AsyncEngine
) -> None:
    run, seq = await asked(api, worker_engine)
    other, elsewhere = await asked(api, worker_engine, to="somebody that no policy names")
    assert (await decide(ada, other.run_id, elsewhere, "keep")).status_code == 403
    body = {"escalation": seq, "choice": "keep", "seen": await seen(ada, run.run_id)}
    for role, subject, tenant, status in (
        ("operator", "olga", "acme", 403),
        ("officer", "otto", "acme", 403),
        ("user", "bob", "acme", 404),
        ("user", "ada", "globex", 404),
    ):
        async with api.client(role, subject, tenant) as client:  # type: ignore[arg-type]
            answer = await client.post(f"/v1/runs/{run.run_id}/decisions", json=body)
        assert answer.status_code == status, (role, subject, tenant)
    assert await decisions(worker_engine, run.run_id) == []


async def test_a_run_that_stops_or_has_ended_takes_no_answer(
    api: Api, ada: httpx.AsyncClient, worker_engine: AsyncEngine
) -> None:
    stopping, seq = await asked(api, worker_engine)
    assert (await ada.post(f"/v1/runs/{stopping.run_id}/cancel")).status_code == 202
    answer = await decide(ada, stopping.run_id, seq, "keep")
    assert (answer.status_code, answer.json()["code"]) == (409, "moved-on")
    ended, seq = await asked(api, worker_engine)
    await ended.append(Error(code="x", message="No.", partial={}, retryable=False))
    answer = await decide(ada, ended.run_id, seq, "keep")
    assert (answer.status_code, answer.json()["code"]) == (409, "run-closed")


async def test_an_answer_is_held_against_what_was_asked(
    api: Api, ada: httpx.AsyncClient, worker_engine: AsyncEngine
) -> None:
    chosen, seq = await asked(api, worker_engine)
    valued, of_value = await asked(api, worker_engine, choices=[], answer_schema=NUMBER)
    now, then = await seen(ada, chosen.run_id), await seen(ada, valued.run_id)
    good = {"escalation": seq, "choice": "keep", "seen": now}
    wrong: dict[str, tuple[Writer, dict[str, Any], str]] = {
        "another choice": (chosen, {**good, "choice": "burn"}, "/choice"),
        "a value for a choice": (chosen, {"escalation": seq, "answer": {"eur": 1}, "seen": now}, "/choice"),
        "both": (chosen, {**good, "answer": 1}, ""),
        "neither": (chosen, {"escalation": seq, "seen": now}, ""),
        "no question": (chosen, {"choice": "keep", "seen": now}, "/escalation"),
        "a question that is no number": (chosen, {**good, "escalation": True}, "/escalation"),
        "a question beyond all numbers": (chosen, {**good, "escalation": 2**31}, "/escalation"),
        "nothing seen": (chosen, {"escalation": seq, "choice": "keep"}, "/seen"),
        "half of what was seen": (chosen, {**good, "seen": {"seq": 3}}, "/seen"),
        "a chain that is none": (chosen, {**good, "seen": {**now, "chain": "AB"}}, "/seen"),
        "a long note": (chosen, {**good, "note": "x" * 2001}, "/note"),
        "an unknown field": (chosen, {**good, "approve": True}, "/approve"),
        "a choice for a value": (valued, {"escalation": of_value, "choice": "keep", "seen": then}, "/choice"),
        "a value of another shape": (
            valued,
            {"escalation": of_value, "answer": {"eur": "x"}, "seen": then},
            "/answer/eur",
        ),
    }
    for what, (run, body, pointer) in wrong.items():
        answer = await ada.post(f"/v1/runs/{run.run_id}/decisions", json=body)
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer), what
    body = {"escalation": of_value, "answer": {"eur": 12.5}, "seen": then}
    assert (await ada.post(f"/v1/runs/{valued.run_id}/decisions", json=body)).status_code == 202
    assert (await decisions(worker_engine, valued.run_id))[0]["answer"] == {"eur": 12.5}


async def test_a_default_is_stored_only_when_the_wait_is_over_and_then_no_answer_is(
    api: Api, ada: httpx.AsyncClient, worker_engine: AsyncEngine
) -> None:
    long, seq = await asked(api, worker_engine)
    short, other = await asked(api, worker_engine, wait_s=0.000001)
    verdicts = []
    for run, escalation in ((long, seq), (short, other), (short, other)):
        async with worker_engine.begin() as connection:
            told = await log.lapse(connection, run.run_id, new_event(default(escalation), NOW_US))
        verdicts.append(told.verdict)
    assert verdicts == ["early", "ok", "answered"]
    for choice in ("keep", "drop"):  # also the one that the default was: nobody has answered
        assert (await decide(ada, short.run_id, other, choice)).status_code == 409
    assert [one["because"] for one in await decisions(worker_engine, short.run_id)] == ["wait_over"]


async def test_a_worker_can_write_no_answer_and_the_api_can_put_no_run_to_rest(
    api: Api, worker_engine: AsyncEngine, api_engine: AsyncEngine
) -> None:
    run, seq = await asked(api, worker_engine)
    answer = Decision(escalation=seq, because="answered", by=ADA, choice="keep", **CALL)
    stop = CancelRequested(by=ADA, reason="no")
    for engine, say in (
        (worker_engine, lambda c: log.lapse(c, run.run_id, new_event(answer, NOW_US))),
        (worker_engine, lambda c: log.control(c, run.run_id, new_event(answer, NOW_US))),
        (worker_engine, lambda c: log.control(c, run.run_id, new_event(stop, NOW_US))),
        (api_engine, lambda c: log.lapse(c, run.run_id, new_event(default(seq), NOW_US))),
        (api_engine, lambda c: log.suspend(c, run.run_id, run.epoch, seq, 0)),
    ):
        async with engine.connect() as connection:
            with pytest.raises(DBAPIError, match=r"permission denied|somebody's answer"):
                await say(connection)


async def test_a_resting_run_is_nobodys_until_it_is_due_or_written_to(
    api: Api, ada: httpx.AsyncClient, worker_engine: AsyncEngine
) -> None:
    far = 4_102_444_800_000_000
    run, seq = await asked(api, worker_engine)

    async def suspend(upto: int, epoch: int) -> str:
        async with worker_engine.begin() as connection:
            return await log.suspend(connection, run.run_id, epoch, upto, far)

    async def claim() -> log.Claim:
        async with worker_engine.begin() as connection:
            return await log.claim(connection, run.run_id, "test", 600)

    async def forgotten() -> bool:
        async with worker_engine.begin() as connection:
            return run.run_id in [one.run_id for one in await log.forgotten(connection, 0, 1000)]

    assert await suspend(seq, run.epoch + 1) == "fenced"
    assert await suspend(seq, run.epoch) == "parked"
    assert (await claim()).verdict == "waiting"
    assert not await forgotten()
    assert (await decide(ada, run.run_id, seq, "keep")).status_code == 202
    claimed = await claim()
    assert (claimed.verdict, claimed.parked) == ("claimed", 1)
    assert claimed.epoch is not None
    assert await suspend(seq, claimed.epoch) == "moved"  # its owner has not read the answer yet
    assert await forgotten()
    assert (await claim()).parked == 2
