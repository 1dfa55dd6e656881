"""The WebSocket front: a message for each envelope, the bytes of the other fronts; cancel, decision and ping upstream.

What the server says for itself has no `seq`: `pong`, `answer` and `problem`. Whatever ends a connection before the run
does is told as a `problem` first, and its close code is 4000 and the status of that problem: a page sees nothing of an
answer to a handshake but that it failed. A key never stands in the address: it comes in a header of the handshake, or
from a page, which cannot set one, in the first message, where no proxy logs it.
"""

import asyncio
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from time import perf_counter
from typing import Any, Final

import orjson
from fastapi import APIRouter
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.routing import WebSocketRoute
from starlette.types import Message, Receive, Scope, Send

from api.callers import Caller
from api.decisions import decide_on
from api.errors import (
    BadRequest,
    Fault,
    ForeignOrigin,
    NeedsUpgrade,
    NotAuthenticated,
    TooManyRequests,
    answer_to,
    told,
)
from api.figures import Outcome, StreamFigures
from api.fronts.feed import Frame
from api.fronts.opening import Wish, start, streamed
from api.fronts.sources import Source
from api.fronts.sse import ABORT
from api.fronts.waits import Stuck, Wait
from api.keys import key_in
from api.middleware import REQUEST_ID, access, log_unexpected
from api.negotiation import DIGITS, types_in
from api.runs import stop_run
from api.service import Service
from api.sockets import SOCKET, Closed, Socket
from api.submission import read_object

PROTOCOL: Final = "runwire.v1"
OVER: Final = (1000, "the run has ended")
ENDS: Final[Mapping[Outcome, tuple[int, str]]] = {
    "ended": OVER,
    "rotated": (1012, "this connection is old: come back with your cursor"),
    "drained": (1012, "this server stops: come back with your cursor"),
}
OF_STATUS: Final = 4000  # and the status of the problem, except
CLOSES: Final = {500: 1011, 503: 1013}
ASKED: Final = {
    "after": (DIGITS, "the seq of the last event that you have"),
    "snapshot": (re.compile("0|1|true|false"), "1 or 0"),
}
SAYS: Final = ("ping", "cancel", "decision")
ID_MAX: Final = 64
KEY_FIRST: Final = (
    'Send an API key: the header `Authorization: Bearer rw_…`, or first of all {"type":"auth","key":"rw_…"}.'
)

router = APIRouter(prefix="/v1/runs", tags=["events"])


@router.get(
    "/{run_id}/ws",
    status_code=101,
    response_class=Response,
    summary="The events of a run over a WebSocket",
    description="Each envelope is one text message, the same bytes as on the other fronts; `after`, `types` and "
    "`snapshot` as there. Send "
    '`{"type":"ping"}`, `{"type":"cancel","reason":…}` or `{"type":"decision",…}` with the fields of its route; an '
    "`id` of yours comes back in the answer. A page sends its key as the first message. Closed with 1000 after the "
    "terminal event, 1012 at a restart (come back with your cursor), 4000 plus a status with the problem before it.",
    responses={426: {"description": "this is not the handshake of a WebSocket"}},
)
async def needs_upgrade(run_id: str) -> Response:
    raise NeedsUpgrade


