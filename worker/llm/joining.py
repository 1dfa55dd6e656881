"""Tool calls while their parts come in: joined by place, given whole or not at all."""

from dataclasses import dataclass, field

import orjson

from worker.llm.model import ToolCallPiece
from worker.llm.shapes import malformed

CALLS_MAX = 256


@dataclass(slots=True)
class _Call:
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)


class JoinedCalls:
    """The calls of one answer. A server says id and name once, with the first part, or again with every part."""

    def __init__(self) -> None:
        self._calls: dict[int, _Call] = {}

    def __bool__(self) -> bool:
        return bool(self._calls)

    def join(self, index: int, call_id: str, name: str, arguments: str) -> None:
        """One part of the call at this place."""
        call = self._calls.setdefault(index, _Call())
        if len(self._calls) > CALLS_MAX:
            raise malformed("too many tool calls")
        call.id = call.id or call_id
        call.name = call.name or name
        call.arguments.append(arguments)

    def settle(self, index: int, arguments: str) -> None:
        """The arguments of the call at this place once more, in one piece."""
        if index not in self._calls:
            raise malformed("the end of a tool call that never began")
        self._calls[index].arguments = [arguments]

    def place_of(self, call_id: str) -> int:
        """The place of a part that came without one: a new id opens a new call."""
        last = max(self._calls, default=-1)
        opens = last < 0 or (call_id != "" and self._calls[last].id not in {"", call_id})
        return last + 1 if opens else last

    def given(self) -> list[ToolCallPiece]:
        """All calls, in order; to be asked for only when the provider said that they are whole."""
        calls = []
        for number, (_, call) in enumerate(sorted(self._calls.items())):
            if not call.name:
                raise malformed("a tool call without a name")
            calls.append(ToolCallPiece(number, call.id or f"call_{number}", call.name, "".join(call.arguments)))
        return calls

    def whole(self) -> bool:
        """Whether every call has a name and arguments that are a JSON object, whatever the provider said of them."""
        return bool(self._calls) and all(
            call.name and _is_object("".join(call.arguments)) for call in self._calls.values()
        )


def _is_object(arguments: str) -> bool:
    try:
        return isinstance(orjson.loads(arguments), dict)
    except orjson.JSONDecodeError:
        return False
