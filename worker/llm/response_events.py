"""Events of the Responses API to pieces: pure, and with the same outcomes as a chat completion.

What differs on the wire: the end is an event of its own, with status, reason and usage in it; a tool call is an output
item with two names, of which only `call_id` may be answered to; thinking comes as a summary in parts.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from worker.llm.faults import fault_of_error_frame
from worker.llm.joining import JoinedCalls
from worker.llm.model import Piece, ReasoningPiece, TextPiece, Usage
from worker.llm.shapes import count_of, index_of, malformed, text_of, word_of

_INCOMPLETE: Final = {"max_output_tokens": "length", "content_filter": "content_filter"}
_PART_BREAK: Final = "\n\n"


class ResponsesDecoder:
    """One answer while it comes in. The terminal event carries everything: nothing is read after it."""

    def __init__(self) -> None:
        self.finish_raw: str | None = None
        self.usage: Usage | None = None
        self.model_served: str | None = None
        self.system_fingerprint: str | None = None
        self.complete = False
        self._finish: str | None = None
        self._refusal: list[str] = []
        self._calls = JoinedCalls()
        self._heard: set[tuple[object, ...]] = set()
        self._takes: Mapping[str, Callable[[Mapping[str, Any]], list[Piece]]] = {
            "response.output_text.delta": self._text,
            "response.output_text.done": self._text_done,
            "response.reasoning_summary_text.delta": self._reasoning,
            "response.reasoning_text.delta": self._reasoning,
            "response.reasoning_summary_part.added": self._reasoning_part,
            "response.refusal.delta": self._refuse,
            "response.refusal.done": self._refuse_done,
            "response.output_item.added": self._item_added,
            "response.output_item.done": self._item_done,
            "response.function_call_arguments.delta": self._arguments,
            "response.function_call_arguments.done": self._arguments_done,
            "response.created": self._begun,
            "response.completed": self._completed,
            "response.incomplete": self._incomplete,
            "response.failed": self._failed,
            "error": self._error,
        }

    @property
    def finish(self) -> str | None:
        return self._finish

    @property
    def refusal(self) -> str | None:
        return "".join(self._refusal) or None

    def feed(self, chunk: Mapping[str, Any]) -> list[Piece]:
        """Give the pieces of one event. Tool calls come whole, with the terminal event. Unknown events say nothing."""
        if chunk.get("error"):
            raise fault_of_error_frame(chunk["error"], None)
        kind = chunk.get("type")
        if not isinstance(kind, str):
            raise malformed("an event without a type")
        take = self._takes.get(kind)
        return take(chunk) if take is not None and not self.complete else []

    def close_unfinished(self) -> list[Piece]:
        if self.finish_raw is not None or not self._calls.whole():
            return []
        self.finish_raw, self._finish = "none", "tool_calls"
        return list(self._calls.given())

    def _text(self, event: Mapping[str, Any]) -> list[Piece]:
        self._heard.add(_place("text", event))
        text = text_of(event, "delta")
        return [TextPiece(text)] if text else []

    def _text_done(self, event: Mapping[str, Any]) -> list[Piece]:
        """The text once more; some servers say it only here."""
        text = text_of(event, "text")
        return [TextPiece(text)] if text and _place("text", event) not in self._heard else []

    def _reasoning(self, event: Mapping[str, Any]) -> list[Piece]:
        text = text_of(event, "delta")
        return [ReasoningPiece(text)] if text else []

    def _reasoning_part(self, event: Mapping[str, Any]) -> list[Piece]:
        return [ReasoningPiece(_PART_BREAK)] if event.get("summary_index") not in {0, None} else []

    def _refuse(self, event: Mapping[str, Any]) -> list[Piece]:
        self._heard.add(_place("refusal", event))
        self._refusal.append(text_of(event, "delta"))
        return []

    def _refuse_done(self, event: Mapping[str, Any]) -> list[Piece]:
        if _place("refusal", event) not in self._heard:
            self._refusal.append(text_of(event, "refusal"))
        return []

    def _item_added(self, event: Mapping[str, Any]) -> list[Piece]:
        item = _part(event, "item")
        if item.get("type") == "function_call":
            index = index_of(event, "output_index", "a tool call")
            # The arguments are empty here, or those that the end will say once more.
            self._calls.join(index, text_of(item, "call_id"), text_of(item, "name"), "")
        return []

    def _item_done(self, event: Mapping[str, Any]) -> list[Piece]:
        item = _part(event, "item")
        if item.get("type") == "function_call":
            index = index_of(event, "output_index", "a tool call")
            self._calls.join(index, text_of(item, "call_id"), text_of(item, "name"), "")
            self._calls.settle(index, text_of(item, "arguments"))
        return []

    def _arguments(self, event: Mapping[str, Any]) -> list[Piece]:
        self._calls.join(index_of(event, "output_index", "a tool call"), "", "", text_of(event, "delta"))
        return []

    def _arguments_done(self, event: Mapping[str, Any]) -> list[Piece]:
        self._calls.settle(index_of(event, "output_index", "a tool call"), text_of(event, "arguments"))
        return []

    def _begun(self, event: Mapping[str, Any]) -> list[Piece]:
        self.model_served = word_of(_part(event, "response").get("model")) or self.model_served
        return []

    def _completed(self, event: Mapping[str, Any]) -> list[Piece]:
        calls = self._calls.given()  # first: an answer whose calls cannot be used has no finish, and fails
        self._end(event, "completed")
        self._finish = "tool_calls" if calls else "refused" if self._refusal else "stop"
        return list(calls)

    def _incomplete(self, event: Mapping[str, Any]) -> list[Piece]:
        """Calls are dropped: one that the end cut short must never run."""
        response = self._end(event, "incomplete")
        details = response.get("incomplete_details")
        reason = word_of(details.get("reason")) if isinstance(details, dict) else None
        self.finish_raw = reason or "incomplete"
        self._finish = _INCOMPLETE.get(self.finish_raw, "incomplete")
        return []

    def _failed(self, event: Mapping[str, Any]) -> list[Piece]:
        response = _part(event, "response")
        self.usage = _usage(response.get("usage")) or self.usage
        raise fault_of_error_frame(response.get("error"), None)

    def _error(self, event: Mapping[str, Any]) -> list[Piece]:
        raise fault_of_error_frame(event, None)

    def _end(self, event: Mapping[str, Any], word: str) -> Mapping[str, Any]:
        response = _part(event, "response")
        self.model_served = word_of(response.get("model")) or self.model_served
        self.usage = _usage(response.get("usage")) or self.usage
        self.finish_raw = word
        self.complete = True
        return response


def _part(event: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = event.get(name)
    if not isinstance(part, dict):
        raise malformed(f"an event without its {name}")
    return part


def _place(what: str, event: Mapping[str, Any]) -> tuple[object, ...]:
    """Where in the output a text stands; a server that does not say has only one."""
    return what, str(event.get("output_index")), str(event.get("content_index"))


def _usage(value: object) -> Usage | None:
    read, written = count_of(value, "input_tokens"), count_of(value, "output_tokens")
    if not isinstance(value, dict) or read is None or written is None:
        return None
    cached = count_of(value.get("input_tokens_details"), "cached_tokens")
    reasoning = count_of(value.get("output_tokens_details"), "reasoning_tokens")
    return Usage(read, written, cached or 0, reasoning or 0)
