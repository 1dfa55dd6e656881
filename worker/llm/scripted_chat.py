"""The scripted model's one endpoint: an answer as OpenAI streams it, at a pace, with the fault that was ordered."""

import asyncio
import hashlib
import socket
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import orjson
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from worker.llm.scripted_faults import Entry, Fault, Faults, Journal
from worker.llm.scripted_rules import Answer, Rule, answer, prompt_text, words

PIECES_PER_S = 60.0
BODY_BYTES_MAX = 16 << 20
TRANSPORT = "runwire.transport"
_ARGUMENT_CHARS = 12
# What a provider might write; it must never reach anybody.
_PROVIDER_TEXT = "scripted provider text, not for anybody's eyes"
_IN_STREAM = frozenset({"cut", "reset", "early_end", "malformed", "bad_utf8", "error_frame", "hang"})

Delta = dict[str, Any]


@dataclass(slots=True)
class Pace:
    """How fast the model speaks. What was ordered counts, then the environment, then the rule; 0 is unpaced."""

    pieces_per_s: float | None = None
    first_piece_s: float = 0.0

    def rate(self, rule_rate: float | None) -> float:
        if self.pieces_per_s is not None:
            return self.pieces_per_s
        return PIECES_PER_S if rule_rate is None else rule_rate


@dataclass(frozen=True, slots=True)
class _Exchange:
    """One request and what it will be told."""

    model: str
    answer: Answer
    deltas: list[Delta]
    usage: dict[str, Any]
    fault: Fault | None
    streamed: bool
    include_usage: bool
    entry: Entry
    created: int = field(default_factory=lambda: int(time.time()))


