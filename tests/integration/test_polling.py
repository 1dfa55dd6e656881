"""The polling front, over real servers: what its answers promise to readers who have nothing but short requests."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import httpx
import pytest
import pytest_asyncio
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from api.callers import Caller
from api.errors import TooManyRequests
from api.fronts import advice
from api.limits import Limits
from api.lines import InLine
from api.standings import Standings
from eventstore.catalogue import RunRow
from eventstore.domain.events import Body, Cancelled, Escalation, Finding, Person, Retry
from ops.services import Endpoints
from tests.serving import Api, Writer, register, serving, until
from tests.writing import result, started, token

SHORT_S = 2.0  # what the network lets a request take


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def api(database_url: str, services: Endpoints, worker_engine: AsyncEngine) -> AsyncIterator[Api]:
    await register(worker_engine)
    limits = {"poll_draft_chars": 40, "poll_gzip_bytes_min": 2_000, "page_events_max": 100}
    async with serving(database_url, services.redis_url, page_events_default=50, **limits) as api:
        yield api


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def other(database_url: str, api: Api) -> AsyncIterator[Api]:
    """Another process, from which no wake-up ever comes."""
    async with serving(database_url) as other:
        other._keys = api._keys
        yield other


@pytest_asyncio.fixture(loop_scope="session")
async def ada(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    async with api.client() as client:
        yield client


@pytest_asyncio.fixture(loop_scope="session")
async def writer(api: Api, worker_engine: AsyncEngine, redis: Redis) -> Writer:
    return Writer(worker_engine, await api.submit(), redis)


def poll_path(run_id: UUID) -> str:
    return f"/v1/runs/{run_id}/poll"


def taking_back(*seqs: int) -> Retry:
    return Retry(
        what="model", key="k", reason="timeout", message="again", attempt=1, next_attempt=2,
        superseded=[(seq, seq) for seq in seqs],
    )  # fmt: skip


# --- versions


@pytest.mark.parametrize("by", ["the same process", "another process"])
@pytest.mark.parametrize("limit", [None, 3])
async def test_who_has_just_stopped_a_run_is_never_told_that_nothing_has_changed(
    api: Api, other: Api, ada: httpx.AsyncClient, writer: Writer, by: str, limit: int | None
) -> None:
    await writer.append(started(), token("a"))
    params = {"limit": limit} if limit else {}
    known = (await ada.get(poll_path(writer.run_id), params=params)).headers["etag"]
    same = await ada.get(poll_path(writer.run_id), params=params, headers={"If-None-Match": known})
    assert same.status_code == 304
    async with (api if by == "the same process" else other).client() as stopping:
        assert (await stopping.delete(f"/v1/runs/{writer.run_id}")).status_code == 202
    after = await ada.get(poll_path(writer.run_id), params={"after": 3}, headers={"If-None-Match": known})
    assert (after.status_code, after.json()["status"]) == (200, "stopping")
    assert [event["type"] for event in after.json()["events"]] == ["cancel_requested"]


async def test_who_has_read_to_the_end_may_show_the_version_of_the_answer_that_led_there(
    ada: httpx.AsyncClient, writer: Writer
) -> None:
    await writer.append(started(), token("a"), token("b"))
    path = poll_path(writer.run_id)
    whole = await ada.get(path)
    assert whole.json()["next_after"] == 4
    end = await ada.get(path, params={"after": 4}, headers={"If-None-Match": whole.headers["etag"]})
    assert end.status_code == 304
    part = await ada.get(path, params={"limit": 2})
    lacking = await ada.get(path, params={"after": 2}, headers={"If-None-Match": part.headers["etag"]})
    assert [event["seq"] for event in lacking.json()["events"]] == [3, 4]
    full: dict[str, Any] = {"after": 4, "partial": "full"}
    assert (await ada.get(path, params=full, headers={"If-None-Match": whole.headers["etag"]})).status_code == 200


async def test_the_long_way_through_the_framework_gives_the_same_answers(
    ada: httpx.AsyncClient, writer: Writer
) -> None:
    await writer.append(started(), token("Clause "), token("4.1"), token(" and more of it than an answer holds"))
    some: dict[str, Any] = {"types": "token,result", "after": 1}
    drafts: list[dict[str, Any]] = [{"partial": name} for name in ("recent", "full", "delta", "none")]
    cursors: list[dict[str, Any]] = [{}, {"after": 2}, {"after": 2, "limit": 1}, {"wait": 0, "turn": "x"}, {"after": 5}]
    for asked in [*cursors, *drafts, some]:
        short = await ada.get(poll_path(writer.run_id), params=asked)
        long = await ada.get(poll_path(writer.run_id), params={**asked, "unknown": "1"})
        for answer in (short, long):
            assert answer.status_code == 200
        bodies = [answer.json() for answer in (short, long)]
        ways = [_asked(body["links"].pop("next")) for body in bodies]
        assert bodies[0] == bodies[1]
        assert ways[0] == ways[1]
        told = [
            {name: answer.headers.get(name) for name in ("etag", "retry-after", "vary")} for answer in (short, long)
        ]
        assert told[0] == told[1]
        known = {"If-None-Match": short.headers["etag"]}
        for more in (dict[str, str](), {"unknown": "1"}):
            assert (await ada.get(poll_path(writer.run_id), params={**asked, **more}, headers=known)).status_code == 304


def _asked(address: str) -> dict[str, list[str]]:
    asked = parse_qs(urlsplit(address).query)
    assert asked.pop("turn")
    return asked


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("partial=most", 400),
        ("after=1&after=0", 200),
        ("after=%31", 200),
        ("after=", 400),
        ("limit=0", 400),
        ("limit=101", 400),
        ("turn=%F0%9F%98%80", 200),
        ("turn=" + "x" * 41, 400),
        ("after=9999999999", 400),
        ("after=1;limit=2", 400),
        ("&&", 200),
    ],
)
async def test_what_is_not_plain_is_judged_as_ever(
    ada: httpx.AsyncClient, writer: Writer, query: str, status: int
) -> None:
    answer = await ada.get(f"{poll_path(writer.run_id)}?{query}")
    assert answer.status_code == status, answer.text
    if status == 400:
        assert answer.headers["content-type"] == "application/problem+json"


async def test_the_short_way_lets_nobody_in_who_may_not(api: Api, ada: httpx.AsyncClient, writer: Writer) -> None:
    path = poll_path(writer.run_id)
    async with httpx.AsyncClient(base_url=api.address) as nobody:
        refused = await nobody.get(path)
        assert (refused.status_code, refused.json()["code"]) == (401, "not-authenticated")
        assert refused.headers["www-authenticate"].startswith("Bearer")
    for stranger in ({"subject": "bob"}, {"tenant": "globex"}):
        async with api.client(**stranger) as client:  # type: ignore[arg-type]
            answer = await client.get(path)
            assert (answer.status_code, answer.json()["code"]) == (404, "run-not-found")
    for unknown in ("/v1/runs/nothing/poll", poll_path(UUID(int=1))):
        assert (await ada.get(unknown)).json()["code"] == "run-not-found"
    assert (await ada.get(path, headers={"Accept": "text/html"})).status_code == 406
    assert (await ada.post(path)).headers["allow"] == "GET, HEAD"


async def test_the_short_way_counts_for_the_limits_of_its_caller(
    api: Api, ada: httpx.AsyncClient, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_too_many(self: Limits, caller: Caller) -> None:
        raise TooManyRequests(1.0, 1.0, 3.0)

    monkeypatch.setattr(Limits, "request", one_too_many)
    for more in ({}, {"unknown": "1"}):
        answer = await ada.get(poll_path(writer.run_id), params=more)
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "3")
        assert "ratelimit" in answer.headers


async def test_head_tells_the_same_without_the_body(ada: httpx.AsyncClient, writer: Writer) -> None:
    await writer.append(started(), token("a"))
    for more in ({}, {"unknown": "1"}):
        got, head = [await ada.request(way, poll_path(writer.run_id), params=more) for way in ("GET", "HEAD")]
        assert (head.status_code, head.content) == (200, b"")
        for name in ("etag", "retry-after", "content-type", "content-length"):
            assert head.headers[name] == got.headers[name]
        known = {"If-None-Match": head.headers["etag"]}
        assert (await ada.head(poll_path(writer.run_id), params=more, headers=known)).status_code == 304


# --- where and when to ask on


class Careless(httpx.AsyncBaseTransport):
    """A cache that keeps every answer for ever, whatever it was told, and knows nothing but addresses."""

    def __init__(self) -> None:
        self._inner = httpx.AsyncHTTPTransport()
        self._kept: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.repeated = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        address = str(request.url)
        if address not in self._kept:
            answer = await self._inner.handle_async_request(request)
            headers = {"retry-after": answer.headers.get("retry-after", "")}
            self._kept[address] = (answer.status_code, headers, await answer.aread())
        else:
            self.repeated += 1
        status, headers, body = self._kept[address]
        return httpx.Response(status, headers=headers, content=body)

    async def aclose(self) -> None:
        await self._inner.aclose()


async def test_behind_a_cache_that_keeps_what_it_must_not_a_reader_comes_to_the_end(
    api: Api, ada: httpx.AsyncClient, writer: Writer
) -> None:
    await writer.append(started(), token("a"))
    cache = Careless()
    headers = {"Authorization": ada.headers["Authorization"], "Accept-Encoding": "identity"}
    steps: list[list[Body]] = [[token("b"), token("c")], [], [token("d")], [], [], [result()], []]
    async with httpx.AsyncClient(transport=cache, base_url=api.address, headers=headers) as behind:
        seen, address, asked = list[int](), f"{poll_path(writer.run_id)}?limit=2", set[str]()
        while True:
            assert address not in asked, "the same address twice: the cache would repeat itself for ever"
            asked.add(address)
            page = (await behind.get(address)).json()
            seen += [event["seq"] for event in page["events"]]
            after = int(parse_qs(urlsplit(address).query).get("after", ["0"])[0])
            assert page["next_after"] >= after
            if page["done"] and not page["more"]:
                break
            if not page["more"] and (bodies := steps.pop(0)):
                await writer.append(*bodies)
            address = page["links"]["next"]
        assert "next" not in page["links"]
        assert seen == [*range(1, 8)]
        # Old answers that come again move nobody back.
        for address in asked:
            page = (await behind.get(address)).json()
            assert page["next_after"] >= int(parse_qs(urlsplit(address).query).get("after", ["0"])[0])
    assert cache.repeated == len(asked)


async def test_an_answer_without_news_says_where_to_ask_on_too(ada: httpx.AsyncClient, writer: Writer) -> None:
    await writer.append(started())
    first = await ada.get(poll_path(writer.run_id), params={"after": 2, "limit": 7, "wait": 0, "partial": "none"})
    same = await ada.get(first.json()["links"]["next"], headers={"If-None-Match": first.headers["etag"]})
    assert same.status_code == 304
    found = same.links["next"]["url"]
    assert _asked(found) == {"after": ["2"], "limit": ["7"], "wait": ["0"], "partial": ["none"]}
    assert found != str(same.url.raw_path, "ascii")


@pytest.mark.parametrize(
    ("status", "silent_s", "position", "unasked", "advised"),
    [
        ("running", 0, None, True, "1"),
        ("running", 35, None, True, "3"),
        ("running", 10_000, None, True, "10"),
        ("running", 10_000, None, False, "2"),
        ("stopping", 0, None, True, "1"),
        ("waiting", 0, None, True, "2"),
        ("waiting", 60, None, True, "6"),
        ("queued", 0, 1, True, "2"),
        ("queued", 0, 20, True, "4"),
        ("queued", 0, 20, False, "2"),
        ("queued", 0, 4_000, True, "10"),
        ("queued", 0, None, True, "2"),
    ],
)
def test_a_run_that_says_nothing_or_waits_far_back_is_asked_for_less_often(
    api: Api, monkeypatch: pytest.MonkeyPatch, status: Any, silent_s: float, position: int, unasked: bool, advised: str
) -> None:
    run = RunRow(UUID(int=7), UUID(int=1), "ada", "w", "t", 0, status, 3)
    monkeypatch.setattr(Standings, "silent_s", lambda self, run: silent_s)
    monkeypatch.setattr(api.service.readers, "_unasked", {run.run_id} if unasked else set())
    place = InLine(position=position, exact=True, reason="turn") if position else None
    assert advice.retry_after(api.service, run, status, place) == advised


async def test_news_are_asked_for_soon_again(api: Api, ada: httpx.AsyncClient, writer: Writer) -> None:
    await writer.append(started())
    path = poll_path(writer.run_id)
    assert (await ada.get(path)).headers["retry-after"] == "1"
    await until(lambda: api.service.readers.unasked(writer.run_id))
    moves = api.service.standings._moves
    seq, at = moves[writer.run_id]
    moves[writer.run_id] = (seq, at - 60)
    assert (await ada.get(path)).headers["retry-after"] == "6"
    await writer.append(token("a"))
    assert (await ada.get(path)).headers["retry-after"] == "1"


# --- drafts, and how they travel


async def test_the_draft_is_its_end_all_of_it_what_was_added_or_none(ada: httpx.AsyncClient, writer: Writer) -> None:
    about: dict[str, Any] = {"key": "f", "place": 1, "args": "00"}
    await writer.append(
        started(), *(token(f"word {n:02} ") for n in range(10)), Finding(item="i", value={"a": 1}, **about)
    )

    async def draft(**asked: Any) -> Any:
        return (await ada.get(poll_path(writer.run_id), params=asked)).json()["partial"]

    words = [f"word {n:02} " for n in range(10)]
    assert await draft() == {
        "final": False, "cut": True, "sections": {"comments": "".join(words[5:])}, "findings": [{"a": 1}]
    }  # fmt: skip
    whole = {"final": False, "sections": {"comments": "".join(words)}, "findings": [{"a": 1}]}
    assert await draft(partial="full") == whole
    assert await draft(partial="none") is None
    found = {"item": "i", "seq": 13, "value": {"a": 1}}
    assert await draft(partial="delta", after=11) == {
        "final": False, "since": 11, "sections": {"comments": words[9]}, "findings": [found]
    }  # fmt: skip
    part = {"final": False, "since": 5, "sections": {"comments": words[3] + words[4]}, "findings": []}
    assert await draft(partial="delta", after=5, limit=2) == part  # of this page, as the cursor goes
    await writer.append(taking_back(12))
    replaced = {"final": False, "since": None, "sections": {"comments": "".join(words[:9])}, "findings": [found]}
    assert await draft(partial="delta", after=13) == replaced
    await writer.append(token("x"))
    assert await draft(partial="delta", after=13, limit=1) == replaced  # as it was there
    await writer.append(result())
    for name in ("recent", "full", "delta", "none"):
        assert await draft(partial=name, after=13) is None


async def test_a_large_answer_is_compressed_for_who_asks_and_a_small_one_is_not(
    ada: httpx.AsyncClient, writer: Writer
) -> None:
    await writer.append(started(), *(token("x") for _ in range(20)))
    plain = await ada.get(poll_path(writer.run_id), headers={"Accept-Encoding": "identity"})
    assert len(plain.content) > 2_000
    async with ada.stream("GET", poll_path(writer.run_id), headers={"Accept-Encoding": "gzip"}) as answer:
        raw = b"".join([chunk async for chunk in answer.aiter_raw()])
    assert (answer.headers["content-encoding"], "Accept-Encoding" in answer.headers["vary"]) == ("gzip", True)
    assert len(raw) < len(plain.content) / 2
    bodies = [json.loads(body) for body in (gzip.decompress(raw), plain.content)]
    for body in bodies:
        body["links"].pop("next")
    assert bodies[0] == bodies[1]
    small = await ada.get(poll_path(writer.run_id), params={"after": 22}, headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in small.headers
    live = await ada.get(f"/v1/runs/{writer.run_id}/events", headers={"Accept": "application/json"})
    assert "content-encoding" not in live.headers


async def test_only_some_types_come_and_the_draft_with_them(ada: httpx.AsyncClient, writer: Writer) -> None:
    await writer.append(started(), token("a"), token("b"))
    asked: dict[str, Any] = {"types": "started,finding", "partial": "delta"}
    first = await ada.get(poll_path(writer.run_id), params=asked)
    page = first.json()
    assert ([event["type"] for event in page["events"]], page["next_after"], page["more"]) == (["started"], 4, False)
    assert page["partial"]["sections"] == {"comments": "ab"}
    assert _asked(page["links"]["next"]) == {"after": ["4"], "partial": ["delta"], "types": ["finding,started"]}
    known = {"If-None-Match": first.headers["etag"]}
    assert (await ada.get(page["links"]["next"], headers=known)).status_code == 304
    assert (await ada.get(poll_path(writer.run_id), params={"after": 4}, headers=known)).status_code == 200
    await writer.append(token("c"))
    page = (await ada.get(page["links"]["next"], headers=known)).json()
    assert (page["events"], page["next_after"], page["partial"]["sections"]) == ([], 5, {"comments": "c"})
    waiting = asyncio.create_task(ada.get(poll_path(writer.run_id), params={**asked, "after": 5, "wait": 8}))
    await writer.append(token("d"))
    await writer.append(result())
    page = (await asyncio.wait_for(waiting, 5)).json()
    assert ([event["type"] for event in page["events"]], page["done"]) == (["result"], True)
    slip = await ada.get(poll_path(writer.run_id), params={"types": "tokens"})
    assert (slip.status_code, slip.json()["errors"][0]["pointer"]) == (400, "/query/types")


# --- nothing but short requests


class Short:
    """A network that lets nothing through but whole requests of two seconds, each on a connection of its own."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def ask(self, method: str, path: str, **given: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self._api.key()}", "Connection": "close"}
        async with asyncio.timeout(SHORT_S), httpx.AsyncClient(base_url=self._api.address, headers=headers) as client:
            answer = await client.request(method, path, **given)
        assert answer.headers["connection"] == "close"
        return answer


