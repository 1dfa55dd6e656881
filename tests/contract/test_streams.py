"""The form of a stream: what is sent, what is not, when it ends, and what a returning reader is told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import httpx
import pytest
from httpx_sse import aconnect_sse

from eventstore.domain.events import new_event
from tests.contract.runs import ENDS, Stage, Written
from tests.serving import DEADLINE_S, until
from tests.writing import NOW_US, started, token

RUN = [new_event(body, NOW_US) for body in (started(), token("a"), token("b"))]
END = [new_event(ENDS["result"], NOW_US)]
SSE = {"Accept": "text/event-stream"}


class Heard:
    """A stream as its bytes arrive."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self.body = b""
        self.chunks: list[bytes] = []
        self.complete = False

    def has(self, count: int) -> bool:
        return self.body.count(b"\nevent: ") == count

    async def listen(self) -> None:
        async for chunk in self.answer.aiter_raw():
            self.chunks.append(chunk)
            self.body += chunk
        self.complete = True


@asynccontextmanager
async def listening(client: httpx.AsyncClient, path: str, **headers: str) -> AsyncIterator[Heard]:
    async with client.stream("GET", path, headers={**SSE, **headers}) as answer:
        assert answer.status_code == 200, await answer.aread()
        heard = Heard(answer)
        task = asyncio.create_task(heard.listen())
        try:
            yield heard
        finally:
            task.cancel()
            await asyncio.wait([task])


async def ended(stage: Stage) -> Written:
    run = await stage.begin(RUN + END)
    await run.write()
    return run


async def test_the_headers_keep_proxies_from_holding_or_changing_a_stream(stage: Stage) -> None:
    run = await ended(stage)
    async with stage.api.client() as client, listening(client, f"/v1/runs/{run.run_id}/events") as heard:
        headers = heard.answer.headers
    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    assert headers["cache-control"] == "no-store, no-transform"
    assert headers["x-accel-buffering"] == "no"
    assert "content-encoding" not in headers
    assert "content-length" not in headers


async def test_the_first_event_carries_retry_and_only_line_feeds_are_sent(stage: Stage) -> None:
    run = await ended(stage)
    async with stage.api.client() as client, listening(client, f"/v1/runs/{run.run_id}/events") as heard:
        await until(lambda: heard.complete)
    assert heard.body.startswith(b"retry: 1000\nid: 1\nevent: accepted\ndata: {")
    assert heard.body.count(b"retry:") == 1
    assert heard.body.endswith(b"}\n\n")
    assert b"\r" not in heard.body
    assert [block.split(b"\n")[-2][:7] for block in heard.body.split(b"\n\n")[:-1]] == [b"event: " for _ in range(5)]


async def test_each_event_comes_in_one_piece_as_it_is_stored(stage: Stage) -> None:
    run = await stage.begin(RUN + END)
    async with stage.api.client() as client, listening(client, f"/v1/runs/{run.run_id}/events") as heard:
        for count in range(1, 6):
            await until(partial(heard.has, count))
            assert heard.body.endswith(b"\n\n")
            await run.write(1)
        await until(lambda: heard.complete)
    assert all(chunk.endswith(b"\n") for chunk in heard.chunks)


async def test_silence_is_filled_with_a_colon_and_a_line_feed_and_nothing_else(stage: Stage) -> None:
    run = await stage.begin(RUN + END)
    async with stage.api.client() as client, listening(client, f"/v1/runs/{run.run_id}/events") as heard:
        await until(lambda: heard.body.endswith(b"}\n\n:\n:\n"))
        await run.write()
        await until(lambda: heard.complete)
    assert heard.body.replace(b"\n:\n:\n", b"\n", 1).count(b"\n\n") >= 5
    assert b":\n\n" not in heard.body


async def test_a_common_client_meets_no_event_that_is_not_in_the_log(stage: Stage) -> None:
    run = await stage.begin(RUN + END)
    seen = []
    async with stage.api.client() as client, aconnect_sse(client, "GET", f"/v1/runs/{run.run_id}/events") as source:
        async for event in source.aiter_sse():
            seen.append((event.id, event.event, event.retry))
            if event.id == "1":
                async with listening(client, f"/v1/runs/{run.run_id}/events") as other:
                    await until(lambda: other.body.endswith(b":\n:\n"))  # two silences of ours too, by the same clock
                await run.write()
    assert seen == [
        ("1", "accepted", 1000),
        ("2", "started", None),
        ("3", "token", None),
        ("4", "token", None),
        ("5", "result", None),
    ]


