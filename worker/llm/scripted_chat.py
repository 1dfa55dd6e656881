"""The scripted model's answers over HTTP: at a pace, and with the fault that was ordered."""

import asyncio
import hashlib
import socket
import struct
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import orjson
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from worker.llm.scripted_faults import Entry, Fault, Faults, Journal
from worker.llm.scripted_responses import ResponsesWire, asked_responses
from worker.llm.scripted_rules import Rule, answered, prompt_text
from worker.llm.scripted_wire import (
    PROVIDER_TEXT,
    BadRequestError,
    ChatWire,
    Exchange,
    Wire,
    asked_chat,
    deltas_of,
    error_body,
    usage_of,
)

PIECES_PER_S = 60.0
BODY_BYTES_MAX = 16 << 20
TRANSPORT = "runwire.transport"
RESPONSES_PATH = "/v1/responses"
_IN_STREAM = frozenset(
    {"cut", "reset", "early_end", "malformed", "bad_utf8", "error_frame", "failed", "no_finish", "hang"}
)


@dataclass(slots=True)
class Pace:
    """How fast the model speaks. What was ordered counts, then the environment, then the rule; 0 is unpaced."""

    pieces_per_s: float | None = None
    first_piece_s: float = 0.0

    def rate(self, rule_rate: float | None) -> float:
        if self.pieces_per_s is not None:
            return self.pieces_per_s
        return PIECES_PER_S if rule_rate is None else rule_rate


class ScriptedChat:
    """An ASGI application: one call per request, each watching its client while it speaks."""

    def __init__(self, rules: Sequence[Rule], pace: Pace) -> None:
        self.rules = tuple(rules)
        self.pace = pace
        self.faults = Faults()
        self.journal = Journal()
        self._running: set[asyncio.Task[None]] = set()

    def stop(self) -> None:
        """Break off every answer, so that the server can end."""
        for task in self._running:
            task.cancel()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _body(receive)
        if body is None:
            return
        headers = dict(scope["headers"])
        if not headers.get(b"authorization", b"").lower().startswith(b"bearer "):
            await _error(401, "no key was given", "invalid_api_key")(scope, receive, send)
            return
        try:
            exchange = self._exchange(body, _address(scope), over_responses=scope["path"] == RESPONSES_PATH)
        except BadRequestError as error:
            await _error(400, str(error), None)(scope, receive, send)
            return
        wire = ResponsesWire(exchange) if exchange.entry.api == "responses" else ChatWire(exchange)
        await self._converse(exchange, wire, scope, receive, send)

    async def _converse(self, exchange: Exchange, wire: Wire, scope: Scope, receive: Receive, send: Send) -> None:
        """Speak and watch the client at the same time: its leaving is noticed at once, not at the next piece."""
        speaking = asyncio.create_task(self._speak(exchange, wire, scope, receive, send))
        watching = asyncio.create_task(_watch(receive, exchange.entry))
        self._running.add(speaking)
        try:
            await asyncio.wait({speaking, watching}, return_when=asyncio.FIRST_COMPLETED)
            speaking.cancel()
            with suppress(asyncio.CancelledError):
                await speaking
            exchange.entry.close("stopped")
            if exchange.entry.ended in {"cut", "reset", "stopped"}:
                _break_off(scope[TRANSPORT], exchange.entry.ended)
                await watching
        finally:
            self._running.discard(speaking)
            speaking.cancel()
            watching.cancel()

    def _exchange(self, body: bytes, client: str, *, over_responses: bool) -> Exchange:
        try:
            sent = orjson.loads(body)
        except orjson.JSONDecodeError:
            raise BadRequestError("the body is no JSON") from None
        if not isinstance(sent, dict) or not isinstance(sent.get("model"), str):
            raise BadRequestError("model is missing")
        asked = asked_responses(sent) if over_responses else asked_chat(sent)
        prompt = prompt_text(asked.messages)
        told = answered(self.rules, asked.messages)
        fault = self.faults.take(prompt, told.text)
        if fault is not None and fault.replace is not None:
            told = replace(told, text=told.text.replace(fault.replace.old, fault.replace.new))
        digest = hashlib.sha256(prompt.encode()).hexdigest()
        entry = self.journal.open(
            client=client,
            model=asked.model,
            rule=told.rule,
            prompt_digest=digest,
            fault=fault.kind if fault else None,
            api="responses" if over_responses else "chat",
        )
        deltas = list(deltas_of(told, digest))
        if asked.room is not None and asked.room < len(deltas):
            deltas = deltas[: asked.room]
            told = replace(told, finish="length")
        return Exchange(asked, told, deltas, usage_of(prompt, deltas), fault, entry)

    async def _speak(self, exchange: Exchange, wire: Wire, scope: Scope, receive: Receive, send: Send) -> None:
        fault, entry = exchange.fault, exchange.entry
        delay = self.pace.first_piece_s + (fault.delay_s if fault and fault.kind == "slow_first" else 0.0)
        if delay > 0:
            await asyncio.sleep(delay)
        if fault is not None and (fault.status is not None or fault.kind == "not_a_stream"):
            entry.close(fault.kind)
            await _error(fault.status or 200, PROVIDER_TEXT, fault.error_code, fault, entry.id)(scope, receive, send)
        elif exchange.asked.streamed:
            await self._stream(exchange, wire, send)
        else:
            await self._whole(exchange, wire, scope, receive, send)

    async def _stream(self, exchange: Exchange, wire: Wire, send: Send) -> None:
        fault, entry = exchange.fault, exchange.entry
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
        headers.append((b"x-request-id", entry.id.encode()))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for part in wire.opening():
            await send(_body_part(part))
        broken = fault is not None and fault.kind in _IN_STREAM
        upto = min(fault.after_pieces, len(exchange.deltas)) if broken and fault else len(exchange.deltas)
        due = time.monotonic()
        for delta in exchange.deltas[:upto]:
            # Sleeping for nothing still lets the watcher and the other requests in.
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            await send(_body_part(b"".join(wire.piece(delta))))
            entry.sent_piece()
            rate = self.pace.rate(exchange.answer.pieces_per_s)
            due += 1 / rate if rate else 0.0
        if broken and fault is not None:
            await _break(wire, exchange, fault, send)
            return
        for part in wire.ending(late=fault is not None and fault.kind == "talk_on"):
            await send(_body_part(part))
        entry.close("finished")
        await send(_body_part(b"", more=False))

    async def _whole(self, exchange: Exchange, wire: Wire, scope: Scope, receive: Receive, send: Send) -> None:
        """The answer in one piece, for a client that does not stream."""
        if exchange.fault is not None and exchange.fault.kind in _IN_STREAM:
            if exchange.fault.kind == "hang":
                await asyncio.Event().wait()
            exchange.entry.close("cut")
            return
        whole = wire.whole()
        exchange.entry.close("finished")
        response = Response(orjson.dumps(whole), media_type="application/json")
        response.headers["x-request-id"] = exchange.entry.id
        await response(scope, receive, send)


