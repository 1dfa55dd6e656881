"""A request in the words of chat completions to one for the Responses API: pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

_RENAMED: Final = {"max_completion_tokens": "max_output_tokens", "max_tokens": "max_output_tokens"}
_PARTS: Final = {"text": "input_text", "image_url": "input_image", "file": "input_file"}


def input_items(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The conversation, message by message; calls and their results become items of their own."""
    return [item for message in messages for item in _items(message)]


def flat_tools(tools: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Function tools carry their name beside their type here, not inside."""
    return [_flat(tool) for tool in tools]


def body_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters under this API's names. What has no other name here is sent as it is."""
    body: dict[str, Any] = {}
    text: dict[str, Any] = {}
    for name, value in parameters.items():
        if name == "response_format":
            text["format"] = _flat(value, inside="json_schema") if isinstance(value, Mapping) else value
        elif name == "verbosity":
            text["verbosity"] = value
        elif name == "reasoning_effort":
            body["reasoning"] = {"effort": value, **body.get("reasoning", {})}
        elif name == "reasoning" and isinstance(value, Mapping):
            body["reasoning"] = {**body.get("reasoning", {}), **value}
        elif name == "text" and isinstance(value, Mapping):
            text.update(value)
        elif name == "tool_choice" and isinstance(value, Mapping):
            body["tool_choice"] = _flat(value)
        else:
            body[_RENAMED.get(name, name)] = value
    return {**body, "text": text} if text else body


def _flat(value: Mapping[str, Any], inside: str = "function") -> dict[str, Any]:
    inner = value.get(inside)
    if not isinstance(inner, Mapping):
        return dict(value)
    return {**{name: item for name, item in value.items() if name != inside}, **inner}


def _items(message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    role, content = message.get("role"), message.get("content")
    if role == "tool":
        yield {"type": "function_call_output", "call_id": message.get("tool_call_id"), "output": _joined(content)}
        return
    if content:
        parts = content if isinstance(content, str) else [_part(role, part) for part in content]
        yield {"role": role, "content": parts}
    for call in message.get("tool_calls") or ():
        function = call.get("function") or {}
        yield {
            "type": "function_call",
            "call_id": call.get("id"),
            "name": function.get("name"),
            "arguments": function.get("arguments") or "{}",
        }


def _part(role: object, part: Mapping[str, Any]) -> dict[str, Any]:
    kind = str(part.get("type"))
    if kind == "text" and role == "assistant":
        return {**part, "type": "output_text"}
    image = part.get("image_url")
    if kind == "image_url" and isinstance(image, Mapping):
        return {"type": "input_image", "image_url": image.get("url"), "detail": image.get("detail", "auto")}
    return {**part, "type": _PARTS.get(kind, kind)}


def _joined(content: object) -> str:
    """A tool's result as text; its parts, if it has any, one after the other."""
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))
    return content if isinstance(content, str) else ""
