"""The scripted model as an HTTP server that stands on a port of its own until it is stopped."""

import asyncio
import os
import socket
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, cast

import orjson
import uvicorn
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from worker.llm.scripted_chat import RESPONSES_PATH, TRANSPORT, Pace, ScriptedChat
from worker.llm.scripted_faults import Fault
from worker.llm.scripted_rules import Rule

MODEL_NAME = "scripted-1"


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    pieces_per_s: float | None = Field(default=None, ge=0)
    first_piece_s: float = Field(default=0.0, ge=0)


def pace_of(environment: Mapping[str, str]) -> Pace:
    """The pace that the environment asks for. Raises ValueError with a line for the operator."""
    names = {"pieces_per_s": "RUNWIRE_SCRIPTED_PIECES_PER_S", "first_piece_s": "RUNWIRE_SCRIPTED_FIRST_PIECE_S"}
    given = {field: environment[name] for field, name in names.items() if environment.get(name)}
    try:
        settings = _Settings.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ValueError(f"{names[str(first['loc'][0])]}: {first['msg']}") from None
    return Pace(settings.pieces_per_s, settings.first_piece_s)


def scripted_app(chat: ScriptedChat) -> Starlette:
    """The routes: what a client of OpenAI calls, and `/scripted/…`, by which tests and drills steer."""
    started_with = Pace(chat.pace.pieces_per_s, chat.pace.first_piece_s)

    async def models(_request: Request) -> Response:
        model = {"id": MODEL_NAME, "object": "model", "created": 0, "owned_by": "runwire"}
        return _json({"object": "list", "data": [model]})

    async def faults(request: Request) -> Response:
        if request.method == "POST":
            try:
                chat.faults.add(Fault.model_validate_json(await request.body()))
            except (ValidationError, OverflowError) as error:
                return _refused(error)
        elif request.method == "DELETE":
            chat.faults.clear()
        return _json({"waiting": chat.faults.waiting()}, 201 if request.method == "POST" else 200)

    async def journal(request: Request) -> Response:
        if request.method == "DELETE":
            chat.journal.clear()
        return _json({"requests": chat.journal.entries()})

    async def pace(request: Request) -> Response:
        if request.method == "POST":
            try:
                asked = _Settings.model_validate_json(await request.body())
            except ValidationError as error:
                return _refused(error)
            for name in asked.model_fields_set:
                setattr(chat.pace, name, getattr(asked, name))
        elif request.method == "DELETE":
            chat.pace.pieces_per_s, chat.pace.first_piece_s = started_with.pieces_per_s, started_with.first_piece_s
        return _json({"pieces_per_s": chat.pace.pieces_per_s, "first_piece_s": chat.pace.first_piece_s})

    return Starlette(
        routes=[
            Route("/v1/chat/completions", chat, methods=["POST"]),
            Route(RESPONSES_PATH, chat, methods=["POST"]),
            Route("/v1/models", models),
            Route("/scripted/faults", faults, methods=["GET", "POST", "DELETE"]),
            Route("/scripted/journal", journal, methods=["GET", "DELETE"]),
            Route("/scripted/pace", pace, methods=["GET", "POST", "DELETE"]),
        ]
    )


def _json(value: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status, media_type="application/json")


def _refused(error: ValidationError | OverflowError) -> Response:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return _json({"error": f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"}, 400)
    return _json({"error": str(error)}, 429)


class _Protocol(HttpToolsProtocol):
    """Hands the connection to the application: ASGI knows no way to break one off."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        cast(dict[str, Any], self.scope)[TRANSPORT] = self.transport


class _Uvicorn(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, chat: ScriptedChat) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()
        self._chat = chat

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield  # signals belong to the program that runs this server, which may be a test

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._chat.stop()
        await super().shutdown(sockets)


class ScriptedServer:
    """Runs in the caller's event loop: `async with ScriptedServer(rules) as server: ... server.url`.

    `faults`, `journal` and `pace` are those of the control endpoint, for a caller in the same process.
    """

    def __init__(
        self, rules: Sequence[Rule] = (), *, host: str = "127.0.0.1", port: int = 0, pace: Pace | None = None
    ) -> None:
        self._host = host
        self._wanted_port = port
        self._chat = ScriptedChat(rules, pace if pace is not None else pace_of(os.environ))
        self.faults = self._chat.faults
        self.journal = self._chat.journal
        self.pace = self._chat.pace
        self.port = 0

    @property
    def url(self) -> str:
        """The base URL for an OpenAI client."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self.port}/v1"

    async def __aenter__(self) -> Self:
        """Listen. Raises OSError when the port cannot be had."""
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        listener = socket.create_server((self._host, self._wanted_port), family=family, backlog=1024)
        self.port = listener.getsockname()[1]
        config = uvicorn.Config(
            scripted_app(self._chat),
            http=_Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            date_header=False,
            server_header=False,
            timeout_graceful_shutdown=1,
        )
        self._uvicorn = _Uvicorn(config, self._chat)
        self._serving = asyncio.create_task(self._uvicorn.serve([listener]))
        await self._uvicorn.listening.wait()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._uvicorn.should_exit = True
        await self._serving
