"""A run of very large events is read whole on every front, by the worker and by state, a bounded page at a time."""

import asyncio
import json
import random
import re
from collections.abc import Iterator
from typing import Any

import pytest
import pytest_asyncio

from eventstore import log
from eventstore.domain.events import Body, Result, Started, Step, ToolResult, Usage, new_event
from eventstore.log import PAGE_BYTES_MAX, PAGE_EVENTS_MAX, Page
from tests.contract.runs import Stage, Written
from tests.serving import DEADLINE_S
from tests.writing import NOW_US
from worker.history import read_history
from worker.runner import read_facts

COUNT, KIB = 40, 1024
LAST = 1 + 1 + COUNT + 1


def large(number: int) -> Body:
    """A body of about 900 KiB; a few of them are told by the state too, the others by the log alone."""
    text = f"{number}:" + random.Random(number).randbytes(450 * KIB).hex()
    about: dict[str, Any] = {"key": f"k{number}", "place": number, "args": "00"}
    if number % 10:
        return Step(name="parse", status="ok", output=text, **about)
    told = {"call_id": f"c{number}", "status": "ok", "summary": "much", "duration_ms": 1}
    return ToolResult(tool="lookup", output=text, **told, **about)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def run(stage: Stage) -> Written:
    """The run, with its first half stored."""
    bodies = [Started(attempt=1, worker="w", code="c", workflow_version=1), *map(large, range(COUNT))]
    end = Result(output={"ok": True}, counts={}, usage=Usage())
    written = await stage.begin([new_event(body, NOW_US) for body in [*bodies, end]])
    for _ in range(4):
        await written.write(5)
    return written


@pytest.fixture(autouse=True)
def pages(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Page]]:
    """Every page that is read during a test, by whomever; none is larger than it may be."""
    seen: list[Page] = []
    one, many = log.read_after, log.read_many

    async def read_after(*asked: Any) -> Page:
        seen.append(page := await one(*asked))
        return page

    async def read_many(*asked: Any) -> dict[Any, Page]:
        found = await many(*asked)
        seen.append(Page([event for page in found.values() for event in page.events], False))
        return found

    monkeypatch.setattr(log, "read_after", read_after)
    monkeypatch.setattr(log, "read_many", read_many)
    yield seen
    assert any(len(page.events) == 1 and len(page.events[0].body) > 900 * KIB for page in seen)
    for page in seen:
        assert len(page.events) <= PAGE_EVENTS_MAX
        assert sum(len(event.body) for event in page.events) <= PAGE_BYTES_MAX


async def whole(stage: Stage, run: Written) -> list[Any]:
    """What an officer must be given of the whole run; written first, if it is not."""
    await run.write()
    return [json.loads(envelope) for envelope in await stage.expected(run.run_id, "officer")]


def told(media_type: str, body: bytes) -> list[Any]:
    if media_type == "application/x-ndjson":
        return [json.loads(line) for line in body.splitlines()]
    return [json.loads(data) for data in re.findall(rb"\ndata: ([^\n]*)\n\n", body)]


@pytest.mark.parametrize("media_type", ["text/event-stream", "application/x-ndjson"])
async def test_a_stream_gives_what_is_stored_and_what_comes(stage: Stage, run: Written, media_type: str) -> None:
    """The first reader comes while the second half is being written, the other one reads it all as history."""

    async def write() -> None:
        while run.to_come:
            await run.write(5)

    async with stage.api.client("officer") as client, asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as both:
        reading = both.create_task(client.get(f"/v1/runs/{run.run_id}/events", headers={"Accept": media_type}))
        both.create_task(write())
    assert told(media_type, reading.result().content) == await whole(stage, run)


async def test_a_replay_gives_it_again(stage: Stage, run: Written) -> None:
    expected = await whole(stage, run)
    async with stage.api.client("officer") as client:
        answer = await client.get(f"/v1/audit/runs/{run.run_id}/replay?speed=max")
    assert told("text/event-stream", answer.content) == expected


@pytest.mark.parametrize("front", ["poll", "events"])
@pytest.mark.parametrize("limit", [3, 500])
async def test_pages_are_small_and_say_truly_that_there_is_more(
    stage: Stage, run: Written, front: str, limit: int
) -> None:
    expected, envelopes, cursor = await whole(stage, run), list[Any](), 0
    async with stage.api.client("officer") as client:
        client.headers["Accept"] = "application/json"
        while cursor < LAST:
            answer = await client.get(f"/v1/runs/{run.run_id}/{front}?after={cursor}&limit={limit}")
            assert len(answer.content) <= 2 * PAGE_BYTES_MAX
            page = answer.json()
            assert page["events"]
            envelopes += page["events"]
            cursor = page["next_after"]
            assert page["more"] == (cursor < LAST)
    assert envelopes == expected


async def test_state_now_and_then_holds_all_of_it(stage: Stage, run: Written) -> None:
    expected = await whole(stage, run)
    async with stage.api.client("officer") as client:
        for at in (LAST, 33, 12, None):
            state = (await client.get(f"/v1/runs/{run.run_id}" + (f"?at={at}" if at else ""))).json()
            results = [e["data"] for e in expected if e["type"] == "tool_result" and e["seq"] <= (at or LAST)]
            assert state["seq"] == (at or LAST)
            assert [tool["output"] for tool in state["tools"]] == [result["output"] for result in results]
        verified = (await client.get(f"/v1/audit/runs/{run.run_id}/verification")).json()
    assert (verified["ok"], verified["events"]) == (True, LAST)


async def test_a_worker_that_resumes_remembers_all_of_it(stage: Stage, run: Written) -> None:
    await run.write()
    facts = await read_facts(stage.worker_engine, run.run_id)
    assert [fact.seq for fact in facts] == list(range(1, LAST + 1))
    assert len(read_history(facts).closed) == COUNT