async def test_all_that_can_be_done_on_a_stream_can_be_done_with_short_requests(
    api: Api, worker_engine: AsyncEngine, redis: Redis
) -> None:
    network = Short(api)
    asked = {"workflow": "contract_review", "input": {"text": "Clause 1"}}
    accepted = await network.ask("POST", "/v1/runs", json=asked, headers={"Idempotency-Key": "short-1"})
    assert accepted.status_code == 202
    again = await network.ask("POST", "/v1/runs", json=asked, headers={"Idempotency-Key": "short-1"})
    assert again.json()["id"] == accepted.json()["id"]
    links, worker = accepted.json()["links"], Writer(worker_engine, UUID(accepted.json()["id"]), redis)
    seen, etag, address = list[str](), "", links["poll"] + "?wait=1"

    async def follow() -> dict[str, Any]:
        """One poll, and on from it."""
        nonlocal etag, address
        answer = await network.ask("GET", address, headers={"If-None-Match": etag})
        etag = answer.headers["etag"]
        if answer.status_code == 304:
            address = answer.links["next"]["url"]
            return {}
        page: dict[str, Any] = answer.json()
        seen.extend(event["type"] for event in page["events"])
        address = page["links"].get("next", "")
        return page

    assert (await follow())["status"] == "queued"
    assert await follow() == {}  # it has waited for a second, and nothing came
    question = {"question": "Keep the fee?", "choices": ["keep", "drop"], "to": "reviewer", "wait_s": 600.0}
    await worker.append(started(), token("Cl"), Escalation(name="fee", key="fee#1", place=1, args="00", **question))
    page = await follow()
    assert (page["status"], page["partial"]["sections"]) == ("waiting", {"comments": "Cl"})
    [question_asked] = page["questions"]
    said = {"escalation": question_asked["seq"], "choice": "drop", "seen": page["seen"]}
    decided = await network.ask("POST", links["decisions"], json=said)
    assert decided.status_code == 202, decided.text
    page = await follow()
    assert page["status"] == "running"
    cancelled = await network.ask("POST", links["cancel"], json={"reason": "enough"})
    assert cancelled.status_code == 202
    assert (await follow())["status"] == "stopping"
    by = Person(subject="ada", role="user")
    await worker.append(Cancelled(reason="enough", by=by, partial={"a": "b"}, missing=[], assembled_by="default"))
    page = await follow()
    assert (page["done"], page["partial"]["final"], page["partial"]["a"], address) == (True, False, "b", "")
    assert seen == ["accepted", "started", "token", "escalation", "decision", "cancel_requested", "cancelled"]
    ended = await network.ask("DELETE", links["self"])
    assert (ended.status_code, ended.json()["status"]) == (200, "cancelled")


