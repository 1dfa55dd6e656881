"""Polling, replay and verification over a real server."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import httpx
import pytest
import pytest_asyncio
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from eventstore.domain.events import Reasoning
from ops.services import Endpoints
from tests.serving import Api, Writer, register, serving, until
from tests.writing import result, started, token


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def api(database_url: str, services: Endpoints, worker_engine: AsyncEngine) -> AsyncIterator[Api]:
    await register(worker_engine)
    limits = {"poll_wait_s_max": 8, "keepalive_s": 0.2, "replay_gap_s_max": 0.3, "page_events_max": 100}
    async with serving(database_url, services.redis_url, page_events_default=50, **limits) as api:
        yield api


@pytest_asyncio.fixture(loop_scope="session")
async def ada(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    async with api.client() as client:
        yield client


@pytest_asyncio.fixture(loop_scope="session")
async def officer(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    async with api.client("officer") as client:
        yield client


@pytest_asyncio.fixture(loop_scope="session")
async def writer(api: Api, worker_engine: AsyncEngine, redis: Redis) -> Writer:
    return Writer(worker_engine, await api.submit(), redis)


def poll_path(run_id: UUID) -> str:
    return f"/v1/runs/{run_id}/poll"


async def following(api: Api, run_id: UUID) -> None:
    """Until somebody waits for this run."""
    await until(lambda: len(api.service.waits) > 0)


# --- poll


async def test_a_poll_holds_what_is_new_and_how_the_run_stands(ada: httpx.AsyncClient, writer: Writer) -> None:
    await writer.append(started(), token("Clause "), token("4.1"))
    page = (await ada.get(poll_path(writer.run_id), params={"after": 2, "limit": 1})).json()
    assert [event["seq"] for event in page["events"]] == [3]
    assert (page["next_after"], page["more"], page["status"], page["done"]) == (3, True, "running", False)
    assert page["partial"] == {"final": False, "sections": {"comments": "Clause 4.1"}, "findings": []}
    assert (page["result"], page["error"]) == (None, None)
    assert len(page["milestones"]) == 2
    await writer.append(result())
    page = (await ada.get(poll_path(writer.run_id), params={"after": 3})).json()
    assert [event["type"] for event in page["events"]] == ["token", "result"]
    assert (page["more"], page["done"], page["partial"]) == (False, True, None)
    assert page["result"]["final"] is True


async def test_the_advice_when_to_ask_again_follows_the_run(ada: httpx.AsyncClient, writer: Writer) -> None:
    path = poll_path(writer.run_id)
    assert (await ada.get(path)).headers["retry-after"] == "2"
    await writer.append(started(), token("a"))
    assert (await ada.get(path)).headers["retry-after"] == "1"
    assert (await ada.get(path, params={"limit": 1})).headers["retry-after"] == "0"
    await writer.append(result())
    assert "retry-after" not in (await ada.get(path)).headers


async def test_a_poll_that_would_tell_nothing_new_is_304_until_the_run_moves_or_ends(
    ada: httpx.AsyncClient, writer: Writer
) -> None:
    path, known = poll_path(writer.run_id), set[str]()
    for bodies in ([], [started()], [token("a")], [result()]):
        if bodies:
            await writer.append(*bodies)
        fresh = await ada.get(path, headers={"If-None-Match": ", ".join(known)})
        assert fresh.status_code == 200
        known.add(etag := fresh.headers["etag"])
        same = await ada.get(path, headers={"If-None-Match": etag})
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", etag)
        assert same.headers.get("retry-after") == fresh.headers.get("retry-after")
        other = await ada.get(path, params={"after": 1}, headers={"If-None-Match": etag})
        assert other.status_code == (200 if fresh.json()["next_after"] > 1 else 304)  # who has read to the end has all


async def test_each_role_has_versions_of_its_own(api: Api, ada: httpx.AsyncClient, writer: Writer) -> None:
    etag = (await ada.get(poll_path(writer.run_id))).headers["etag"]
    async with api.client("operator") as operator:
        answer = await operator.get(poll_path(writer.run_id), headers={"If-None-Match": etag})
    assert answer.status_code == 200


@pytest.mark.parametrize("asked", ["parameter", "preference"])
async def test_a_long_poll_is_answered_by_the_commit(
    api: Api, ada: httpx.AsyncClient, writer: Writer, asked: str
) -> None:
    await writer.append(started())
    params = {"after": 2, **({"wait": 8} if asked == "parameter" else {})}
    headers = {"Prefer": "wait=8"} if asked == "preference" else {}
    waiting = asyncio.create_task(ada.get(poll_path(writer.run_id), params=params, headers=headers))
    await following(api, writer.run_id)
    await writer.append(token("a"))
    answer = await asyncio.wait_for(waiting, 4)
    assert [event["seq"] for event in answer.json()["events"]] == [3]
    assert answer.headers["preference-applied"] == "wait=8"


async def test_a_long_poll_waits_for_what_its_reader_may_see(api: Api, ada: httpx.AsyncClient, writer: Writer) -> None:
    await writer.append(started())
    waiting = asyncio.create_task(ada.get(poll_path(writer.run_id), params={"after": 2, "wait": 8}))
    await following(api, writer.run_id)
    await writer.append(Reasoning(text="hm", step="draft#1", attempt=1))
    [tail] = api.service.tails._tails.values()
    await until(lambda: tail.cursor == 3)
    assert not waiting.done()
    await writer.append(token("a"))
    page = (await asyncio.wait_for(waiting, 4)).json()
    assert ([event["seq"] for event in page["events"]], page["next_after"]) == ([4], 4)


async def test_a_long_poll_is_answered_by_the_end_of_the_run(api: Api, ada: httpx.AsyncClient, writer: Writer) -> None:
    await writer.append(started())
    waiting = asyncio.create_task(ada.get(poll_path(writer.run_id), params={"after": 2, "wait": 8}))
    await following(api, writer.run_id)
    await writer.append(result())
    assert (await asyncio.wait_for(waiting, 4)).json()["done"] is True


async def test_a_long_poll_with_a_version_waits_first_and_then_answers_304(
    ada: httpx.AsyncClient, writer: Writer
) -> None:
    await writer.append(started())
    etag = (await ada.get(poll_path(writer.run_id))).headers["etag"]
    answer = await ada.get(poll_path(writer.run_id), params={"wait": 1}, headers={"If-None-Match": etag})
    assert (answer.status_code, answer.headers["preference-applied"]) == (304, "wait=1")
    assert answer.elapsed.total_seconds() >= 1


async def test_a_finished_run_is_never_waited_for(ada: httpx.AsyncClient, writer: Writer) -> None:
    last = await writer.append(started(), result())
    answer = await asyncio.wait_for(ada.get(poll_path(writer.run_id), params={"after": last, "wait": 8}), 3)
    assert (answer.json()["done"], answer.json()["events"]) == (True, [])


async def test_a_view_that_shows_little_reads_on_page_by_page(api: Api, writer: Writer) -> None:
    await writer.append(started())
    for _ in range(12):
        await writer.append(*[token("x") for _ in range(100)])
    await writer.append(result())
    async with api.client("operator") as operator:
        seen, after, answers = list[str](), 0, 0
        while True:
            page = (await operator.get(poll_path(writer.run_id), params={"after": after, "limit": 100})).json()
            seen += [event["type"] for event in page["events"]]
            after, answers = page["next_after"], answers + 1
            if not page["more"]:
                break
    assert seen == ["accepted", "started", "result"]
    assert answers == 1


@pytest.mark.parametrize(
    ("query", "place"),
    [("after=x", "after"), ("after=-1", "after"), ("limit=0", "limit"), ("limit=101", "limit"), ("wait=x", "wait")],
)
async def test_a_poll_that_cannot_be_read_is_refused(
    ada: httpx.AsyncClient, writer: Writer, query: str, place: str
) -> None:
    answer = await ada.get(f"{poll_path(writer.run_id)}?{query}")
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (400, f"/query/{place}")


async def test_a_poll_behind_the_end_of_the_log_is_refused(ada: httpx.AsyncClient, writer: Writer) -> None:
    answer = await ada.get(poll_path(writer.run_id), params={"after": 2})
    assert (answer.status_code, answer.json()["code"]) == (400, "bad-cursor")


# --- replay and verification


def frames(answer: httpx.Response) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]


def replay_path(run_id: UUID) -> str:
    return f"/v1/audit/runs/{run_id}/replay"


async def test_a_replay_through_a_roles_eyes_is_that_roles_stream(
    ada: httpx.AsyncClient, officer: httpx.AsyncClient, writer: Writer
) -> None:
    await writer.append(started(), Reasoning(text="hm", step="draft#1", attempt=1), token("a"), result())
    live = await ada.get(f"/v1/runs/{writer.run_id}/events")
    replayed = await officer.get(replay_path(writer.run_id), params={"speed": "max", "as": "user"})
    assert replayed.content == live.content
    own = await officer.get(replay_path(writer.run_id), params={"speed": 0})
    assert own.content == (await officer.get(f"/v1/runs/{writer.run_id}/events")).content
    assert [frame["type"] for frame in frames(own)] == ["accepted", "started", "reasoning", "token", "result"]


async def test_a_part_of_a_run_is_replayed(officer: httpx.AsyncClient, writer: Writer) -> None:
    await writer.append(started(), token("a"), token("b"), result())

    async def seqs(**asked: int) -> list[int]:
        answer = await officer.get(replay_path(writer.run_id), params={"speed": "max", **asked})
        return [frame["seq"] for frame in frames(answer)]

    assert await seqs(**{"from": 2, "to": 4}) == [2, 3, 4]
    assert await seqs(**{"from": 4}) == [4, 5]
    assert await seqs(to=1) == [1]
    assert await seqs(to=500) == [1, 2, 3, 4, 5]
    again = await officer.get(replay_path(writer.run_id), params={"to": 4}, headers={"Last-Event-ID": "4"})
    assert again.status_code == 204


async def test_a_paced_replay_gives_the_same_frames(officer: httpx.AsyncClient, writer: Writer) -> None:
    await writer.append(started())
    await writer.append(token("a"))
    await writer.append(result())
    paced, unpaced = [await officer.get(replay_path(writer.run_id), params={"speed": at}) for at in ("2", "max")]
    assert paced.content == unpaced.content


async def test_an_open_run_is_replayed_to_where_it_stands(officer: httpx.AsyncClient, writer: Writer) -> None:
    await writer.append(started(), token("a"))
    answer = await officer.get(replay_path(writer.run_id), params={"speed": "max"})
    assert [frame["seq"] for frame in frames(answer)] == [1, 2, 3]


@pytest.mark.parametrize(
    "query",
    ["speed=-1", "speed=fast", "speed=nan", "speed=1e99", "from=0", "from=9", "from=3&to=2", "as=guest", "to=x"],
)
async def test_a_replay_that_cannot_be_is_refused(officer: httpx.AsyncClient, writer: Writer, query: str) -> None:
    await writer.append(started(), token("a"))
    answer = await officer.get(f"{replay_path(writer.run_id)}?{query}")
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")


@pytest.mark.parametrize("role", ["user", "operator"])
async def test_the_officers_desk_is_for_officers(api: Api, writer: Writer, role: Any) -> None:
    async with api.client(role) as client:
        for path in (replay_path(writer.run_id), f"/v1/audit/runs/{writer.run_id}/verification"):
            answer = await client.get(path)
            assert (answer.status_code, answer.json()["code"]) == (403, "not-allowed")


async def test_a_run_that_nobody_touched_verifies(officer: httpx.AsyncClient, writer: Writer) -> None:
    await writer.append(started(), token("a"), result())
    told = (await officer.get(f"/v1/audit/runs/{writer.run_id}/verification")).json()
    assert (told["ok"], told["events"], told["head_seq"], told["fault"]) == (True, 4, 4, None)
    assert len(bytes.fromhex(told["chain"])) == 32


async def test_a_changed_event_is_found(officer: httpx.AsyncClient, writer: Writer, owner_engine: AsyncEngine) -> None:
    await writer.append(started(), token("a"), result())
    async with owner_engine.begin() as connection:
        for statement in (
            "ALTER TABLE runwire.event DISABLE TRIGGER USER",
            "UPDATE runwire.event SET body = replace(body::text, '61', '62')::bytea WHERE run_id = :run AND seq = 3",
            "ALTER TABLE runwire.event ENABLE ALWAYS TRIGGER refuse_change",
        ):
            await connection.execute(text(statement), {"run": writer.run_id} if ":run" in statement else {})
    told = (await officer.get(f"/v1/audit/runs/{writer.run_id}/verification")).json()
    assert (told["ok"], told["fault_seq"]) == (False, 2)  # the first event of the append that it came with
