"""Chunks of a chat completion to pieces: pure, so that it is tested on recorded streams without a network."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from worker.llm.faults import fault_of_error_frame
from worker.llm.model import ModelFault, Piece, ReasoningPiece, TextPiece, ToolCallPiece, Usage
from worker.llm.sse import Frame, SseFrames

_WORD_MAX = 64
_TOOL_CALLS_MAX = 256
_USAGE_MAX = 1 << 53


def _malformed(what: str) -> ModelFault:
    return ModelFault("malformed", f"The model server sent {what}.", retryable=True)


@dataclass(slots=True)
class _ToolCall:
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)


class ChatDecoder:
    """One answer while it comes in. After the finish reason nothing is said any more; only usage is still read."""

    def __init__(self) -> None:
        self.finish_raw: str | None = None
        self.usage: Usage | None = None
        self.model_served: str | None = None
        self.system_fingerprint: str | None = None
        self._refusal: list[str] = []
        self._calls: dict[int, _ToolCall] = {}
        self._calls_given = False

    def feed(self, chunk: Mapping[str, Any]) -> list[Piece]:
        """Give the pieces of one chunk. Tool calls come whole, with the chunk that carries the finish reason."""
        if chunk.get("error"):
            raise fault_of_error_frame(chunk["error"], None)
        self.model_served = _word(chunk.get("model")) or self.model_served
        self.system_fingerprint = _word(chunk.get("system_fingerprint")) or self.system_fingerprint
        if chunk.get("usage") is not None:
            self.usage = _usage(chunk["usage"]) or self.usage
        choice = _first_choice(chunk.get("choices"))
        if choice is None or self.finish_raw is not None:
            return []
        delta = choice.get("delta")
        pieces = self._delta(delta) if delta is not None else []
        finish = choice.get("finish_reason")
        if finish is not None:
            if not isinstance(finish, str) or not finish:
                raise _malformed("a finish reason that is no text")
            self.finish_raw = finish[:_WORD_MAX]
            pieces.extend(self._close_calls())
        return pieces

    @property
    def finish(self) -> str | None:
        """The finish in our words; None while the answer is open."""
        if self._refusal and self.finish_raw == "stop":
            return "refused"
        if self._calls_given:
            return "tool_calls"
        return self.finish_raw

    @property
    def refusal(self) -> str | None:
        return "".join(self._refusal) or None

    def _delta(self, delta: object) -> list[Piece]:
        if not isinstance(delta, dict):
            raise _malformed("a chunk of the wrong shape")
        pieces: list[Piece] = []
        # Servers differ in the name; one that sends both sends the same text twice.
        reasoning = _text(delta, "reasoning_content") or _text(delta, "reasoning")
        if reasoning:
            pieces.append(ReasoningPiece(reasoning))
        text = _text(delta, "content")
        if text:
            pieces.append(TextPiece(text))
        refusal = _text(delta, "refusal")
        if refusal:
            self._refusal.append(refusal)
        calls = delta.get("tool_calls")
        if calls:
            if not isinstance(calls, list):
                raise _malformed("tool calls of the wrong shape")
            for call in calls:
                self._join_call(call)
        return pieces

    def _join_call(self, part: object) -> None:
        function = part.get("function") if isinstance(part, dict) else None
        if not isinstance(part, dict) or not isinstance(function, (dict, type(None))):
            raise _malformed("a tool call of the wrong shape")
        call_id = _text(part, "id")
        call = self._calls.setdefault(self._call_index(part.get("index"), call_id), _ToolCall())
        if len(self._calls) > _TOOL_CALLS_MAX:
            raise _malformed("too many tool calls")
        # The id and the name come whole, once; a server that repeats them must not double them.
        call.id = call.id or call_id
        if function:
            call.name = call.name or _text(function, "name")
            call.arguments.append(_text(function, "arguments"))

    def _call_index(self, index: object, call_id: str) -> int:
        """Some servers leave the index out: then a new id opens a new call."""
        if index is None:
            last = max(self._calls, default=-1)
            opens = last < 0 or (call_id != "" and self._calls[last].id not in {"", call_id})
            return last + 1 if opens else last
        if not isinstance(index, int) or isinstance(index, bool) or index < 0:
            raise _malformed("a tool call without a usable index")
        return index

    def _close_calls(self) -> list[Piece]:
        if self.finish_raw not in {"stop", "tool_calls"}:
            return []  # a call that the end cut short must never run
        if self.finish_raw == "tool_calls" and not self._calls:
            raise _malformed("a finish for tool calls without a tool call")
        calls: list[Piece] = []
        for index, call in sorted(self._calls.items()):
            if not call.name:
                raise _malformed("a tool call without a name")
            calls.append(ToolCallPiece(index, call.id or f"call_{index}", call.name, "".join(call.arguments)))
        self._calls_given = bool(calls)
        return calls


class ChatReading:
    """Bytes of the response body to pieces; `done` once the stream said `[DONE]`."""

    def __init__(self) -> None:
        self.decoder = ChatDecoder()
        self.done = False
        self.frames = 0
        self._sse = SseFrames()

    def feed(self, data: bytes) -> Iterator[Piece]:
        """Give the pieces that these bytes complete; those before a fault come before it is raised."""
        for frame in self._sse.feed(data):
            if self.done:
                return
            if not frame.data:
                continue  # some gateways keep a connection open this way
            self.frames += 1
            if frame.data.startswith(b"[DONE]"):
                self.done = True
                return
            yield from self.decoder.feed(_chunk(frame))


def _chunk(frame: Frame) -> dict[str, Any]:
    try:
        chunk = orjson.loads(frame.data)
    except orjson.JSONDecodeError:  # bad UTF-8 as well
        raise _malformed("a chunk that is no JSON") from None
    if not isinstance(chunk, dict):
        raise _malformed("a chunk of the wrong shape")
    if frame.event == b"error" and not chunk.get("error"):
        return {"error": chunk or True}
    return chunk


def _first_choice(choices: object) -> dict[str, Any] | None:
    """The one choice that was asked for; a chunk without choices carries usage or nothing of ours."""
    if choices is None or choices == []:
        return None
    if not isinstance(choices, list):
        raise _malformed("choices of the wrong shape")
    for choice in choices:
        if not isinstance(choice, dict):
            raise _malformed("choices of the wrong shape")
        if choice.get("index", 0) == 0:
            return choice
    return None


def _text(holder: Mapping[str, Any], name: str) -> str:
    value = holder.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _malformed(f"a chunk whose {name} is no text")
    return value


def _word(value: object) -> str | None:
    """A name that the provider gave, cut to a length that an event may carry."""
    return value[:_WORD_MAX] if isinstance(value, str) and value else None


def _usage(value: object) -> Usage | None:
    """Usage is worth having but no reason to fail an answer: what cannot be read is left out."""
    if not isinstance(value, dict):
        return None
    read, written = _count(value, "prompt_tokens"), _count(value, "completion_tokens")
    if read is None or written is None:
        return None
    cached = _count(value.get("prompt_tokens_details"), "cached_tokens")
    reasoning = _count(value.get("completion_tokens_details"), "reasoning_tokens")
    return Usage(read, written, cached or 0, reasoning or 0)


def _count(holder: object, name: str) -> int | None:
    value = holder.get(name) if isinstance(holder, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _USAGE_MAX else None
