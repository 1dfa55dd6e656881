"""Text from models, documents and servers as a terminal may safely show it: no control character but the newline."""

import json
import re
import unicodedata
from typing import Any, Final

TAB_COLUMNS: Final = 4
# Controls, lone surrogates, and format characters that turn the direction of what follows or hide text.
_UNSAFE: Final = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def printable(text: str) -> str:
    """The same text with every unsafe character written out: an escape becomes the four characters \\x1b."""
    return _UNSAFE.sub(_written_out, text.replace("\r\n", "\n").replace("\t", " " * TAB_COLUMNS))


def one_line(text: str, longest: int | None = None) -> str:
    """The text on one line; cut, and marked as cut, when it is longer than `longest` characters."""
    line = " ".join(printable(text).split())
    return line if longest is None or len(line) <= longest else line[: longest - 1].rstrip() + "…"


def as_json(value: Any) -> str:
    """One line of JSON in plain ASCII, for programs and pipes of any encoding."""
    return json.dumps(value, separators=(",", ":")).replace("\x7f", "\\u007f")


def outline(value: Any, indent: str = "") -> list[str]:
    """Any JSON value as lines for people: a mapping as `name: value`, a list with a dash for each member."""
    if isinstance(value, dict):
        lines = []
        for name, inner in value.items():
            lines += _labelled(f"{indent}{words(str(name))}:", inner, indent + "  ")
        return lines
    if isinstance(value, list):
        lines = []
        for inner in value:
            first, *more = outline(inner, "") or ["–"]
            lines += [f"{indent}- {first}", *(f"{indent}  {line}" for line in more)]
        return lines
    return [indent + line for line in scalar(value).split("\n")]


def _labelled(label: str, value: Any, deeper: str) -> list[str]:
    if isinstance(value, dict | list) and value:
        if isinstance(value, list) and not any(isinstance(inner, dict | list) for inner in value):
            return [f"{label} {', '.join(one_line(scalar(inner)) for inner in value)}"]
        return [label, *outline(value, deeper)]
    text = "–" if value in ({}, []) else scalar(value)
    if "\n" in text:
        return [label, *(deeper + line for line in text.split("\n"))]
    return [f"{label} {text}"]


def scalar(value: Any) -> str:
    """A single value as text."""
    if isinstance(value, str):
        return printable(value)
    return "–" if value is None else json.dumps(value)


def words(name: str) -> str:
    """`risk_level` is for programs; people read `risk level`."""
    return one_line(name.replace("_", " "))


def _written_out(found: re.Match[str]) -> str:
    code = ord(found[0])
    if unicodedata.category(found[0]) == "Cc":
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
