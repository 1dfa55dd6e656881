"""A scripted answer in the format of the Responses API."""

from collections.abc import Mapping
from typing import Any, Final

from worker.llm.scripted_faults import Fault
from worker.llm.scripted_wire import DONE, LATE, PROVIDER_TEXT, Asked, BadRequestError, Delta, Exchange, frame

# As strict as the real one, which refuses what belongs to the other API.
_KNOWN: Final = frozenset(
    {"model", "input", "instructions", "stream", "store", "tools", "tool_choice", "parallel_tool_calls", "text"}
    | {"max_output_tokens", "temperature", "top_p", "reasoning", "include", "metadata", "truncation", "user"}
    | {"prompt_cache_key", "safety_identifier", "service_tier", "seed"}
)
_REASONS: Final = {"length": "max_output_tokens"}


def asked_responses(body: Mapping[str, Any]) -> Asked:
    """A request for a response."""
    if unknown := set(body) - _KNOWN:
        raise BadRequestError(f"Unknown parameter: {sorted(unknown)[0]}")
    for tool in body.get("tools") or ():
        if not isinstance(tool, dict) or (tool.get("type") == "function" and not isinstance(tool.get("name"), str)):
            raise BadRequestError("tools: a function needs its name beside its type")
    given = body.get("input")
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    if not isinstance(items, list) or not items or not all(isinstance(item, dict) for item in items):
        raise BadRequestError("input is missing")
    messages = [_message(item) for item in items]
    if isinstance(body.get("instructions"), str):
        messages.insert(0, {"role": "system", "content": body["instructions"]})
    room = body.get("max_output_tokens")
    return Asked(
        model=body["model"],
        messages=messages,
        room=room if isinstance(room, int) else None,
        streamed=body.get("stream") is True,
    )


def _message(item: dict[str, Any]) -> dict[str, Any]:
    if item.get("type") == "function_call_output":
        return {"role": "tool", "content": item.get("output")}
    if item.get("type") == "function_call":
        return {"role": "assistant", "content": ""}
    return item


