"""What a model asks its tools: as the log keeps it, and as a tool takes it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from eventstore.domain import events, intake
from eventstore.domain.errors import NotStorable
from eventstore.domain.intake import clean_text
from worker.declare import Tool
from worker.holding import Guard, Redaction
from worker.llm.model import ToolCallPiece
from worker.toolbox import Unfit, fitting, named

ARGUMENTS_BYTES_MAX: Final = 262_144
WRITTEN_CHARS_MAX: Final = 2_000  # of arguments that cannot be used; the model is shown what it wrote
NAME_CHARS_MAX: Final = 64
PROVIDER_ID_CHARS_MAX: Final = 128


@dataclass(frozen=True, slots=True)
class Order:
    """One call of a tool. Without a tool it cannot be made, and `fault` says why to whoever asked."""

    name: str
    call_id: str
    arguments: Mapping[str, Any]  # as the log has them
    taken: Mapping[str, Any] = field(default_factory=dict)  # as the function takes them
    tool: Tool | None = None
    fault: str | None = None
    by_model: bool = True

    @property
    def key(self) -> str:
        """The call's name in the log."""
        return self.call_id.rpartition("/")[0]


def tool_call(
    tools: Sequence[Tool], guard: Guard | None, turn: str, attempt: int, number: int, piece: ToolCallPiece
) -> events.ToolCall:
    """A call that a turn asked for. Its key is the turn's with its number; it is redacted as the text is."""
    name = clean_text(piece.name)[:NAME_CHARS_MAX]
    tool = next((tool for tool in tools if tool.name == name), None)
    arguments, written = _arguments(clean_text(piece.arguments))
    arguments = {each: _redacted(guard, value) for each, value in arguments.items()}
    key = f"{turn}:{number}"
    return events.ToolCall(
        tool=name,
        call_id=f"{key}/{attempt}",
        arguments=arguments,
        shown=shown(tool, arguments),
        key=key,
        attempt=attempt,
        turn=turn,
        provider_id=clean_text(piece.id)[:PROVIDER_ID_CHARS_MAX],
        written=None if written is None else _redacted(guard, written[:WRITTEN_CHARS_MAX]),
    )


def order_of(told: Mapping[str, Any], tools: Sequence[Tool]) -> Order:
    """The call that an event tells of, for these tools."""
    name, call_id, arguments = told["tool"], told["call_id"], told["arguments"]
    try:
        tool = named(tools, name)
        if told.get("written") is not None:
            raise Unfit("the arguments are no JSON object")
        return Order(name, call_id, arguments, fitting(tool, arguments), tool)
    except Unfit as fault:
        return Order(name, call_id, arguments, fault=f"The call was not made: {fault}")


def shown(tool: Tool | None, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that a reader may be shown."""
    return {name: arguments[name] for name in tool.shown if name in arguments} if tool is not None else {}


def _arguments(text: str) -> tuple[dict[str, Any], str | None]:
    """The arguments, and what was written instead where that is no JSON object that can be kept."""
    try:
        value = intake.parse(text.strip().encode() or b"{}", ARGUMENTS_BYTES_MAX)
    except NotStorable:
        return {}, text
    return (value, None) if isinstance(value, dict) else ({}, text)


def _between(redaction: Redaction, text: str) -> list[str]:
    """What stands between the matches."""
    spans = [match.span() for match in redaction.compiled.finditer(text)]
    ends = [0, *(end for _, end in spans)]
    starts = [*(start for start, _ in spans), len(text)]
    return [text[end:start] for end, start in zip(ends, starts, strict=True)]


def _redacted(guard: Guard | None, value: Any) -> Any:
    if guard is None or not guard.redact:
        return value
    if isinstance(value, str):
        for redaction in guard.redact:
            value = redaction.replacement.join(_between(redaction, value))
        return value
    if isinstance(value, dict):
        return {name: _redacted(guard, item) for name, item in value.items()}
    return [_redacted(guard, item) for item in value] if isinstance(value, list) else value