async def test_a_reader_at_the_terminal_event_is_told_that_nothing_follows(stage: Stage) -> None:
    run = await ended(stage)
    path = f"/v1/runs/{run.run_id}/events"
    async with stage.api.client() as client:
        for kind in ("text/event-stream", "application/x-ndjson"):
            last = await client.get(path, headers={"Accept": kind, "Last-Event-ID": "5"})
            assert (last.status_code, last.content) == (204, b"")
            assert (await client.get(path, params={"after": 5}, headers={"Accept": kind})).status_code == 204
        before = await client.get(path, headers={**SSE, "Last-Event-ID": "4"})
        assert (before.status_code, before.text.count("event: ")) == (200, 1)
        fresh = await client.get(path, headers=SSE)
        assert (fresh.status_code, fresh.text.count("event: ")) == (200, 5)


async def test_an_open_run_never_answers_204(stage: Stage) -> None:
    run = await stage.begin(RUN)
    await run.write()
    async with stage.api.client() as client:
        path = f"/v1/runs/{run.run_id}/events"
        async with listening(client, path, **{"Last-Event-ID": "4"}) as heard:
            await until(lambda: heard.body == b":\n")


@pytest.mark.parametrize("cursor", ["x", "-1", "1.5", "6", "99999999999999999999", "1e3"])
@pytest.mark.parametrize("where", ["header", "query"])
async def test_a_cursor_that_is_no_place_in_the_log_is_a_problem_and_not_a_restart(
    stage: Stage, where: str, cursor: str
) -> None:
    run = await ended(stage)
    async with stage.api.client() as client:
        headers = {"Last-Event-ID": cursor} if where == "header" else {}
        query = {"after": cursor} if where == "query" else {}
        answer = await client.get(f"/v1/runs/{run.run_id}/events", headers=headers, params=query)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"


async def test_the_header_wins_over_the_parameter_and_an_empty_one_says_nothing(stage: Stage) -> None:
    run = await ended(stage)
    path = f"/v1/runs/{run.run_id}/events?after=4"
    async with stage.api.client() as client:
        assert (await client.get(path, headers={"Last-Event-ID": "2"})).text.count("event: ") == 3
        assert (await client.get(path, headers={"Last-Event-ID": ""})).text.count("event: ") == 1


async def test_head_answers_at_once_with_the_streams_headers(stage: Stage) -> None:
    run = await stage.begin(RUN)
    async with stage.api.client() as client:
        answer = await asyncio.wait_for(client.head(f"/v1/runs/{run.run_id}/events"), 2)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"].startswith("text/event-stream")


async def test_json_lines_hold_events_only_and_say_nothing_into_silence(stage: Stage) -> None:
    run = await stage.begin(RUN + END)
    path = f"/v1/runs/{run.run_id}/events"
    async with (
        stage.api.client() as client,
        listening(client, path) as silence,
        listening(client, path, Accept="application/x-ndjson") as heard,
    ):
        await until(lambda: silence.body.endswith(b":\n:\n"))
        await run.write()
        await until(lambda: heard.complete)
    assert heard.answer.headers["content-type"] == "application/x-ndjson"
    assert heard.body.count(b"\n") == 5
    assert all(line.startswith(b'{"seq":') for line in heard.body.splitlines())


async def test_a_reader_who_leaves_is_forgotten_and_the_run_goes_on(stage: Stage) -> None:
    run = await stage.begin(RUN + END)
    async with stage.api.client() as client:
        before = len(stage.api.service.waits)
        async with listening(client, f"/v1/runs/{run.run_id}/events") as heard:
            await until(lambda: heard.body)
            assert len(stage.api.service.waits) == before + 1
        await until(lambda: len(stage.api.service.waits) == before)
        await run.write(3)
        assert (await client.get(f"/v1/runs/{run.run_id}")).json()["status"] == "running"


async def test_a_submission_can_be_answered_by_its_own_stream(stage: Stage) -> None:
    wish = {"workflow": "contract_review", "input": {"text": "Clause 1"}}
    async with (
        stage.api.client() as client,
        client.stream("POST", "/v1/runs", json=wish, headers=SSE, timeout=DEADLINE_S) as answer,
    ):
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["location"].startswith("/v1/runs/")
        async for chunk in answer.aiter_raw():
            assert chunk.startswith(b"retry: 1000\nid: 1\nevent: accepted\n")
            break
