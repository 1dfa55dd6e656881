"""One stream of events from memory to all readers, written with each of the libraries, on the server that we use.

Nothing is stored, nobody is asked who he is, and the data of an event is encoded once for all: what is measured is what
the library does for one event and one reader.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any, Final
from uuid import uuid4

import uvicorn
from fastapi import FastAPI
from fastapi.sse import EventSourceResponse as FastApiStream
from fastapi.sse import ServerSentEvent as FastApiEvent
from sse_starlette import EventSourceResponse as StarletteStream
from sse_starlette import ServerSentEvent as StarletteEvent
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from api.server import address_of, listen

RUN: Final = uuid4()


def data(seq: int) -> str:
    """As many bytes as an event of ours has."""
    told = {"text": f"{seq:07d}".ljust(23, "x") + " ", "section": "comments", "step": "draft#1"}
    event = {"seq": seq, "run_id": str(RUN), "type": "token", "at": "2026-01-01T00:00:00.000000Z", "attempt": 1}
    return json.dumps({**event, "final": False, "data": told}, separators=(",", ":"))


class Broadcast:
    """What has been said so far; each reader goes through it at its own pace."""

    def __init__(self, way: str) -> None:
        self._way = way
        self._events: list[Any] = []
        self._moved = asyncio.Event()
        self._saying: asyncio.Task[None] | None = None

    def go(self, events: int, rate: float) -> None:
        self._saying = asyncio.create_task(self._say(events, rate))

    async def told(self) -> AsyncIterator[Any]:
        at = 0
        while True:
            while at < len(self._events):
                yield self._events[at]
                at += 1
            await self._moved.wait()

    async def _say(self, events: int, rate: float) -> None:
        loop = asyncio.get_running_loop()
        began, first = loop.time(), len(self._events) + 1
        for seq in range(first, first + events):
            await asyncio.sleep(began + (seq - first) / rate - loop.time())
            self._events.append(self._event(seq))
            self._moved.set()
            self._moved = asyncio.Event()

    def _event(self, seq: int) -> Any:
        match self._way:
            case "sse-starlette":
                return StarletteEvent(data(seq), event="token", id=str(seq))
            case "FastAPI":
                return FastApiEvent(raw_data=data(seq), event="token", id=str(seq))
        return b"id: %d\nevent: token\ndata: %s\n\n" % (seq, data(seq).encode())


class Raw:
    """The floor: bytes that were made once, handed to the server, and nothing else."""

    def __init__(self, said: Broadcast) -> None:
        self._said = said

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b":\n", "more_body": True})
        async for event in self._said.told():
            await send({"type": "http.response.body", "body": event, "more_body": True})


def app_of(way: str) -> FastAPI:
    """`/events` to read, `/go` to begin."""
    app, said = FastAPI(), Broadcast(way)

    @app.post("/go")
    async def go(events: int, rate: float) -> None:
        said.go(events, rate)

    if way == "FastAPI":

        @app.get("/events", response_class=FastApiStream)
        async def fastapi_events() -> AsyncIterator[FastApiEvent]:
            async for event in said.told():
                yield event

    elif way == "sse-starlette":

        @app.get("/events")
        async def starlette_events() -> StarletteStream:
            return StarletteStream(said.told())

    else:
        app.router.routes.append(Route("/events", Raw(said)))
    return app


def main(way: str) -> None:
    listener = listen("127.0.0.1", 0)
    config = uvicorn.Config(
        app_of(way), http="httptools", loop="uvloop", ws="none", access_log=False, log_level="error",
        timeout_graceful_shutdown=1,
    )  # fmt: skip
    print(json.dumps({"addresses": [address_of(listener)]}), flush=True)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main(sys.argv[1])
