"""What stands between a browser and the API: serves pages and scripts, passes requests on, and misbehaves to order."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.browser import chromium
from tests.browser.recorded import served

PAGE = "<!doctype html><title>client</title>"
CUT = b"cut"  # no piece of a stream
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host", "accept-encoding"}


class Cut(Exception):
    """The connection is cut in the middle, as a network does it."""


@dataclass
class Between:
    """One origin for pages and API, as a reverse proxy makes it."""

    target: str
    scripts: Path  # the built client, served under /client/
    key: str = ""  # added to requests that carry none, because an EventSource cannot
    refusals: list[tuple[int, dict[str, str]]] = field(default_factory=list)  # for streams, in order
    buffers: bool = False
    address: str = ""
    keepalives: int = 0
    opened_after: list[str] = field(default_factory=list)  # by Last-Event-ID, else `after`
    polls: list[str] = field(default_factory=list)
    _open: set["asyncio.Queue[bytes | None]"] = field(default_factory=set)
    _http: httpx.AsyncClient = field(default_factory=lambda: httpx.AsyncClient(timeout=30))

    @property
    def streams(self) -> int:
        """How many are open."""
        return len(self._open)

    def cut(self) -> None:
        """Every stream is lost."""
        for pieces in self._open:
            pieces.put_nowait(CUT)

    async def close(self) -> None:
        """Let go of the API."""
        self.cut()
        await self._http.aclose()

    async def passed_on(self, request: Request) -> Response:
        streaming = request.url.path.endswith("/events")
        if streaming:
            place = request.headers.get("last-event-id") or request.query_params.get("after", "")
            self.opened_after.append(place)
            if self.refusals:
                status, headers = self.refusals.pop(0)
                return Response(status_code=status, headers=headers)
        elif request.url.path.endswith("/poll"):
            self.polls.append(request.query_params.get("after", ""))
        headers = {name: value for name, value in request.headers.items() if name not in HOP_BY_HOP}
        if self.key:
            headers.setdefault("authorization", f"Bearer {self.key}")
        stack = AsyncExitStack()
        try:
            opened = self._http.stream(
                request.method, self.target + str(request.url.path), params=request.query_params, headers=headers,
                content=await request.body(),
            )  # fmt: skip
            answer = await stack.enter_async_context(opened)
        except httpx.TransportError:
            await stack.aclose()
            return Response(status_code=502)
        kept = {name: value for name, value in answer.headers.items() if name not in HOP_BY_HOP}
        body = self._flowing(answer, stack) if streaming and answer.status_code == 200 else _whole(answer, stack)
        if self.buffers and streaming:
            body = _held(body)
        return StreamingResponse(body, answer.status_code, kept)

    async def _flowing(self, answer: httpx.Response, stack: AsyncExitStack) -> AsyncIterator[bytes]:
        pieces: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._open.add(pieces)
        pump = asyncio.create_task(self._pump(answer, stack, pieces))
        try:
            while (piece := await pieces.get()) is not None:
                if piece == CUT:
                    raise Cut
                self.keepalives += piece == b":\n"
                yield piece
        finally:
            self._open.discard(pieces)
            pump.cancel()

    async def _pump(self, answer: httpx.Response, stack: AsyncExitStack, pieces: "asyncio.Queue[bytes | None]") -> None:
        async with stack:
            try:
                async for piece in answer.aiter_raw():
                    pieces.put_nowait(piece)
                pieces.put_nowait(None)
            except httpx.TransportError:
                pieces.put_nowait(CUT)

    async def file(self, request: Request) -> Response:
        """A script of the built client or of an installed package, or the empty page."""
        place, name = request.path_params["place"], request.path_params["name"]
        folder = {"client": self.scripts, "packages": chromium.MODULES}[place]
        file = (folder / name).resolve()
        if file.suffix != ".js":
            file = file.with_name(file.name + ".js")  # as older packages name what they import
        assert file.is_relative_to(folder.resolve())
        return FileResponse(file, media_type="text/javascript")


async def _whole(answer: httpx.Response, stack: AsyncExitStack) -> AsyncIterator[bytes]:
    async with stack:
        async for piece in answer.aiter_raw():
            yield piece


async def _held(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Nothing until all of it is there."""
    yield b"".join([piece async for piece in body])


async def _page(_: Request) -> Response:
    return Response(PAGE, media_type="text/html")


@asynccontextmanager
async def standing_between(target: str, scripts: Path) -> AsyncIterator[Between]:
    """One of them, until the end of the block."""
    between = Between(target, scripts)
    app = Starlette(
        routes=[
            Route("/", _page),
            Route("/scripts/{place}/{name:path}", between.file),
            Route("/v1/{rest:path}", between.passed_on, methods=["GET", "POST", "DELETE"]),
        ]
    )
    async with served(app, "critical") as between.address:  # a cut is no news
        yield between
        await between.close()
