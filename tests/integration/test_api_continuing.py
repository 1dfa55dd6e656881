"""Asking for a run that continues another: what is taken from the earlier one, and every way in which it may not be."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine

from eventstore import catalogue, log
from eventstore.domain.events import Accepted, Cancelled, Error, Person, Retry
from ops.services import Endpoints
from tests.serving import DRILL, REVIEW, Api, Writer, register, serving
from tests.writing import events_of, result, started, token

WISH = {"workflow": "contract_review", "input": {"text": "Clause 1", "title": "NDA"}}
CUT = Error(code="model_length", message="It was cut.", partial={}, retryable=True, call="draft#1")
STOPPED = Cancelled(
    reason="enough", by=Person(subject="ada", role="user"), partial={}, missing=[], assembled_by="default"
)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def api(database_url: str, services: Endpoints, worker_engine: AsyncEngine) -> AsyncIterator[Api]:
    await register(worker_engine, {"contract_review": {**REVIEW, "resumes": [1]}, "drill": DRILL})
    async with serving(database_url, services.redis_url, poll_wait_s_max=5) as api:
        yield api


@pytest_asyncio.fixture(loop_scope="session")
async def ada(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    async with api.client() as client:
        yield client


async def begun(ada: httpx.AsyncClient, worker: AsyncEngine, *bodies: Any) -> str:
    """A run of which a worker has said this."""
    run_id = (await ada.post("/v1/runs", json=WISH)).json()["id"]
    await Writer(worker, UUID(run_id)).append(started(), token("Clause 1"), *bodies)
    return str(run_id)


async def accepted_of(engine: AsyncEngine, run_id: str) -> Accepted:
    async with engine.connect() as connection:
        [first, *_] = await events_of(connection, UUID(run_id))
    return Accepted.model_validate_json(first.body)


def told(answer: httpx.Response) -> tuple[int, str, list[str]]:
    body = answer.json()
    return answer.status_code, body.get("code", ""), [fault["pointer"] for fault in body.get("errors", [])]


async def test_a_run_that_was_cut_is_continued_with_its_own_workflow_input_and_title(
    ada: httpx.AsyncClient, worker_engine: AsyncEngine, api_engine: AsyncEngine
) -> None:
    earlier = await begun(ada, worker_engine, CUT)
    answer = await ada.post("/v1/runs", json={"continues": earlier})
    assert (answer.status_code, answer.json()["title"]) == (202, "NDA")
    accepted = await accepted_of(api_engine, answer.json()["id"])
    async with api_engine.connect() as connection:
        head = await log.head(connection, UUID(earlier))
        body = await catalogue.read_input(connection, UUID(answer.json()["id"]))
        [first, *_] = await events_of(connection, UUID(earlier))
    assert head is not None
    assert accepted.continues is not None
    assert accepted.continues.model_dump() == {
        "run_id": earlier,
        "seq": head.seq,
        "chain": head.chain.hex(),
        "origin": {"run_id": earlier, "at_us": first.recorded_us},
    }
    assert body == b'{"text":"Clause 1","title":"NDA"}'
    assert (accepted.workflow, accepted.workflow_version) == ("contract_review", 1)


async def test_one_that_continues_is_continued_in_turn_and_names_the_first(
    ada: httpx.AsyncClient, worker_engine: AsyncEngine, api_engine: AsyncEngine
) -> None:
    first = await begun(ada, worker_engine, CUT)
    second = (await ada.post("/v1/runs", json={"continues": first, "title": "Again"})).json()
    await Writer(worker_engine, UUID(second["id"])).append(started(), CUT)
    third = await ada.post("/v1/runs", json={"continues": second["id"]})
    continues = (await accepted_of(api_engine, third.json()["id"])).continues
    assert continues is not None
    assert (continues.run_id, continues.origin.run_id) == (second["id"], first)
    assert third.json()["title"] == "Again"


async def test_the_same_input_may_be_sent_and_no_other(ada: httpx.AsyncClient, worker_engine: AsyncEngine) -> None:
    earlier = await begun(ada, worker_engine, CUT)
    same = {"title": "NDA", "text": "Clause 1"}
    answer = await ada.post("/v1/runs", json={**WISH, "input": same, "continues": earlier})
    assert answer.status_code == 202
    for other in ({**same, "text": "Clause 2"}, {}, None):
        answer = await ada.post("/v1/runs", json={"input": other, "continues": earlier})
        assert told(answer) == (422, "invalid-input", ["/input"]), other


async def test_only_a_run_that_ended_without_a_result_is_continued(
    ada: httpx.AsyncClient, worker_engine: AsyncEngine
) -> None:
    for end, status in ((CUT, 202), (STOPPED, 202), (result(), 409), (None, 409)):
        earlier = await begun(ada, worker_engine, *([end] if end is not None else []))
        answer = await ada.post("/v1/runs", json={"continues": earlier})
        assert answer.status_code == status, end
        if status == 409:
            assert answer.json()["code"] == "not-continuable"
            assert ("has its result" in answer.json()["detail"]) == (end is not None)
    queued = (await ada.post("/v1/runs", json=WISH)).json()["id"]
    assert told(await ada.post("/v1/runs", json={"continues": queued}))[:2] == (409, "not-continuable")


async def test_a_run_of_somebody_else_looks_like_none(
    api: Api, ada: httpx.AsyncClient, worker_engine: AsyncEngine
) -> None:
    earlier = await begun(ada, worker_engine, CUT)
    unknown = await ada.post("/v1/runs", json={"continues": str(uuid4())})
    nonsense = await ada.post("/v1/runs", json={"continues": "none"})
    assert told(unknown) == told(nonsense) == (404, "run-not-found", ["/continues"])
    for role, subject, tenant in (("user", "bob", "acme"), ("user", "ada", "globex"), ("operator", "x", "globex")):
        async with api.client(role, subject, tenant) as stranger:  # type: ignore[arg-type]
            answer = await stranger.post("/v1/runs", json={"continues": earlier})
        assert told(answer) == told(unknown)
        assert answer.json()["detail"] == unknown.json()["detail"]
    async with api.client("officer", "o") as officer:
        assert told(await officer.post("/v1/runs", json={"continues": earlier}))[:2] == (403, "not-allowed")


async def test_what_is_not_said_right_is_named(ada: httpx.AsyncClient, worker_engine: AsyncEngine) -> None:
    earlier = await begun(ada, worker_engine, CUT)
    for wish, pointers in (
        ({"continues": 7}, ["/continues"]),
        ({"continues": None, **WISH}, ["/continues"]),
        ({"continues": earlier, "workflow": "drill"}, ["/workflow"]),
        ({"continues": earlier, "workflow": 7}, ["/workflow"]),
        ({"continued": earlier}, ["/continued", "/workflow", "/input"]),
    ):
        assert told(await ada.post("/v1/runs", json=wish)) == (422, "invalid-input", pointers), wish


async def test_the_same_request_under_one_key_continues_once(
    ada: httpx.AsyncClient, worker_engine: AsyncEngine
) -> None:
    earlier, other = [await begun(ada, worker_engine, CUT) for _ in range(2)]
    headers = {"Idempotency-Key": f"go on with {earlier}"}
    first = await ada.post("/v1/runs", json={"continues": earlier}, headers=headers)
    again = await ada.post("/v1/runs", json={"continues": earlier}, headers=headers)
    assert (first.json(), again.headers["idempotent-replayed"]) == (again.json(), "true")
    for wish in ({"continues": other}, {**WISH, "continues": earlier}, WISH):
        answer = await ada.post("/v1/runs", json=wish, headers=headers)
        assert told(answer)[:2] == (422, "idempotency-mismatch"), wish


async def test_a_version_that_no_worker_carries_is_not_continued(
    api: Api,
    ada: httpx.AsyncClient,
    worker_engine: AsyncEngine,
    api_engine: AsyncEngine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    anew = Retry(
        what="run", key="run", reason="version_gone", message="", superseded=[], attempt=1, next_attempt=2, version=2
    )
    old = await begun(ada, worker_engine, CUT)
    moved = await begun(ada, worker_engine, anew, CUT)
    offers = api.service.offers
    known = dict(await offers.all())
    monkeypatch.setattr(offers, "_until", float("inf"))
    for version, resumes, carried in ((2, (2,), [moved]), (3, (1, 3), [old]), (1, None, [])):
        manifest = known["contract_review"].manifest.model_copy(update={"resumes": resumes})
        offer = replace(known["contract_review"], version=version, manifest=manifest)
        monkeypatch.setattr(offers, "_offers", {**known, "contract_review": offer})
        for earlier in (old, moved):
            answer = await ada.post("/v1/runs", json={"continues": earlier})
            if earlier in carried:
                accepted = await accepted_of(api_engine, answer.json()["id"])
                assert accepted.workflow_version == (1 if earlier == old else 2)
            else:
                assert told(answer)[:2] == (409, "not-continuable"), (version, earlier == old)


@pytest.mark.parametrize("where", ["", "/poll"])
async def test_a_run_that_may_be_continued_says_where(
    ada: httpx.AsyncClient, worker_engine: AsyncEngine, where: str
) -> None:
    for end, offered in ((CUT, "/v1/runs"), (STOPPED, "/v1/runs"), (result(), None), (None, None)):
        run_id = await begun(ada, worker_engine, *([end] if end is not None else []))
        links = (await ada.get(f"/v1/runs/{run_id}{where}")).json()["links"]
        assert links.get("continue") == offered, end