class ResponsesWire:
    """Events: output items that open, grow and close, then one event that ends the response and carries its usage."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._sequence = 0
        self._output: list[dict[str, Any]] = []
        self._open: dict[str, Any] | None = None
        self._said = ""

    def opening(self) -> list[bytes]:
        response = self._response("in_progress")
        return [
            self._event("response.created", response=response),
            self._event("response.in_progress", response=response),
        ]

    def piece(self, delta: Delta) -> list[bytes]:
        if "reasoning_content" in delta:
            frames = self._item("reasoning", {"summary": []})
            return [*frames, self._grow("response.reasoning_summary_text.delta", delta["reasoning_content"])]
        if "refusal" in delta:
            frames = self._item("message", {"role": "assistant", "content": []}, "refusal")
            return [*frames, self._grow("response.refusal.delta", delta["refusal"])]
        if "content" in delta:
            frames = self._item("message", {"role": "assistant", "content": []}, "output_text")
            return [*frames, self._grow("response.output_text.delta", delta["content"])]
        [call] = delta["tool_calls"]
        if "id" in call:
            made = {"call_id": call["id"], "name": call["function"]["name"], "arguments": ""}
            return [*self._close(), *self._item("function_call", made)]
        return [self._grow("response.function_call_arguments.delta", call["function"]["arguments"])]

    def ending(self, *, late: bool) -> list[bytes]:
        finish = self._exchange.answer.finish
        frames = self._close()
        if finish in {"stop", "tool_calls"}:
            frames.append(self._event("response.completed", response=self._response("completed")))
        else:
            reason = {"reason": _REASONS.get(finish, finish)}
            response = {**self._response("incomplete"), "incomplete_details": reason}
            frames.append(self._event("response.incomplete", response=response))
        if late:
            frames += self.piece({"content": LATE})
        return frames

    def broken(self, fault: Fault) -> list[bytes]:
        code = fault.error_code or "server_error"
        if fault.kind == "malformed":
            return [b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","del\n\n']
        if fault.kind == "bad_utf8":
            return [b'data: {"type":"response.output_text.delta","delta":"\xff\xfe"}\n\n']
        if fault.kind == "error_frame":
            return [self._event("error", code=code, message=PROVIDER_TEXT, param=None)]
        if fault.kind == "failed":
            error = {"code": code, "message": PROVIDER_TEXT}
            return [self._event("response.failed", response={**self._response("failed"), "error": error})]
        return [DONE] if fault.kind == "no_finish" else []

    def whole(self) -> dict[str, Any]:
        for delta in self._exchange.deltas:
            self.piece(delta)
        self._close()
        return self._response("completed" if self._exchange.answer.finish in {"stop", "tool_calls"} else "incomplete")

    def _event(self, kind: str, **fields: Any) -> bytes:
        self._sequence += 1
        return frame({"type": kind, "sequence_number": self._sequence - 1, **fields}, kind)

    def _item(self, kind: str, made: dict[str, Any], part: str | None = None) -> list[bytes]:
        """Open an item of this kind, if the open one is another."""
        if self._open is not None and self._open["type"] == kind:
            return []
        frames = self._close()
        number = len(self._output)
        item = {"id": f"{kind}_{self._exchange.entry.id}_{number}", "type": kind, "status": "in_progress", **made}
        self._open, self._said = item, ""
        frames.append(self._event("response.output_item.added", output_index=number, item=dict(item)))
        if kind == "reasoning":
            place = {"item_id": item["id"], "output_index": number, "summary_index": 0}
            empty = {"type": "summary_text", "text": ""}
            frames.append(self._event("response.reasoning_summary_part.added", **place, part=empty))
        elif part is not None:
            item["content"] = [{"type": part}]
            place = {"item_id": item["id"], "output_index": number, "content_index": 0}
            frames.append(self._event("response.content_part.added", **place, part={"type": part}))
        return frames

    def _grow(self, kind: str, text: str) -> bytes:
        assert self._open is not None
        self._said += text
        part = "summary_index" if self._open["type"] == "reasoning" else "content_index"
        place = {} if self._open["type"] == "function_call" else {part: 0}
        return self._event(kind, item_id=self._open["id"], output_index=len(self._output), **place, delta=text)

    def _close(self) -> list[bytes]:
        """End the open item: everything is said once more, whole."""
        item, said, number = self._open, self._said, len(self._output)
        if item is None:
            return []
        place = {"item_id": item["id"], "output_index": number}
        frames: list[bytes] = []
        if item["type"] == "function_call":
            item["arguments"] = said
            frames.append(self._event("response.function_call_arguments.done", **place, arguments=said))
        elif item["type"] == "reasoning":
            item["summary"] = [{"type": "summary_text", "text": said}]
            frames.append(self._event("response.reasoning_summary_text.done", **place, summary_index=0, text=said))
        elif item["content"][0]["type"] == "refusal":
            item["content"] = [{"type": "refusal", "refusal": said}]
            frames.append(self._event("response.refusal.done", **place, content_index=0, refusal=said))
        else:
            item["content"] = [{"type": "output_text", "text": said, "annotations": []}]
            frames.append(self._event("response.output_text.done", **place, content_index=0, text=said))
        item["status"] = "completed"
        frames.append(self._event("response.output_item.done", output_index=number, item=item))
        self._output.append(item)
        self._open = None
        return frames

    def _response(self, status: str) -> dict[str, Any]:
        usage = self._exchange.usage
        counted = {
            "input_tokens": usage["prompt_tokens"],
            "output_tokens": usage["completion_tokens"],
            "total_tokens": usage["total_tokens"],
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens_details": usage["completion_tokens_details"],
        }
        return {
            "id": f"resp_{self._exchange.entry.id}",
            "object": "response",
            "created_at": self._exchange.created,
            "status": status,
            "model": self._exchange.asked.model,
            "output": list(self._output),
            "error": None,
            "incomplete_details": None,
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "usage": None if status == "in_progress" else counted,
        }
