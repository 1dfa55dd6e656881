"""Chunks of a chat completion to pieces: pure, so that it is tested on recorded streams without a network."""

from collections.abc import Mapping
from typing import Any

from worker.llm.faults import fault_of_error_frame
from worker.llm.joining import JoinedCalls
from worker.llm.model import Piece, ReasoningPiece, TextPiece, Usage
from worker.llm.shapes import WORD_MAX, count_of, index_of, malformed, text_of, word_of

UNFINISHED = "none"


class ChatDecoder:
    """One answer while it comes in. After the finish reason nothing is said any more; only usage is still read."""

    complete = False  # usage comes after the finish, so only `[DONE]` says that nothing follows

    def __init__(self) -> None:
        self.finish_raw: str | None = None
        self.usage: Usage | None = None
        self.model_served: str | None = None
        self.system_fingerprint: str | None = None
        self._refusal: list[str] = []
        self._calls = JoinedCalls()
        self._calls_given = False

    def feed(self, chunk: Mapping[str, Any]) -> list[Piece]:
        """Give the pieces of one chunk. Tool calls come whole, with the chunk that carries the finish reason."""
        if chunk.get("error"):
            raise fault_of_error_frame(chunk["error"], None)
        self.model_served = word_of(chunk.get("model")) or self.model_served
        self.system_fingerprint = word_of(chunk.get("system_fingerprint")) or self.system_fingerprint
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
                raise malformed("a finish reason that is no text")
            # First the calls: an answer whose calls cannot be used has no finish, and fails.
            pieces.extend(self._close_calls(finish))
            self.finish_raw = finish[:WORD_MAX]
        return pieces

    @property
    def finish(self) -> str | None:
        if self._calls_given:
            return "tool_calls"
        if self._refusal and self.finish_raw == "stop":
            return "refused"
        return self.finish_raw

    @property
    def refusal(self) -> str | None:
        return "".join(self._refusal) or None

    def close_unfinished(self) -> list[Piece]:
        if self.finish_raw is not None or not self._calls.whole():
            return []
        self.finish_raw = UNFINISHED
        self._calls_given = True
        return list(self._calls.given())

    def _delta(self, delta: object) -> list[Piece]:
        if not isinstance(delta, dict):
            raise malformed("a chunk of the wrong shape")
        pieces: list[Piece] = []
        # Servers differ in the name; one that sends both sends the same text twice.
        reasoning = text_of(delta, "reasoning_content") or text_of(delta, "reasoning")
        if reasoning:
            pieces.append(ReasoningPiece(reasoning))
        text = text_of(delta, "content")
        if text:
            pieces.append(TextPiece(text))
        refusal = text_of(delta, "refusal")
        if refusal:
            self._refusal.append(refusal)
        calls = delta.get("tool_calls")
        if calls:
            if not isinstance(calls, list):
                raise malformed("tool calls of the wrong shape")
            for call in calls:
                self._join_call(call)
        return pieces

    def _join_call(self, part: object) -> None:
        function = part.get("function") if isinstance(part, dict) else None
        if not isinstance(part, dict) or not isinstance(function, (dict, type(None))):
            raise malformed("a tool call of the wrong shape")
        call_id = text_of(part, "id")
        # Some servers leave the index out.
        absent = part.get("index") is None
        index = self._calls.place_of(call_id) if absent else index_of(part, "index", "a tool call")
        said = function or {}
        self._calls.join(index, call_id, text_of(said, "name"), text_of(said, "arguments"))

    def _close_calls(self, finish: str) -> list[Piece]:
        if finish not in {"stop", "tool_calls"}:
            return []  # a call that the end cut short must never run
        if finish == "tool_calls" and not self._calls:
            raise malformed("a finish for tool calls without a tool call")
        calls = self._calls.given()
        self._calls_given = bool(calls)
        return list(calls)


def _first_choice(choices: object) -> dict[str, Any] | None:
    """The one choice that was asked for; a chunk without choices carries usage or nothing of ours."""
    if choices is None or choices == []:
        return None
    if not isinstance(choices, list):
        raise malformed("choices of the wrong shape")
    for choice in choices:
        if not isinstance(choice, dict):
            raise malformed("choices of the wrong shape")
        if choice.get("index", 0) == 0:
            return choice
    return None


def _usage(value: object) -> Usage | None:
    read, written = count_of(value, "prompt_tokens"), count_of(value, "completion_tokens")
    if not isinstance(value, dict) or read is None or written is None:
        return None
    cached = count_of(value.get("prompt_tokens_details"), "cached_tokens")
    reasoning = count_of(value.get("completion_tokens_details"), "reasoning_tokens")
    return Usage(read, written, cached or 0, reasoning or 0)