class Conversation:
    """One WebSocket, from its handshake to its end."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._connection = HTTPConnection(scope)
        self._receive = receive
        self._send = send
        self._service: Service = scope["app"].state.service
        self._socket: Socket = scope["extensions"][SOCKET]["socket"]
        self._abort: Callable[[], None] = scope["extensions"][ABORT]["abort"]
        self._run_id: str = scope["path_params"]["run_id"]
        self._writing = asyncio.Lock()
        self._wait: Wait | None = None
        self._figures: StreamFigures | None = None
        self._caller: Caller | None = None
        given = self._connection.headers.get("x-request-id", "")
        self._request_id = given if REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        self._connection.state.request_id = self._request_id
        self._scope = scope
        self._code = 0

    async def run(self) -> None:
        """All of it, and a line about it."""
        began = perf_counter()
        try:
            await self._receive()  # that somebody wants to connect
            if self._is_foreign():
                await (await self._answered(ForeignOrigin()))(self._scope, self._receive, self._send)
                return
            offered = PROTOCOL if PROTOCOL in self._scope["subprotocols"] else None
            headers = [(b"x-request-id", self._request_id.encode())]
            await self._send({"type": "websocket.accept", "subprotocol": offered, "headers": headers})
            await self._conversed()
        finally:
            access.info(
                "websocket",
                path=self._scope["path"],  # never the query
                close=self._code or None,
                ms=round((perf_counter() - began) * 1_000, 1),
                request_id=self._request_id,
                key_id=self._caller.key_id if self._caller else None,
            )

    # --- beginning

    def _is_foreign(self) -> bool:
        """Whether a page of somebody else's asks. What is no browser sends no origin, and has no page."""
        origin = self._connection.headers.get("origin")
        if origin is None or origin in self._service.settings.websocket_origins.split():
            return False
        scheme, _, authority = origin.partition("://")
        return scheme not in ("http", "https") or authority.lower() != self._connection.headers.get("host", "").lower()

    async def _conversed(self) -> None:
        try:
            caller, wish = await self._begun()
            begun = await start(self._service, caller, wish)
            if begun.over:
                await self._end(*OVER)
                return
            place, figures = self._service.limits.stream(caller), self._service.figures.stream("ws")
            await self._stream(place(streamed(self._service, begun, wish, figures)), figures)
        except Closed:
            pass
        except Exception as fault:  # noqa: BLE001 - the last edge: nothing above us could tell the reader or the log
            answer = await self._answered(fault)
            with suppress(Closed):
                await self._write([self._problem(answer, {})])
                status = answer.status_code
                await self._end(CLOSES.get(status, OF_STATUS + status), orjson.loads(answer.body)["title"])

    async def _begun(self) -> tuple[Caller, Wish]:
        """Who reads, and what."""
        caller = self._caller = await self._authenticated()
        self._service.limits.request(caller)
        asked = self._connection.query_params
        if faults := [
            Fault(f"/query/{name}", f"must be {form}")
            for name, (shape, form) in ASKED.items()
            if name in asked and not shape.fullmatch(asked[name])
        ]:
            raise BadRequest(faults=faults)
        after, snapshot = asked.get("after"), asked.get("snapshot") in ("1", "true")
        return caller, Wish(self._run_id, int(after) if after else None, types_in(asked.get("types")), snapshot)

    async def _authenticated(self) -> Caller:
        headers = self._connection.headers
        if "authorization" in headers or "x-api-key" in headers:
            return await self._service.keys.caller(key_in(self._connection))
        try:
            async with asyncio.timeout(self._service.settings.head_timeout_s):
                message = await self._receive()
        except TimeoutError:
            raise NotAuthenticated(KEY_FIRST) from None
        if message["type"] == "websocket.disconnect":
            raise Closed
        said = self._read(message)
        if said.get("type") != "auth" or not isinstance(said.get("key"), str) or len(said) != 2:
            raise NotAuthenticated(KEY_FIRST)
        return await self._service.keys.caller(said["key"])

    # --- down

    async def _stream(self, source: AbstractContextManager[Source], figures: StreamFigures) -> None:
        outcome: Outcome = "broken"
        figures.opened()
        self._socket.hold()
        try:
            async with self._service.waits.open(self._hear) as wait:
                self._wait = wait
                try:
                    async with wait.bounded():
                        with source as frames:
                            await self._write_all(frames, wait, figures)
                            outcome = frames.outcome if frames.closed else "left" if wait.gone.is_set() else "drained"
                        if outcome != "left":
                            await self._end(*ENDS[outcome])
                except Stuck:
                    outcome = "cut"
                    self._abort()
                    await wait.gone.wait()
                except Closed:
                    outcome = "left"
        except asyncio.CancelledError:
            outcome = "drained"
            raise
        finally:
            self._wait = None
            figures.closed(outcome)

    async def _write_all(self, source: Source, wait: Wait, figures: StreamFigures) -> None:
        """The frames of a source, until it closes, the reader leaves or the process drains."""
        self._figures, wait.pen = figures, self
        while not (source.closed or wait.over):
            # Nothing of what was written is held while we wait for more.
            await self._tell(await source.frames(wait, self._service.settings.keepalive_s), wait, figures)

    async def _tell(self, frames: list[Frame], wait: Wait, figures: StreamFigures) -> None:
        for group in self._groups(frames):
            await self._write(group)
            if wait.over:  # a long page must not hold up a process that stops
                return
        figures.delivered(len(frames))

    @property
    def ready(self) -> bool:
        """As a pen: whether the socket takes more at once, and nobody else is writing to it."""
        return self._socket.ready and not self._writing.locked()

    def write(self, frames: list[Frame]) -> None:
        """As a pen: what came at this moment, while this reader waits."""
        assert self._figures is not None
        self._socket.put([frame.data for frame in frames])
        self._figures.delivered(len(frames))

    def _groups(self, frames: Iterable[Frame]) -> Iterator[list[bytes]]:
        group: list[bytes] = []
        size = 0
        for frame in frames:
            group.append(frame.data)
            size += len(frame.data)
            if size >= self._service.settings.send_bytes:
                yield group
                group, size = [], 0
        if group:
            yield group

    async def _write(self, messages: list[bytes]) -> None:
        """One at a time, whoever writes: a reader that takes nothing is then seen whatever it was to take."""
        async with self._writing:
            wait = self._wait
            if wait is None:
                await self._socket.write(messages)
                return
            wait.sending_since = began = wait.clock()
            await self._socket.write(messages)
            wait.held_s += wait.clock() - began
            wait.sending_since = None

    # --- up

    async def _hear(self) -> Message:
        """Answer what the reader says until it leaves: to those who wait for that, this is all that it does."""
        try:
            while (message := await self._receive())["type"] != "websocket.disconnect":
                await self._answer(message)
        except Closed:
            pass
        return {"type": "http.disconnect"}

    async def _answer(self, message: Message) -> None:
        said: dict[str, Any] = {}
        try:
            said = self._read(message)
            assert self._caller is not None
            self._service.limits.request(self._caller)
            reply = await self._reply(self._caller, said)
        except TooManyRequests as fault:
            await self._write([self._problem(await self._answered(fault), said)])
            await asyncio.sleep(fault.wait_s)  # what it says next waits with its sender
            return
        except Exception as fault:  # noqa: BLE001 - an edge: whatever a message brings about is told, and ends nothing else
            reply = self._problem(await self._answered(fault), said)
        await self._write([reply])

    def _read(self, message: Message) -> dict[str, Any]:
        text = message.get("text")
        if text is None:
            raise BadRequest("Messages are JSON objects in text, not in bytes.", allowed=SAYS)
        return read_object(text.encode(), self._service.settings.request_bytes_max)

    async def _reply(self, caller: Caller, said: dict[str, Any]) -> bytes:
        kind, named = said.get("type"), said.get("id")
        if named is not None and not (isinstance(named, str) and len(named) <= ID_MAX):
            raise BadRequest(faults=[Fault("/id", f"must be a text of at most {ID_MAX} characters")])
        fields = {name: value for name, value in said.items() if name not in ("type", "id")}
        if kind == "ping":
            if fields:
                raise BadRequest(faults=[Fault("/" + name, "unknown field; the only one is id") for name in fields])
            return orjson.dumps({"type": "pong", **_named(said)})
        if kind == "cancel":
            done = await stop_run(self._service, caller, self._run_id, fields)
        elif kind == "decision":
            done = await decide_on(self._service, caller, self._run_id, lambda: fields)
        else:
            raise BadRequest("A message's `type` must be one of those allowed.", allowed=SAYS)
        body = orjson.Fragment(bytes(done.body))
        return orjson.dumps({"type": "answer", "to": kind, **_named(said), "status": done.status_code, "body": body})

    # --- ending

    async def _answered(self, fault: Exception) -> Response:
        answer = None
        with suppress(type(fault)):  # raised again by whoever finds that it is not theirs to tell
            answer = await answer_to(self._connection, fault)
        if answer is None:
            log_unexpected(self._request_id, fault)
            answer = told(self._request_id, fault)
        return answer

    def _problem(self, answer: Response, said: dict[str, Any]) -> bytes:
        to = said.get("type")
        body: dict[str, Any] = {"type": "problem", "to": to if to in SAYS else None, **_named(said)}
        if retry := answer.headers.get("retry-after"):
            body["retry_after"] = int(retry)
        return orjson.dumps({**body, "problem": orjson.Fragment(bytes(answer.body))})

    async def _end(self, code: int, reason: str) -> None:
        self._code = code
        try:
            async with asyncio.timeout(self._service.settings.send_timeout_s), self._writing:
                await self._send({"type": "websocket.close", "code": code, "reason": reason})
        except TimeoutError:
            self._abort()


def _named(said: dict[str, Any]) -> dict[str, str]:
    """The sender's own name for its message, to be given back."""
    named = said.get("id")
    return {"id": named} if isinstance(named, str) and len(named) <= ID_MAX else {}


class WebSocketFront:
    """The route."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await Conversation(scope, receive, send).run()


router.routes.append(WebSocketRoute("/v1/runs/{run_id}/ws", WebSocketFront()))
