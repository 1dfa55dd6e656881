"""Submitting, listing, showing and stopping runs over a real server."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx
import pytest
import pytest_asyncio
from dramatiq import Message
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from eventstore import catalogue, wakeups
from eventstore.domain.events import Accepted, Cancelled, Person
from ops.services import Endpoints
from tests.serving import NOWHERE, Api, Writer, register, serving, until
from tests.writing import events_of, result, started, token

WISH = {"workflow": "contract_review", "input": {"text": "Clause 1", "title": "NDA"}}
STRANGERS = [
    ("user", "bob", "acme"),
    ("user", "ada", "globex"),
    ("operator", "ada", "globex"),
    ("officer", "x", "globex"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def api(database_url: str, services: Endpoints, worker_engine: AsyncEngine) -> AsyncIterator[Api]:
    await register(worker_engine)
    async with serving(database_url, services.redis_url, poll_wait_s_max=5) as api:
        yield api


@pytest_asyncio.fixture(loop_scope="session")
async def ada(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    async with api.client() as client:
        yield client


async def stored(engine: AsyncEngine, run_id: UUID) -> list[Any]:
    async with engine.connect() as connection:
        return await events_of(connection, run_id)


async def ended_run(api: Api, worker_engine: AsyncEngine) -> UUID:
    run_id = await api.submit()
    await Writer(worker_engine, run_id).append(started(), token("Clause 1"), result())
    return run_id


# --- submit


async def test_a_submission_is_accepted_with_where_to_go_from_there(ada: httpx.AsyncClient) -> None:
    answer = await ada.post("/v1/runs", json=WISH)
    body = answer.json()
    own = f"/v1/runs/{body['id']}"
    assert answer.status_code == 202
    assert UUID(body["id"]).version == 7
    assert (answer.headers["location"], answer.headers["retry-after"]) == (own, "1")
    assert body | {"id": 0, "created_at": 0} == {
        "id": 0,
        "status": "queued",
        "done": False,
        "workflow": "contract_review",
        "title": "NDA",
        "created_at": 0,
        "links": {
            "self": own,
            "events": f"{own}/events",
            "poll": f"{own}/poll",
            "cancel": f"{own}/cancel",
            "decisions": f"{own}/decisions",
        },
    }
    assert datetime.fromisoformat(body["created_at"]).tzinfo is not None


async def test_the_first_event_says_who_what_and_under_which_policy(
    api: Api, ada: httpx.AsyncClient, api_engine: AsyncEngine
) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    answer = await ada.post("/v1/runs", json=WISH, headers={"traceparent": f"00-{trace}-b7ad6b7169203331-01"})
    run_id = UUID(answer.json()["id"])
    [event] = await stored(api_engine, run_id)
    accepted = Accepted.model_validate_json(event.body)
    policy = api.service.policies.of("contract_review")
    assert policy is not None
    assert accepted.caller == Person(subject="ada", role="user")
    assert (accepted.tenant, accepted.trace_id) == ("acme", trace)
    assert (accepted.policy.version, accepted.policy.digest) == (policy.version, policy.digest())
    assert [one.state for one in accepted.milestones] == ["uploaded", "ready"]
    assert accepted.limits.run_s == 180
    async with api_engine.connect() as connection:
        body = await catalogue.read_input(connection, run_id)
    assert body == b'{"text":"Clause 1","title":"NDA"}'
    assert accepted.input_bytes == len(body)


async def test_an_accepted_run_is_handed_to_the_workers(api: Api, redis: Redis, ada: httpx.AsyncClient) -> None:
    heard = wakeups.listen(redis, wakeups.HANDOFF)
    assert (await anext(heard))[1] == ""  # subscribed
    run_id = (await ada.post("/v1/runs", json=WISH)).json()["id"]
    assert await asyncio.wait_for(anext(heard), 10) == (wakeups.HANDOFF, "")
    queued: Any = await redis.hgetall("runwire:runs.msgs")
    messages = [Message.decode(raw) for raw in queued.values()]
    assert [message.actor_name for message in messages if message.args == (run_id,)] == ["run_workflow"]
    await heard.aclose()  # type: ignore[attr-defined]


async def test_the_same_request_under_the_same_key_starts_one_run(ada: httpx.AsyncClient) -> None:
    headers = {"Idempotency-Key": "once"}
    first = await ada.post("/v1/runs", json=WISH, headers=headers)
    again = await ada.post("/v1/runs", json=WISH, headers=headers)
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json() == again.json()
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    otherwise = {"input": {"title": "NDA", "text": "Clause 1"}, "workflow": "contract_review"}
    assert (await ada.post("/v1/runs", json=otherwise, headers=headers)).json() == first.json()


async def test_a_key_is_worth_one_request_and_is_its_owners_alone(api: Api, ada: httpx.AsyncClient) -> None:
    headers = {"Idempotency-Key": "mine"}
    first = await ada.post("/v1/runs", json=WISH, headers=headers)
    other = await ada.post("/v1/runs", json={**WISH, "title": "Another"}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency-mismatch")
    async with api.client("user", "bob") as bob:
        his = await bob.post("/v1/runs", json=WISH, headers=headers)
    assert his.json()["id"] != first.json()["id"]


async def test_twenty_of_the_same_at_once_start_one_run(ada: httpx.AsyncClient) -> None:
    sent = [ada.post("/v1/runs", json=WISH, headers={"Idempotency-Key": "rush"}) for _ in range(20)]
    answers = await asyncio.gather(*sent)
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1


async def test_a_caller_who_prefers_to_wait_gets_the_final_state(
    api: Api, ada: httpx.AsyncClient, worker_engine: AsyncEngine, redis: Redis
) -> None:
    async def work() -> None:
        async with api.client() as client:
            runs: list[Any] = []
            while not runs:
                listed = await client.get("/v1/runs", params={"status": "queued", "limit": 1})
                runs = [run for run in listed.json()["runs"] if run["title"] == "Quick"]
        await Writer(worker_engine, UUID(runs[0]["id"]), redis).append(started(), result())

    working = asyncio.create_task(work())
    answer = await ada.post("/v1/runs", json={**WISH, "title": "Quick"}, headers={"Prefer": "wait=5"})
    await working
    assert (answer.status_code, answer.headers["preference-applied"]) == (200, "wait=5")
    assert answer.json()["result"]["final"] is True
    assert answer.headers["location"] == answer.json()["links"]["self"]


async def test_a_run_that_takes_longer_than_the_caller_waits_is_202(ada: httpx.AsyncClient) -> None:
    answer = await ada.post("/v1/runs", json=WISH, headers={"Prefer": "wait=1"})
    assert (answer.status_code, answer.json()["status"]) == (202, "queued")
    assert answer.headers["preference-applied"] == "wait=1"


@pytest.mark.parametrize(
    ("body", "status", "pointer"),
    [
        (b"", 422, ""),
        (b"{", 422, ""),
        (b"[]", 422, ""),
        (b'"text"', 422, ""),
        (b'{"workflow":"contract_review"}', 422, "/input"),
        (b'{"workflow":7,"input":{"text":"x"}}', 422, "/workflow"),
        (b'{"workflow":"contract_review","input":{"text":"x"},"titel":"x"}', 422, "/titel"),
        (b'{"workflow":"contract_review","input":{"text":"x"},"title":""}', 422, "/title"),
        (b'{"workflow":"contract_review","input":{"text":""}}', 422, "/input/text"),
        (b'{"workflow":"contract_review","input":{"text":5}}', 422, "/input/text"),
        (b'{"workflow":"contract_review","input":{}}', 422, "/input"),
        (b'{"workflow":"contract_review","input":{"text":"x","more":1}}', 422, "/input"),
        (b'{"workflow":"contract_review","input":{"text":"x","policy":"loose"}}', 422, "/input/policy"),
        (b'{"workflow":"contract_review","input":{"text":"a\\u0000b"}}', 422, "/input/text"),
        (b'{"workflow":"contract_review","input":{"text":"\\ud800"}}', 422, "/input/text"),
        (b'{"workflow":"contract_review","input":{"text":NaN}}', 422, ""),
        (b'{"workflow":"contract_review","input":{"text":"x","text":"y"}}', 422, ""),
        (b'{"workflow":"contract_review","input":' + b"[" * 40 + b"]" * 40 + b"}", 422, None),
        (b'{"workflow":"contract_review","input":' + b"[" * 30_000, 422, None),
        (b'{"workflow":"contract_review","input":{"text":"x","n":' + b"9" * 5_000 + b"}}", 422, None),
        (b"\xff\xfe", 422, ""),
    ],
)
async def test_what_cannot_be_run_is_refused_with_the_place_and_without_repeating_it(
    ada: httpx.AsyncClient, body: bytes, status: int, pointer: str | None
) -> None:
    answer = await ada.post("/v1/runs", content=body, headers={"Content-Type": "application/json"})
    problem = answer.json()
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["status"] == status
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert pointer is None or pointer in [fault["pointer"] for fault in problem["errors"]]
    assert "loose" not in answer.text


async def test_an_unknown_workflow_names_those_that_the_caller_may_start(api: Api, ada: httpx.AsyncClient) -> None:
    answer = await ada.post("/v1/runs", json={**WISH, "workflow": "magic"})
    assert (answer.status_code, answer.json()["code"]) == (422, "unknown-workflow")
    assert answer.json()["allowed"] == ["contract_review"]
    async with api.client("operator") as operator:
        answer = await operator.post("/v1/runs", json={**WISH, "workflow": "magic"})
    assert answer.json()["allowed"] == ["contract_review", "drill"]


@pytest.mark.parametrize(
    ("role", "workflow"), [("user", "drill"), ("officer", "contract_review"), ("officer", "drill")]
)
async def test_a_role_that_the_policy_does_not_let_submit_is_refused(api: Api, role: Any, workflow: str) -> None:
    async with api.client(role) as client:
        answer = await client.post("/v1/runs", json={**WISH, "workflow": workflow})
    assert (answer.status_code, answer.json()["code"]) == (403, "not-allowed")


async def test_an_input_over_the_limit_is_refused(ada: httpx.AsyncClient) -> None:
    answer = await ada.post("/v1/runs", json={**WISH, "input": {"text": "x" * 270_000}})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/input")


# --- list, show


async def test_runs_are_listed_newest_first_page_by_page(api: Api) -> None:
    ids = [str(await api.submit(subject="lister")) for _ in range(5)]
    listed, before = list[str](), None
    async with api.client("user", "lister") as client:
        while True:
            page = (await client.get("/v1/runs", params={"limit": 2, **({"before": before} if before else {})})).json()
            assert set(page["runs"][0]) == {"id", "workflow", "title", "status", "created_at", "seq", "queue"}
            listed += [run["id"] for run in page["runs"]]
            if (before := page["next"]) is None:
                break
    assert listed == ids[::-1]


async def test_a_list_is_filtered_by_status_and_workflow(api: Api, worker_engine: AsyncEngine) -> None:
    run_id = await api.submit(subject="filter")
    await Writer(worker_engine, run_id).append(started(), result())
    await api.submit(subject="filter")
    async with api.client("user", "filter") as client:
        done = (await client.get("/v1/runs", params={"status": "completed"})).json()["runs"]
        assert [run["id"] for run in done] == [str(run_id)]
        assert (await client.get("/v1/runs", params={"workflow": "drill"})).json()["runs"] == []


@pytest.mark.parametrize("query", ["limit=0", "limit=1000", "limit=x", "limit=1_0", "status=done", "before=x"])
async def test_a_parameter_that_cannot_be_read_is_named(ada: httpx.AsyncClient, query: str) -> None:
    answer = await ada.get(f"/v1/runs?{query}")
    assert (answer.status_code, answer.json()["code"]) == (400, "bad-request")
    assert answer.json()["errors"][0]["pointer"] == "/query/" + query.partition("=")[0]


async def test_a_user_sees_their_own_runs_and_operator_and_officer_those_of_the_tenant(api: Api) -> None:
    run_id = await api.submit(subject="owner", tenant="seen")
    for role, subject in [("user", "owner"), ("operator", "other"), ("officer", "other")]:
        async with api.client(role, subject, "seen") as client:  # type: ignore[arg-type]
            assert (await client.get(f"/v1/runs/{run_id}")).status_code == 200
            assert [run["id"] for run in (await client.get("/v1/runs")).json()["runs"]] == [str(run_id)]


@pytest.mark.parametrize(("role", "subject", "tenant"), STRANGERS)
async def test_somebody_elses_run_answers_exactly_like_none(api: Api, role: Any, subject: str, tenant: str) -> None:
    run_id = await api.submit()
    nothing = "01928f3a-0000-7000-8000-0000000000aa"
    async with api.client(role, subject, tenant) as client:
        assert str(run_id) not in (await client.get("/v1/runs?limit=100")).text
        calls = [("GET", ""), ("GET", "/events"), ("GET", "/poll"), ("DELETE", ""), ("POST", "/cancel")]
        if role == "officer":
            calls += [("GET", "/replay"), ("GET", "/verification")]
        for method, rest in calls:
            room = "/v1/audit/runs" if rest in ("/replay", "/verification") else "/v1/runs"
            theirs, none = [await client.request(method, f"{room}/{id_}{rest}") for id_ in (run_id, nothing)]
            assert theirs.status_code == none.status_code == 404
            told = [
                {k: v for k, v in one.json().items() if k not in ("request_id", "instance")} for one in (theirs, none)
            ]
            assert told[0] == told[1]


@pytest.mark.parametrize("run_id", ["x", "1", "01928f3a0000700080000000000000aa", "%00", "..%2f..", "é"])
async def test_what_is_no_run_id_names_no_run(ada: httpx.AsyncClient, run_id: str) -> None:
    assert (await ada.get(f"/v1/runs/{run_id}")).status_code == 404


async def test_the_state_of_a_run_at_a_seq_and_at_a_time(
    api: Api, ada: httpx.AsyncClient, worker_engine: AsyncEngine, api_engine: AsyncEngine
) -> None:
    run_id = await ended_run(api, worker_engine)
    path = f"/v1/runs/{run_id}"
    assert (await ada.get(path)).json()["status"] == "completed"
    assert (await ada.get(path, params={"at": 1})).json()["status"] == "queued"
    then = (await ada.get(path, params={"at": 3})).json()
    assert (then["status"], then["partial"]["sections"]) == ("running", {"comments": "Clause 1"})
    first = (await stored(api_engine, run_id))[0]
    moment = datetime.fromtimestamp(first.recorded_us / 1_000_000, UTC).isoformat()
    assert (await ada.get(path, params={"at": moment})).json()["status"] == "queued"
    assert (await ada.get(f"{path}?at=2999-01-01T00:00:00+02:00")).json()["status"] == "completed"


@pytest.mark.parametrize("at", ["0", "5", "x", "2026-01-01", "2026-01-01T00:00:00", "2001-01-01T00:00:00Z", "-1"])
async def test_a_place_or_time_without_a_state_is_refused(
    api: Api, ada: httpx.AsyncClient, worker_engine: AsyncEngine, at: str
) -> None:
    run_id = await ended_run(api, worker_engine)
    answer = await ada.get(f"/v1/runs/{run_id}", params={"at": at})
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")


async def test_the_version_of_a_state_changes_with_each_event_and_at_the_end(
    api: Api, ada: httpx.AsyncClient, worker_engine: AsyncEngine
) -> None:
    run_id = await api.submit()
    writer, path, known = Writer(worker_engine, run_id), f"/v1/runs/{run_id}", set[str]()
    for bodies in ([], [started()], [token("a")], [result()]):
        if bodies:
            await writer.append(*bodies)
        answer = await ada.get(path)
        etag = answer.headers["etag"]
        assert etag not in known
        known.add(etag)
        same = await ada.get(path, headers={"If-None-Match": etag})
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", etag)


# --- cancel


@pytest.mark.parametrize("how", ["delete", "post"])
async def test_cancelling_is_202_while_it_stops_and_200_when_it_has(
    api: Api, ada: httpx.AsyncClient, worker_engine: AsyncEngine, api_engine: AsyncEngine, how: str
) -> None:
    run_id = await api.submit()
    writer, path = Writer(worker_engine, run_id), f"/v1/runs/{run_id}"
    await writer.append(started(), token("a"))

    async def ask() -> httpx.Response:
        if how == "delete":
            return await ada.delete(path)
        return await ada.post(f"{path}/cancel", json={"reason": "enough"})

    for _ in range(3):
        answer = await ask()
        assert (answer.status_code, answer.json()["status"], answer.json()["done"]) == (202, "stopping", False)
    requested = [event for event in await stored(api_engine, run_id) if event.type == "cancel_requested"]
    assert len(requested) == 1
    assert requested[0].fact().data["by"] == {"subject": "ada", "role": "user"}
    assert requested[0].fact().data["reason"] == ("no reason given" if how == "delete" else "enough")
    by = Person(subject="ada", role="user")
    partial = {"text": "a"}
    await writer.append(Cancelled(reason="enough", by=by, partial=partial, missing=["b"], assembled_by="default"))
    finals = [await ask() for _ in range(2)]
    for final in finals:
        assert (final.status_code, final.json()["status"], final.json()["done"]) == (200, "cancelled", True)
        assert final.json()["partial"]["final"] is False
        assert final.json()["partial"]["text"] == "a"
        assert final.json()["result"] is None


async def test_cancelling_a_finished_run_changes_nothing(
    api: Api, ada: httpx.AsyncClient, worker_engine: AsyncEngine, api_engine: AsyncEngine
) -> None:
    run_id = await ended_run(api, worker_engine)
    answer = await ada.delete(f"/v1/runs/{run_id}")
    assert (answer.status_code, answer.json()["status"], answer.json()["result"]["final"]) == (200, "completed", True)
    assert len(await stored(api_engine, run_id)) == 4


async def test_a_cancel_wakes_the_worker_and_hands_over_a_run_that_nobody_owns(
    api: Api, ada: httpx.AsyncClient, redis: Redis, worker_engine: AsyncEngine
) -> None:
    heard = wakeups.listen(redis, wakeups.CONTROL, wakeups.MOVED, wakeups.HANDOFF)
    owned, unowned = await api.submit(), await api.submit()
    await Writer(worker_engine, owned).append(started())
    for _ in range(3):
        assert (await anext(heard))[1] == ""  # subscribed
    for run_id in (owned, unowned):
        await ada.delete(f"/v1/runs/{run_id}")
    said = list[tuple[str, str]]()
    async with asyncio.timeout(10):
        async for hint in heard:
            said.append(hint)
            if {(wakeups.CONTROL, unowned.hex), (wakeups.CONTROL, owned.hex), (wakeups.HANDOFF, "")} <= set(said):
                break
    assert (wakeups.MOVED, f"{owned.hex}:3") in said
    assert said.count((wakeups.HANDOFF, "")) == 1
    await heard.aclose()  # type: ignore[attr-defined]


@pytest.mark.parametrize("body", [b'{"reason":5}', b'{"why":"x"}', b"[]", b"{", b'{"reason":"' + b"x" * 501 + b'"}'])
async def test_a_cancel_that_cannot_be_read_stops_nothing(api: Api, ada: httpx.AsyncClient, body: bytes) -> None:
    run_id = await api.submit()
    headers = {"Content-Type": "application/json"}
    answer = await ada.post(f"/v1/runs/{run_id}/cancel", content=body, headers=headers)
    assert answer.status_code == 422
    assert (await ada.get(f"/v1/runs/{run_id}")).json()["status"] == "queued"


async def test_an_officer_reads_and_does_not_stop(api: Api) -> None:
    run_id = await api.submit()
    async with api.client("officer") as officer:
        assert (await officer.delete(f"/v1/runs/{run_id}")).status_code == 403
        assert (await officer.get(f"/v1/runs/{run_id}")).json()["status"] == "queued"


async def test_without_redis_a_run_is_accepted_and_stopped_all_the_same(
    database_url: str, worker_engine: AsyncEngine
) -> None:
    async with serving(database_url, NOWHERE) as api, api.client() as client:
        run_id = await api.submit()
        assert (await client.delete(f"/v1/runs/{run_id}")).status_code == 202
        await until(lambda: len(api.service.errands) == 0)