# --- what may break underneath


async def test_a_connection_that_dies_unseen_costs_nobody_an_answer(
    ada: httpx.AsyncClient, writer: Writer, owner_engine: AsyncEngine
) -> None:
    await writer.append(started(), token("a"))
    path, killed = poll_path(writer.run_id), "application_name = 'runwire-api-polls' AND datname = current_database()"
    for step in range(2):
        assert (await ada.get(path)).status_code == 200
        async with owner_engine.connect() as connection:
            found = await connection.execute(
                text(f"SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity WHERE {killed}")
            )
            assert found.scalar_one() >= 1
        await writer.append(token(str(step)))
        answers = await asyncio.gather(*(ada.get(path, params={"after": 3 + step}) for _ in range(5)))
        assert [[event["seq"] for event in answer.json()["events"]] for answer in answers] == [[4 + step]] * 5


async def test_a_revoked_key_is_refused_about_a_second_later(
    api: Api, ada: httpx.AsyncClient, writer: Writer, owner_engine: AsyncEngine
) -> None:
    key_id = api.key().split("_")[1]
    path = poll_path(writer.run_id)
    revoke = "UPDATE runwire.api_key SET revoked_at = CASE WHEN :gone THEN now() END WHERE key_id = :key_id"
    assert (await ada.get(path)).status_code == 200
    async with owner_engine.begin() as connection:
        await connection.execute(text(revoke), {"gone": True, "key_id": key_id})
    try:
        async with asyncio.timeout(6):
            while (await ada.get(path)).status_code != 401:
                pass
    finally:
        async with owner_engine.begin() as connection:
            await connection.execute(text(revoke), {"gone": False, "key_id": key_id})
    assert (await ada.get(path)).status_code == 200
