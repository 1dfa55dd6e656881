"""The same stories on every front, byte for byte what the log holds, each event once.

A run is done, fails, is cancelled, loses its worker or its API; readers come late, leave, return, or want some of it.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import httpx
import pytest

from eventstore.domain.events import (
    Body,
    CancelObserved,
    CancelRequested,
    Finding,
    Progress,
    Reasoning,
    Retry,
    Usage,
    new_event,
)
from eventstore.domain.record import NewEvent
from ops.services import Endpoints
from tests.contract.readers import FRONTS, LIVE, Reader
from tests.contract.runs import ADA, ENDS, Stage, Written
from tests.serving import DEADLINE_S, serving, until
from tests.writing import NOW_US, started, token

WORK: list[Body] = [
    started(),
    Progress(state="uploaded", label="Uploaded", index=1, total=2, key="p1"),
    Reasoning(text="hm", step="draft#1", attempt=1),
    *[token(f"word {number} ") for number in range(6)],
    Finding(item="clause 1", value={"risk": "high"}, key="k", place=1, args="00"),
]
AGAIN: list[Body] = [
    started(attempt=2),
    Retry(
        what="run", key="draft#1", reason="worker_lost", message="again", superseded=[(5, 10)], attempt=1,
        next_attempt=2,
    ),
    *[token(f"second {number} ", attempt=2) for number in range(4)],
]  # fmt: skip
STOPPING: list[Body] = [CancelRequested(by=ADA, reason="enough"), CancelObserved(seen_us=NOW_US, usage=Usage())]
STORIES: dict[str, tuple[Sequence[Body], Sequence[Body]]] = {
    "is done": (WORK, [ENDS["result"]]),
    "fails": (WORK, [ENDS["error"]]),
    "is cancelled": (WORK, [*STOPPING, ENDS["cancelled"]]),
}
SOME = ("finding", "progress", "retry")


def events(bodies: Sequence[Body]) -> list[NewEvent]:
    return [new_event(body, NOW_US) for body in bodies]


async def finish(reader: Reader) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not reader.ended:
            await reader.read()


async def begun(stage: Stage, first: Sequence[Body], then: Sequence[Body]) -> Written:
    run = await stage.begin(events([*first, *then]))
    await run.write(len(first))
    return run


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("story", STORIES)
async def test_a_reader_connects_at_a_place_leaves_and_returns_until_the_run_has_ended(
    stage: Stage, front: str, story: str
) -> None:
    first, then = STORIES[story]
    run = await begun(stage, first, then)
    if front not in LIVE:
        await run.write()
    async with stage.reader(front, "user", run.run_id) as reader:
        reader.cursor = 3
        for cut in (300, 0, 900):
            await reader.read(cut)
        await run.write()
        await finish(reader)
    expected = await stage.expected(run.run_id, "user")
    assert reader.envelopes == [envelope for seq, envelope in placed(expected) if seq > 3]
    assert reader.envelopes[-1] == expected[-1]


@pytest.mark.parametrize("front", LIVE)
async def test_a_worker_that_dies_in_between_leaves_no_hole_and_nothing_twice(stage: Stage, front: str) -> None:
    run = await stage.begin(events([*WORK, *AGAIN, ENDS["result"]]))
    await run.write(len(WORK))
    async with stage.reader(front, "user", run.run_id) as reader:
        reading = asyncio.create_task(finish(reader))
        await seen(stage, reader)
        await run.die()
        await run.write(2)
        await seen(stage, reader)
        await run.write()
        await reading
    assert reader.envelopes == await stage.expected(run.run_id, "user")


@pytest.mark.parametrize("front", LIVE)
async def test_an_api_that_restarts_in_between_is_a_drop_like_any_other(
    stage: Stage, front: str, database_url: str, services: Endpoints
) -> None:
    run = await begun(stage, *STORIES["is done"])
    async with serving(database_url, services.redis_url, poll_wait_s_max=5) as first:
        elsewhere = Stage(first, stage.api_engine, stage.worker_engine, stage.redis)
        async with elsewhere.reader(front, "user", run.run_id) as reader:
            reading = asyncio.create_task(reader.read())
            await seen(stage, reader)
            first.server.stop()
            with suppress(httpx.HTTPError):  # who asks again and again is not let in any more
                await asyncio.wait_for(reading, DEADLINE_S)
    before = list(reader.envelopes)
    assert before == await stage.expected(run.run_id, "user")
    async with stage.reader(front, "user", run.run_id) as reader:
        reader.cursor = placed(before)[-1][0]
        await run.write()
        await finish(reader)
    assert before + reader.envelopes == await stage.expected(run.run_id, "user")


@pytest.mark.parametrize("front", ["sse", "ndjson", "pages", "ws"])
async def test_a_reader_of_some_types_gets_their_bytes_and_the_end(stage: Stage, front: str) -> None:
    run = await stage.begin(events([*WORK, *AGAIN, ENDS["result"]]))
    await run.write()
    async with stage.reader(front, "user", run.run_id) as reader:
        reader.query = f"types={','.join(SOME)}"
        for cut in (400, 0):
            await reader.read(cut)
        await finish(reader)
    wanted = [
        envelope for envelope in await stage.expected(run.run_id, "user") if type_of(envelope) in {*SOME, "result"}
    ]
    assert reader.envelopes == wanted
    assert len(wanted) == 4


def placed(envelopes: Sequence[bytes]) -> list[tuple[int, bytes]]:
    return [(int(envelope[7 : envelope.index(b",")]), envelope) for envelope in envelopes]


def type_of(envelope: bytes) -> str:
    return envelope.partition(b'"type":"')[2].partition(b'"')[0].decode()


async def seen(stage: Stage, reader: Reader) -> None:
    """Until the reader has everything that there is for it now."""
    expected = await stage.expected(reader.run_id, "user")
    await until(lambda: reader.has == len(expected))
