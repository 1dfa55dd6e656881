"""What the scripted model says: rules from files, matched against the prompt. The same prompt gives the same answer."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from worker.llm.continuing import GO_ON

SCRIPT_PATTERN = "*.script.json"
NO_RULE = "no script matched"
NO_RULE_SAYS = "No script matched this request, so the scripted model has nothing to say about it."

# A word with the space before it, cut when very long; spaces at the end are a piece of their own.
_WORD = re.compile(r"\s*\S{1,24}|\s+")
_NAME = re.compile(r"\{([A-Za-z_]\w*)\}")


def _usable(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None
    return pattern


_Pattern = Annotated[str, AfterValidator(_usable)]


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ScriptedCall(_Closed):
    """A tool call; names in the strings of its arguments are filled in."""

    name: str = Field(min_length=1)
    arguments: dict[str, Any] = Field(default_factory=dict)


class Rule(_Closed):
    """One answer. The first rule whose every `when` is found in the prompt speaks.

    Named groups of `when` and `for_each` fill `{names}` in the texts; `{n}` counts the parts, `{each}` in `say` is
    their place (the end of `say` when it has none). A `{word}` that names no group stays as it is.
    """

    name: str = Field(min_length=1)
    when: tuple[_Pattern, ...] = ()
    last_role: Literal["system", "developer", "user", "assistant", "tool"] | None = None
    reasoning: str = ""
    refusal: str = ""
    say: str = ""
    for_each: _Pattern | None = None
    say_each: str = ""
    between: str = ""
    say_if_none: str = ""
    tool_calls: tuple[ScriptedCall, ...] = ()
    finish: str | None = None
    pieces_per_s: float | None = Field(default=None, ge=0)


_RULES = TypeAdapter(tuple[Rule, ...])


@dataclass(frozen=True, slots=True)
class Answer:
    """All that one request will be told, before it is cut into pieces."""

    rule: str
    reasoning: str
    text: str
    tool_calls: tuple[tuple[str, Mapping[str, Any]], ...]
    finish: str
    pieces_per_s: float | None
    refusal: str = ""


class ScriptError(ValueError):
    """A script file that cannot be used, in one line."""


def load_rules(folders: Iterable[Path]) -> tuple[Rule, ...]:
    """Read every script under these folders, in the order of their paths."""
    rules: list[Rule] = []
    seen: set[Path] = set()
    for folder in folders:
        if not folder.is_dir():
            raise ScriptError(f"{folder} is no folder")
        for path in sorted(folder.rglob(SCRIPT_PATTERN)):
            if path.resolve() not in seen:
                seen.add(path.resolve())
                rules.extend(parse_rules(path.read_bytes(), source=str(path)))
    return tuple(rules)


def parse_rules(text: bytes, *, source: str) -> tuple[Rule, ...]:
    """Read one script."""
    try:
        return _RULES.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ScriptError(f"{source}: {place}: {first['msg']}") from None


def prompt_text(messages: Sequence[Mapping[str, Any]]) -> str:
    """The text of all messages, one after the other with a blank line between."""
    return "\n\n".join(text for message in messages if (text := "".join(_texts(message.get("content")))))


def _texts(content: object) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for part in content:
            if isinstance(part, dict) and isinstance(part.get("text"), str):
                yield part["text"]


def answer(rules: Iterable[Rule], prompt: str, last_role: str) -> Answer:
    """The answer of the first rule that matches."""
    for rule in rules:
        if rule.last_role is not None and rule.last_role != last_role:
            continue
        names = _names(rule.when, prompt)
        if names is not None:
            return _speak(rule, prompt, names)
    return Answer(NO_RULE, "", NO_RULE_SAYS, (), "stop", None)


def answered(rules: Iterable[Rule], messages: Sequence[Mapping[str, Any]]) -> Answer:
    """The answer to a conversation. Whoever asks for the rest of an answer is told that, if it begins with the text so
    far."""
    first, said = _so_far(messages)
    told = answer(rules, prompt_text(first), str(first[-1].get("role")) if first else "")
    if said and told.text.startswith(said):
        return replace(told, text=told.text[len(said) :], reasoning="")
    return told


def _so_far(messages: Sequence[Mapping[str, Any]]) -> tuple[Sequence[Mapping[str, Any]], str]:
    """The conversation without the half of an answer that it ends with, and that half."""
    asked = len(messages) > 1 and "".join(_texts(messages[-1].get("content"))) == GO_ON
    rest = messages[:-1] if asked else messages
    if len(rest) < 2 or rest[-1].get("role") != "assistant" or rest[-1].get("tool_calls"):
        return messages, ""
    return rest[:-1], "".join(_texts(rest[-1].get("content")))


def _names(patterns: Iterable[str], prompt: str) -> dict[str, str] | None:
    """The named groups of all patterns; None if one is not found."""
    names: dict[str, str] = {}
    for pattern in patterns:
        match = re.search(pattern, prompt, re.MULTILINE)
        if match is None:
            return None
        names.update(match.groupdict(""))
    return names


def _speak(rule: Rule, prompt: str, names: Mapping[str, str]) -> Answer:
    text = rule.say
    if rule.for_each is not None:
        matches = list(re.finditer(rule.for_each, prompt, re.MULTILINE))
        names = {**names, "count": str(len(matches))}
        parts = [
            _fill(rule.say_each, {**names, **match.groupdict(""), "n": str(number)})
            for number, match in enumerate(matches, start=1)
        ]
        each = rule.between.join(parts) if parts else _fill(rule.say_if_none, names)
        # The parts are put in last: a brace in the prompt's own text is no name of ours.
        before, has_place, after = text.partition("{each}")
        text = _fill(before, names) + each + (_fill(after, names) if has_place else "")
    else:
        text = _fill(text, names)
    calls = tuple((call.name, _fill_all(call.arguments, names)) for call in rule.tool_calls)
    finish = rule.finish or ("tool_calls" if calls else "stop")
    refusal = _fill(rule.refusal, names)
    return Answer(rule.name, _fill(rule.reasoning, names), text, calls, finish, rule.pieces_per_s, refusal)


def _fill(template: str, names: Mapping[str, str]) -> str:
    return _NAME.sub(lambda match: names.get(match.group(1), match.group(0)), template)


def _fill_all(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return _fill(value, names)
    if isinstance(value, dict):
        return {key: _fill_all(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [_fill_all(item, names) for item in value]
    return value


def words(text: str) -> list[str]:
    """Cut a text into pieces such as a model sends; joined they are the text."""
    return _WORD.findall(text)