class BadRequestError(ValueError):
    """The request cannot be answered; the text goes to the client."""


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
            exchange = self._exchange(body, _address(scope))
        except BadRequestError as error:
            await _error(400, str(error), None)(scope, receive, send)
            return
        await self._converse(exchange, scope, receive, send)

    async def _converse(self, exchange: _Exchange, scope: Scope, receive: Receive, send: Send) -> None:
        """Speak and watch the client at the same time: its leaving is noticed at once, not at the next piece."""
        speaking = asyncio.create_task(self._speak(exchange, scope, receive, send))
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

    def _exchange(self, body: bytes, client: str) -> _Exchange:
        try:
            asked = orjson.loads(body)
        except orjson.JSONDecodeError:
            raise BadRequestError("the body is no JSON") from None
        if not isinstance(asked, dict) or not isinstance(asked.get("model"), str):
            raise BadRequestError("model is missing")
        messages = asked.get("messages")
        if not isinstance(messages, list) or not messages or not all(isinstance(item, dict) for item in messages):
            raise BadRequestError("messages is missing")
        prompt = prompt_text(messages)
        told = answer(self.rules, prompt, str(messages[-1].get("role")))
        fault = self.faults.take(prompt, told.text)
        if fault is not None and fault.replace is not None:
            told = replace(told, text=told.text.replace(fault.replace.old, fault.replace.new))
        digest = hashlib.sha256(prompt.encode()).hexdigest()
        kind = fault.kind if fault else None
        entry = self.journal.open(client=client, model=asked["model"], rule=told.rule, prompt_digest=digest, fault=kind)
        deltas = list(_deltas(told, digest))
        room = asked.get("max_completion_tokens") or asked.get("max_tokens")
        if isinstance(room, int) and room < len(deltas):
            deltas = deltas[:room]
            told = replace(told, finish="length")
        options = asked.get("stream_options") or {}
        return _Exchange(
            model=asked["model"],
            answer=told,
            deltas=deltas,
            usage=_usage(prompt, deltas),
            fault=fault,
            streamed=asked.get("stream") is True,
            include_usage=isinstance(options, dict) and options.get("include_usage") is True,
            entry=entry,
        )

    async def _speak(self, exchange: _Exchange, scope: Scope, receive: Receive, send: Send) -> None:
        fault, entry = exchange.fault, exchange.entry
        delay = self.pace.first_piece_s + (fault.delay_s if fault and fault.kind == "slow_first" else 0.0)
        if delay > 0:
            await asyncio.sleep(delay)
        if fault is not None and (fault.status is not None or fault.kind == "not_a_stream"):
            entry.close(fault.kind)
            await _error(fault.status or 200, _PROVIDER_TEXT, fault.error_code, fault, entry.id)(scope, receive, send)
        elif exchange.streamed:
            await self._stream(exchange, send)
        else:
            await self._whole(exchange, scope, receive, send)

    async def _stream(self, exchange: _Exchange, send: Send) -> None:
        fault, entry = exchange.fault, exchange.entry
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
        headers.append((b"x-request-id", entry.id.encode()))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send(_data(_chunk(exchange, {"role": "assistant", "content": ""})))
        broken = fault is not None and fault.kind in _IN_STREAM
        upto = min(fault.after_pieces, len(exchange.deltas)) if broken and fault else len(exchange.deltas)
        due = time.monotonic()
        for delta in exchange.deltas[:upto]:
            # Sleeping for nothing still lets the watcher and the other requests in.
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            await send(_data(_chunk(exchange, delta)))
            entry.sent_piece()
            rate = self.pace.rate(exchange.answer.pieces_per_s)
            due += 1 / rate if rate else 0.0
        if broken and fault is not None:
            await _break(fault, entry, send)
            return
        await send(_data(_chunk(exchange, {}, exchange.answer.finish)))
        if exchange.include_usage:
            await send(_data({**_chunk(exchange, {}), "choices": [], "usage": exchange.usage}))
        await send(_body_part(b"data: [DONE]\n\n"))
        entry.close("finished")
        await send(_body_part(b"", more=False))

    async def _whole(self, exchange: _Exchange, scope: Scope, receive: Receive, send: Send) -> None:
        """The answer in one piece, for a client that does not stream."""
        if exchange.fault is not None and exchange.fault.kind in _IN_STREAM:
            if exchange.fault.kind == "hang":
                await asyncio.Event().wait()
            exchange.entry.close("cut")
            return
        message: dict[str, Any] = {"role": "assistant", "content": exchange.answer.text, "refusal": None}
        if exchange.answer.reasoning:
            message["reasoning_content"] = exchange.answer.reasoning
        if exchange.answer.tool_calls:
            message["tool_calls"] = [
                {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
                for call_id, name, arguments in _calls(exchange.answer, exchange.entry.prompt_digest)
            ]
        completion = _chunk(exchange, {}, exchange.answer.finish)
        completion["object"] = "chat.completion"
        completion["choices"] = [{"index": 0, "message": message, "finish_reason": exchange.answer.finish}]
        completion["usage"] = exchange.usage
        exchange.entry.close("finished")
        response = Response(orjson.dumps(completion), media_type="application/json")
        response.headers["x-request-id"] = exchange.entry.id
        await response(scope, receive, send)


async def _break(fault: Fault, entry: Entry, send: Send) -> None:
    """End the stream in the way that was ordered; the connection itself is broken off by the caller, who holds it."""
    if fault.kind == "hang":
        await asyncio.Event().wait()
    if fault.kind == "malformed":
        await send(_body_part(b'data: {"id":"chatcmpl-scripted","choices":[{"index":0,"delta":{"cont\n\n'))
    elif fault.kind == "bad_utf8":
        await send(_body_part(b'data: {"choices":[{"index":0,"delta":{"content":"\xff\xfe"}}]}\n\n'))
    elif fault.kind == "error_frame":
        await send(_data(_error_body(_PROVIDER_TEXT, fault.error_code or "server_error")))
    entry.close(fault.kind)
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


def _deltas(told: Answer, digest: str) -> Iterator[Delta]:
    for word in words(told.reasoning):
        yield {"reasoning_content": word}
    for word in words(told.text):
        yield {"content": word}
    for index, (call_id, name, arguments) in enumerate(_calls(told, digest)):
        function = {"name": name, "arguments": ""}
        yield {"tool_calls": [{"index": index, "id": call_id, "type": "function", "function": function}]}
        for start in range(0, len(arguments), _ARGUMENT_CHARS):
            part = arguments[start : start + _ARGUMENT_CHARS]
            yield {"tool_calls": [{"index": index, "function": {"arguments": part}}]}


def _calls(told: Answer, digest: str) -> Iterator[tuple[str, str, str]]:
    for index, (name, arguments) in enumerate(told.tool_calls):
        call_id = hashlib.sha256(f"{digest} {index} {name}".encode()).hexdigest()[:24]
        yield f"call_{call_id}", name, orjson.dumps(arguments).decode()


def _usage(prompt: str, deltas: Sequence[Delta]) -> dict[str, Any]:
    """A piece counts as a token."""
    read, said = len(words(prompt)), len(deltas)
    reasoning = sum("reasoning_content" in delta for delta in deltas)
    return {
        "prompt_tokens": read,
        "completion_tokens": said,
        "total_tokens": read + said,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }


def _chunk(exchange: _Exchange, delta: Mapping[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{exchange.entry.id}",
        "object": "chat.completion.chunk",
        "created": exchange.created,
        "model": exchange.model,
        "system_fingerprint": "fp_scripted",
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}],
    }


def _data(value: Mapping[str, Any]) -> Message:
    return _body_part(b"data: " + orjson.dumps(value) + b"\n\n")


def _body_part(body: bytes, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}


def _error_body(message: str, code: str | None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "scripted_error", "param": None, "code": code}}


def _error(
    status: int, message: str, code: str | None, fault: Fault | None = None, request_id: str | None = None
) -> Response:
    response = Response(orjson.dumps(_error_body(message, code)), status, media_type="application/json")
    if request_id is not None:
        response.headers["x-request-id"] = request_id
    if fault is not None and fault.retry_after_s is not None:
        response.headers["retry-after"] = f"{fault.retry_after_s:g}"
    return response
