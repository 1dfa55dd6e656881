"""A scripted answer in the format of chat completions, and what every format of it shares."""

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

from worker.llm.scripted_faults import Entry, Fault
from worker.llm.scripted_rules import Answer, words

# What a provider might write; it must never reach anybody.
PROVIDER_TEXT = "scripted provider text, not for anybody's eyes"
DONE = b"data: [DONE]\n\n"
LATE = "too late"
_ARGUMENT_CHARS = 12

# A piece of an answer, in the words of chat completions.
Delta = dict[str, Any]


class BadRequestError(ValueError):
    """The request cannot be answered; the text goes to the client."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for, whatever its format."""

    model: str
    messages: list[dict[str, Any]]
    room: int | None
    streamed: bool
    include_usage: bool = True


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and what it will be told."""

    asked: Asked
    answer: Answer
    deltas: list[Delta]
    usage: dict[str, Any]
    fault: Fault | None
    entry: Entry
    created: int = field(default_factory=lambda: int(time.time()))


class Wire(Protocol):
    """One answer in one format, as bytes; each item is a frame."""

    def opening(self) -> list[bytes]:
        """What comes before the first piece."""
        ...

    def piece(self, delta: Delta) -> list[bytes]:
        """One piece."""
        ...

    def ending(self, *, late: bool) -> list[bytes]:
        """The finish and all that follows it; `late` is for a server that talks on."""
        ...

    def broken(self, fault: Fault) -> list[bytes]:
        """What a stream that fails in this way ends with, before its connection does."""
        ...

    def whole(self) -> dict[str, Any]:
        """The answer for a client that does not stream."""
        ...


def frame(value: Mapping[str, Any], event: str | None = None) -> bytes:
    """One event of the stream."""
    name = f"event: {event}\n".encode() if event else b""
    return name + b"data: " + orjson.dumps(value) + b"\n\n"


def deltas_of(told: Answer, digest: str) -> Iterator[Delta]:
    """The answer cut into pieces."""
    for word in words(told.reasoning):
        yield {"reasoning_content": word}
    for word in words(told.refusal):
        yield {"refusal": word}
    for word in words(told.text):
        yield {"content": word}
    for index, (call_id, name, arguments) in enumerate(calls_of(told, digest)):
        function = {"name": name, "arguments": ""}
        yield {"tool_calls": [{"index": index, "id": call_id, "type": "function", "function": function}]}
        for start in range(0, len(arguments), _ARGUMENT_CHARS):
            part = arguments[start : start + _ARGUMENT_CHARS]
            yield {"tool_calls": [{"index": index, "function": {"arguments": part}}]}


def calls_of(told: Answer, digest: str) -> Iterator[tuple[str, str, str]]:
    """Id, name and arguments of each tool call."""
    for index, (name, arguments) in enumerate(told.tool_calls):
        call_id = hashlib.sha256(f"{digest} {index} {name}".encode()).hexdigest()[:24]
        yield f"call_{call_id}", name, orjson.dumps(arguments).decode()


def usage_of(prompt: str, deltas: Sequence[Delta]) -> dict[str, Any]:
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


def error_body(message: str, code: str | None) -> dict[str, Any]:
    """An error as the provider words it."""
    return {"error": {"message": message, "type": "scripted_error", "param": None, "code": code}}


def asked_chat(body: Mapping[str, Any]) -> Asked:
    """A request for a chat completion."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(item, dict) for item in messages):
        raise BadRequestError("messages is missing")
    room = body.get("max_completion_tokens") or body.get("max_tokens")
    options = body.get("stream_options") or {}
    return Asked(
        model=body["model"],
        messages=messages,
        room=room if isinstance(room, int) else None,
        streamed=body.get("stream") is True,
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
    )


class ChatWire:
    """Chunks: a role first, then deltas, the finish reason in a chunk of its own, usage in one without choices."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def opening(self) -> list[bytes]:
        return [frame(self._chunk({"role": "assistant", "content": ""}))]

    def piece(self, delta: Delta) -> list[bytes]:
        return [frame(self._chunk(delta))]

    def ending(self, *, late: bool) -> list[bytes]:
        frames = [frame(self._chunk({}, self._exchange.answer.finish))]
        if late:
            frames += [frame(self._chunk({"content": LATE})), frame(self._chunk({}, "length"))]
        if self._exchange.asked.include_usage:
            frames.append(frame({**self._chunk({}), "choices": [], "usage": self._exchange.usage}))
        return [*frames, DONE]

    def broken(self, fault: Fault) -> list[bytes]:
        if fault.kind == "malformed":
            return [b'data: {"id":"chatcmpl-scripted","choices":[{"index":0,"delta":{"cont\n\n']
        if fault.kind == "bad_utf8":
            return [b'data: {"choices":[{"index":0,"delta":{"content":"\xff\xfe"}}]}\n\n']
        if fault.kind in {"error_frame", "failed"}:
            return [frame(error_body(PROVIDER_TEXT, fault.error_code or "server_error"))]
        return [DONE] if fault.kind == "no_finish" else []

    def whole(self) -> dict[str, Any]:
        answer = self._exchange.answer
        message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": answer.refusal or None}
        if answer.reasoning:
            message["reasoning_content"] = answer.reasoning
        if answer.tool_calls:
            message["tool_calls"] = [
                {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
                for call_id, name, arguments in calls_of(answer, self._exchange.entry.prompt_digest)
            ]
        completion = self._chunk({}, answer.finish)
        completion["object"] = "chat.completion"
        completion["choices"] = [{"index": 0, "message": message, "finish_reason": answer.finish}]
        completion["usage"] = self._exchange.usage
        return completion

    def _chunk(self, delta: Mapping[str, Any], finish: str | None = None) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{self._exchange.entry.id}",
            "object": "chat.completion.chunk",
            "created": self._exchange.created,
            "model": self._exchange.asked.model,
            "system_fingerprint": "fp_scripted",
            "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}],
        }
