"""A stand-in for the API that plays a recorded run to the console, and cuts, refuses or waits when a test says so."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

STATIC = Path(__file__).resolve().parents[2] / "api" / "web" / "static"
KEY = "rw_test_key"
RUN_ID = "0199c0de-0000-7000-8000-000000000001"
CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
PLAN = [
    {"state": "uploaded", "label": "Document received"},
    {"state": "parsing", "label": "Reading the document"},
    {"state": "extracting", "label": "Extracting clauses"},
    {"state": "checking", "label": "Checking against policy"},
    {"state": "drafting", "label": "Drafting comments"},
    {"state": "validating", "label": "Validating"},
    {"state": "ready", "label": "Ready for review"},
]
SAMPLE = {"title": "Mutual NDA", "text": "Clause 4.1 The parties shall notify each other.", "policy": "house"}
FINAL_TYPE = "result"
TERMINAL_TYPES = {"result", "cancelled", "error"}


@dataclass
class Recorded:
    """One run's frames, shown up to a mark that the test moves, and what the page asked for meanwhile."""

    frames: list[dict[str, Any]] = field(default_factory=list)
    cuts: set[int] = field(default_factory=set)
    refusals: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    asked: list[tuple[str, str, Any]] = field(default_factory=list)
    opened_after: list[int] = field(default_factory=list)
    cancel_status: int = 202
    decide_status: int = 202
    queue: dict[str, Any] | None = None
    closed: bool = False
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def add(self, type_: str, **data: Any) -> int:
        """One more event; every open stream sends it."""
        seq = len(self.frames) + 1
        at = f"2026-11-20T07:12:{seq % 60:02d}.123456Z"
        attempt = int(data.get("attempt", 1))
        frame = {"seq": seq, "run_id": RUN_ID, "type": type_, "at": at, "attempt": attempt}
        async with self.changed:
            self.frames.append(frame | {"final": type_ == FINAL_TYPE, "data": data})
            self.changed.notify_all()
        return seq

    async def close(self) -> None:
        """Every open stream ends, so that the server can stop at once."""
        async with self.changed:
            self.closed = True
            self.changed.notify_all()

    async def stream(self, after: int) -> AsyncIterator[bytes]:
        """Frames after the cursor, live; ends after the terminal one, or once at each seq in `cuts`."""
        yield b":\n"
        while not self.closed:
            for frame in self.frames[after:]:
                after = frame["seq"]
                yield f"id: {after}\nevent: {frame['type']}\ndata: {json.dumps(frame)}\n\n".encode()
                if frame["type"] in TERMINAL_TYPES:
                    return
                if after in self.cuts:
                    self.cuts.discard(after)
                    return
            async with self.changed:
                while len(self.frames) == after and not self.closed:
                    await self.changed.wait()


def console_app(recorded: Recorded) -> ASGIApp:
    """The console's files and as much of the API as the console asks for."""

    async def refuse_strangers(request: Request) -> Response | None:
        body = await request.body()
        recorded.asked.append((request.method, request.url.path, json.loads(body) if body else None))
        if request.headers.get("authorization") != f"Bearer {KEY}":
            return JSONResponse({"title": "Unknown key"}, 401, media_type="application/problem+json")
        return None

    async def runs(request: Request) -> Response:
        if refusal := await refuse_strangers(request):
            return refusal
        if request.method == "POST":
            assert request.headers["idempotency-key"]
            return JSONResponse({"id": RUN_ID}, 202)
        listed = {"id": RUN_ID, "workflow": "contract_review", "status": "running", "title": "Mutual NDA"}
        return JSONResponse({"runs": [listed | {"created_at": "2026-11-20T07:12:00Z"}], "next": None})

    async def workflows(request: Request) -> Response:
        review = {"name": "contract_review", "title": "Contract review", "milestones": PLAN, "input_schema": {}}
        told = {"workflows": [review | {"samples": [{"name": "mutual_nda", "input": SAMPLE}]}]}
        return await refuse_strangers(request) or JSONResponse(told)

    async def events(request: Request) -> Response:
        if refusal := await refuse_strangers(request):
            return refusal
        after = int(request.query_params["after"])
        recorded.opened_after.append(after)
        if request.path_params["id"] != RUN_ID:
            return JSONResponse({"title": "No such run"}, 404, media_type="application/problem+json")
        if recorded.refusals:
            status, headers = recorded.refusals.pop(0)
            return Response(status_code=status, headers=headers)
        return StreamingResponse(recorded.stream(after), media_type="text/event-stream")

    async def cancel(request: Request) -> Response:
        told = {"detail": "The log cannot be written just now."} if recorded.cancel_status >= 400 else {}
        return await refuse_strangers(request) or JSONResponse(told, recorded.cancel_status)

    async def state(request: Request) -> Response:
        seen = {"seq": int(request.query_params.get("at", "1")), "chain": "ab" * 32}
        return await refuse_strangers(request) or JSONResponse({"seen": seen, "queue": recorded.queue})

    async def decide(request: Request) -> Response:
        told = {"detail": "This question was answered otherwise before."} if recorded.decide_status >= 400 else {}
        return await refuse_strangers(request) or JSONResponse(told, recorded.decide_status)

    return with_content_policy(
        Starlette(
            routes=[
                Route("/v1/runs", runs, methods=["GET", "POST"]),
                Route("/v1/workflows", workflows),
                Route("/v1/runs/{id}", state),
                Route("/v1/runs/{id}/decisions", decide, methods=["POST"]),
                Route("/v1/runs/{id}/events", events),
                Route("/v1/runs/{id}/cancel", cancel, methods=["POST"]),
                Mount("/", StaticFiles(directory=STATIC, html=True)),
            ]
        )
    )


def with_content_policy(app: ASGIApp) -> ASGIApp:
    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", CONTENT_POLICY.encode())]
            await send(message)

        await app(scope, receive, sending if scope["type"] == "http" else send)

    return guarded


class _Server(uvicorn.Server):
    """A server inside the test's own loop, which leaves the process's signals alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def served(app: ASGIApp, log_level: str = "warning") -> AsyncIterator[str]:
    """The application on a free port of this machine."""
    config = uvicorn.Config(app, port=0, log_level=log_level, lifespan="off", timeout_graceful_shutdown=1)
    server = _Server(config)
    listener = config.bind_socket()
    listener.listen()  # a browser that is quicker than the server waits instead of being refused
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
