"""The edges of the API over a real server: keys, refusals, headers, sizes, the page, what is logged."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from api.keys import create_key
from eventstore import catalogue
from eventstore.database import SCHEMA_VERSION, sync_engine
from ops.services import Endpoints
from tests.serving import DRILL, REVIEW, Api, register, serving

WISH = {"workflow": "contract_review", "input": {"text": "Clause 1"}}
NO_KEY = "rw_0123456789abcdef_" + "0" * 64


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def api(database_url: str, services: Endpoints, worker_engine: AsyncEngine) -> AsyncIterator[Api]:
    broken = {**REVIEW, "input_schema": {"type": "nonsense"}}
    await register(worker_engine, {"contract_review": REVIEW, "drill": DRILL, "broken": broken})
    async with serving(database_url, services.redis_url, request_bytes_max=300_000) as api:
        yield api


@pytest_asyncio.fixture(loop_scope="session")
async def ada(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    async with api.client() as client:
        yield client


@pytest_asyncio.fixture(loop_scope="session")
async def nobody(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=api.address) as client:
        yield client


def assert_problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    told: dict[str, Any] = answer.json()
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert {"type", "title", "status", "detail", "instance", "code", "request_id"} <= set(told)
    assert (told["status"], told["code"], told["type"]) == (status, code, f"urn:runwire:problem:{code}")
    return told


# --- keys


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Basic YTpi"},
        {"Authorization": "Bearer nonsense"},
        {"Authorization": f"Bearer {NO_KEY}"},
        {"X-API-Key": NO_KEY},
        {"X-API-Key": "x" * 5_000},
        {"X-API-Key": "caf\xe9".encode("latin-1")},
    ],
)
async def test_without_a_good_key_there_is_nothing(nobody: httpx.AsyncClient, headers: dict[str, Any]) -> None:
    for path in ("/v1/runs", "/v1/workflows", "/v1/audit/runs/x/replay", "/v1/runs/x/events"):
        answer = await nobody.get(path, headers=headers)
        assert_problem(answer, 401, "not-authenticated")
        assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_a_key_is_taken_from_either_header_and_never_from_the_address(
    api: Api, nobody: httpx.AsyncClient
) -> None:
    key = api.key()
    assert (await nobody.get("/v1/runs", headers={"Authorization": f"bearer {key}"})).status_code == 200
    assert (await nobody.get("/v1/runs", headers={"X-API-Key": key})).status_code == 200
    for name in ("key", "api_key", "access_token", "token", "ticket"):
        assert (await nobody.get("/v1/runs", params={name: key})).status_code == 401


async def test_a_key_with_a_wrong_secret_is_nobodys(api: Api, nobody: httpx.AsyncClient) -> None:
    key = api.key()
    assert (await nobody.get("/v1/runs", headers={"X-API-Key": key})).status_code == 200  # it is remembered now
    forged = key[:-1] + ("0" if key[-1] != "0" else "1")
    assert (await nobody.get("/v1/runs", headers={"X-API-Key": forged})).status_code == 401


async def test_a_revoked_key_is_forgotten_in_time(
    api: Api, nobody: httpx.AsyncClient, owner_engine: AsyncEngine
) -> None:
    key = api.key("user", "leaver")
    assert (await nobody.get("/v1/runs", headers={"X-API-Key": key})).status_code == 200
    async with owner_engine.begin() as connection:
        await connection.execute(text("UPDATE runwire.api_key SET revoked_at = now() WHERE subject = 'leaver'"))
    known = api.service.keys._known
    key_id = key.split("_")[1]
    known[key_id] = known[key_id]._replace(until=0.0)  # as after its time
    assert (await nobody.get("/v1/runs", headers={"X-API-Key": key})).status_code == 401


async def test_the_database_holds_no_key(api: Api, owner_engine: AsyncEngine) -> None:
    key = api.key()
    async with owner_engine.connect() as connection:
        rows = await connection.execute(text("SELECT k::text, encode(digest, 'escape') FROM runwire.api_key k"))
        assert key.rpartition("_")[2] not in str(list(rows))


@pytest.mark.parametrize(("tenant", "subject", "role"), [("", "a", "user"), ("a", " ", "user"), ("a", "a", "root")])
def test_a_key_for_nobody_is_not_made(database_url: str, tenant: str, subject: str, role: Any) -> None:
    engine = sync_engine(database_url, application="tests-keys")
    with pytest.raises(ValueError, match=r"role|needs"):
        create_key(engine, tenant, subject, role)
    engine.dispose()


# --- refusals


@pytest.mark.parametrize("path", ["/nothing", "/v1", "/v1/nothing", "/v1/runs/", "/../api/keys.py", "/%2e%2e/keys.py"])
async def test_where_there_is_nothing_the_answer_is_a_problem(ada: httpx.AsyncClient, path: str) -> None:
    assert_problem(await ada.get(path), 404, "not-found")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/v1/runs", "GET, POST"),
        ("POST", "/v1/runs/x", "GET, DELETE"),
        ("GET", "/v1/runs/x/cancel", "POST"),
        ("POST", "/v1/runs/x/events", "GET, HEAD"),
        ("DELETE", "/v1/workflows", "GET"),
    ],
)
async def test_a_method_that_is_not_served_names_those_that_are(
    ada: httpx.AsyncClient, method: str, path: str, allow: str
) -> None:
    answer = await ada.request(method, path)
    assert_problem(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == allow


async def test_a_format_that_is_not_served_is_refused(api: Api, ada: httpx.AsyncClient) -> None:
    run_id = await api.submit()
    for path in ("/v1/runs", f"/v1/runs/{run_id}", f"/v1/runs/{run_id}/events", f"/v1/runs/{run_id}/poll"):
        told = assert_problem(await ada.get(path, headers={"Accept": "text/html"}), 406, "not-acceptable")
        assert "application/json" in told["allowed"]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/xml", ""])
async def test_a_body_that_is_not_json_is_refused(ada: httpx.AsyncClient, kind: str) -> None:
    answer = await ada.post("/v1/runs", content=json.dumps(WISH), headers={"Content-Type": kind})
    assert assert_problem(answer, 415, "unsupported-media")["allowed"] == ["application/json"]


@pytest.mark.parametrize("size", [300_001, 5_000_000])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_the_limit_is_refused_however_it_is_sent(
    ada: httpx.AsyncClient, chunked: bool, size: int
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, size, 50_000):
            yield b"x" * min(50_000, size - start)

    content: Any = pieces() if chunked else b"x" * size
    answer = await ada.post("/v1/runs", content=content, headers={"Content-Type": "application/json"})
    assert_problem(answer, 413, "too-large")
    assert (await ada.get("/v1/runs")).status_code == 200


async def test_what_is_no_http_gets_a_problem_too(api: Api) -> None:
    host, port = api.address.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"NONSENSE\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"application/problem+json" in answer


async def test_what_went_wrong_inside_is_a_500_that_tells_nothing(
    api: Api, ada: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("Clause 4.1 of the contract")

    monkeypatch.setattr(catalogue, "list_runs", broken)
    with structlog.testing.capture_logs() as logs:
        told = assert_problem(await ada.get("/v1/runs"), 500, "internal")
    assert "Clause" not in json.dumps(told)
    [unexpected] = [line for line in logs if line["event"] == "unexpected"]
    assert (unexpected["fault"], unexpected["request_id"]) == ("RuntimeError", told["request_id"])
    assert any("broken" in place for place in unexpected["where"])
    assert "Clause" not in str(logs)


# --- headers, logs


@pytest.mark.parametrize(("sent", "kept"), [("abc-1.2_3", True), ("x" * 65, False), ("a b", False), ("", False)])
async def test_a_sane_request_id_is_kept_and_another_one_replaced(
    ada: httpx.AsyncClient, sent: str, kept: bool
) -> None:
    given = (await ada.get("/v1/runs", headers={"X-Request-Id": sent})).headers["x-request-id"]
    assert (given == sent) is kept
    assert given


async def test_every_answer_carries_the_security_headers(ada: httpx.AsyncClient) -> None:
    for path in ("/", "/v1/runs", "/v1/nothing", "/healthz"):
        headers = (await ada.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
        assert "server" not in headers
        assert headers.get("cache-control") == ("no-store" if path.startswith("/v1/") else headers.get("cache-control"))


async def test_the_access_line_holds_neither_query_nor_key(api: Api, ada: httpx.AsyncClient) -> None:
    with structlog.testing.capture_logs() as logs:
        await ada.get("/v1/runs", params={"workflow": "secret-name", "limit": 3}, headers={"X-Request-Id": "mine"})
    [line] = [line for line in logs if line.get("request_id") == "mine"]
    assert (line["method"], line["path"], line["status"]) == ("GET", "/v1/runs", 200)
    assert line["key_id"] == api.key().split("_")[1]
    assert "secret-name" not in str(logs)
    assert api.key().rpartition("_")[2] not in str(logs)


# --- workflows, page, operations


async def test_callers_are_told_of_the_workflows_that_they_may_start(api: Api, ada: httpx.AsyncClient) -> None:
    [review] = (await ada.get("/v1/workflows")).json()["workflows"]
    assert (review["name"], review["title"]) == ("contract_review", "Contract review")
    assert {"milestones", "input_schema", "samples", "limits", "summary"} <= set(review)
    assert review == (await ada.get("/v1/workflows/contract_review")).json()
    assert assert_problem(await ada.get("/v1/workflows/drill"), 404, "not-found")["allowed"] == ["contract_review"]
    async with api.client("operator") as operator:
        names = [one["name"] for one in (await operator.get("/v1/workflows")).json()["workflows"]]
    assert names == ["contract_review", "drill"]
    async with api.client("officer") as officer:
        assert (await officer.get("/v1/workflows")).json() == {"workflows": []}


async def test_the_page_is_served_at_the_root(nobody: httpx.AsyncClient) -> None:
    page = await nobody.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert page.headers["cache-control"] == "no-cache"
    assert (await nobody.get("/console.js")).headers["content-type"].startswith("text/javascript")


async def test_the_process_says_that_it_works_and_that_it_can_serve(nobody: httpx.AsyncClient) -> None:
    assert (await nobody.get("/healthz")).json() == {"status": "ok"}
    ready = await nobody.get("/readyz")
    assert ready.status_code == 200
    assert ready.json() == {"ready": True, "postgres": "ok", "redis": "ok", "draining": False}


@pytest.mark.parametrize(
    ("version", "status"), [("log_1", 503), ("0002", 503), (SCHEMA_VERSION, 200), ("coming_99", 200)]
)
async def test_an_older_or_unknown_database_is_not_ready_and_a_later_one_is(
    nobody: httpx.AsyncClient, owner_engine: AsyncEngine, version: str, status: int
) -> None:
    put = text("UPDATE alembic_version SET version_num = :version")
    async with owner_engine.begin() as connection:
        await connection.execute(put, {"version": version})
    ready = await nobody.get("/readyz")
    async with owner_engine.begin() as connection:
        await connection.execute(put, {"version": SCHEMA_VERSION})
    assert (ready.status_code, ready.json()["ready"]) == (status, status == 200)
    assert ready.json()["postgres"] == ("ok" if status == 200 else f"at version {version}, not {SCHEMA_VERSION}")


async def test_the_description_names_every_route_and_the_shape_of_problems(nobody: httpx.AsyncClient) -> None:
    document = (await nobody.get("/openapi.json")).json()
    assert {"/v1/runs", "/v1/runs/{run_id}/events", "/v1/runs/{run_id}/poll"} <= set(document["paths"])
    assert "Problem" in document["components"]["schemas"]
    stream = document["paths"]["/v1/runs/{run_id}/events"]["get"]["responses"]["200"]["content"]
    assert "itemSchema" in stream["text/event-stream"]
    assert "HTTPValidationError" not in json.dumps(document["paths"])
