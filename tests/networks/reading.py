"""Readers behind a proxy, who confirm what has come; and a run whose next event is only stored after that."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx

from eventstore.domain.events import Body, new_event
from tests.contract.runs import ENDS, Stage, Written
from tests.serving import until
from tests.writing import NOW_US, started, token

DATA = re.compile(rb"^data: (\{.*\})$", re.MULTILINE)
WORDS = ("Clause 4.1 ", "limits ", "liability.")


class Heard:
    """One stream, as it comes out of the proxy."""

    def __init__(self) -> None:
        self.answer: httpx.Response | None = None
        self.body = b""
        self.complete = False

    @property
    def envelopes(self) -> list[bytes]:
        whole, _, _ = self.body.rpartition(b"\n\n")
        return DATA.findall(whole)


@asynccontextmanager
async def hearing(client: httpx.AsyncClient, run: Written, **headers: str) -> AsyncIterator[Heard]:
    """Ask for a run's stream; what comes is kept while the block goes on."""
    heard = Heard()

    async def listen() -> None:
        asked = {"Accept": "text/event-stream", **headers}
        async with client.stream("GET", f"/v1/runs/{run.run_id}/events", headers=asked) as answer:
            heard.answer = answer
            async for chunk in answer.aiter_bytes():
                heard.body += chunk
        heard.complete = True

    task = asyncio.create_task(listen())
    try:
        yield heard
        if task.done():
            task.result()
    finally:
        task.cancel()
        await asyncio.wait([task])


async def begun(stage: Stage, *words: str) -> Written:
    """A run with `accepted` in its log; to come are these words, and its end."""
    bodies: list[Body] = [started(), *map(token, words or WORDS), ENDS["result"]]
    return await stage.begin([new_event(body, NOW_US) for body in bodies])


async def one_by_one(run: Written, confirmed: Callable[[int], Awaitable[None]], stored: int = 1) -> None:
    """Store each event only when the reader has confirmed those before it."""
    await confirmed(stored)
    for count in range(stored + 1, stored + 1 + len(run.to_come)):
        await run.write(1)
        await confirmed(count)


async def heard_one_by_one(run: Written, heard: Heard) -> None:
    """The same with a stream."""

    async def confirmed(count: int) -> None:
        await until(lambda: len(heard.envelopes) >= count)
        assert len(heard.envelopes) == count

    await one_by_one(run, confirmed)