async def _break(wire: Wire, exchange: Exchange, fault: Fault, send: Send) -> None:
    """End the stream in the way that was ordered; the connection itself is broken off by the caller, who holds it."""
    if fault.kind == "hang":
        await asyncio.Event().wait()
    for part in wire.broken(fault):
        await send(_body_part(part))
    exchange.entry.close(fault.kind)
    if fault.kind not in {"cut", "reset"}:
        await send(_body_part(b"", more=False))


async def _body(receive: Receive) -> bytes | None:
    """The request's body; None if the client left before it was whole. What is too long is cut, and then no JSON."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        size += len(message.get("body", b""))
        if size <= BODY_BYTES_MAX:
            parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


async def _watch(receive: Receive, entry: Entry) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    entry.close("client_closed")


def _address(scope: Scope) -> str:
    """The client's end of the connection: two requests that share it came over one connection."""
    host, port = scope["client"]
    return f"{host}:{port}"


def _break_off(transport: asyncio.Transport, how: str) -> None:
    """Close the connection in the middle of the body; all but a plain cut drop what the client has not taken yet."""
    if how == "cut":
        transport.close()
        return
    if how == "reset":
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def _body_part(body: bytes, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}


def _error(
    status: int, message: str, code: str | None, fault: Fault | None = None, request_id: str | None = None
) -> Response:
    response = Response(orjson.dumps(error_body(message, code)), status, media_type="application/json")
    if request_id is not None:
        response.headers["x-request-id"] = request_id
    if fault is not None and fault.retry_after_s is not None:
        response.headers["retry-after"] = f"{fault.retry_after_s:g}"
    return response
