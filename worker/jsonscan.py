"""A JSON document while it is still being said: which values in it are closed and can change no more.

A value is closed when the text after it says so: a string by its quote, a container by its bracket, but a number or a
word only by what follows it, since `12` may go on to be `120`. What is accepted is what `intake.parse` accepts, so the
value of a whole document need not be parsed a second time.
"""

import math
import re
from dataclasses import dataclass
from typing import Any, Final

import orjson

from eventstore.domain.intake import DEPTH_MAX, INTEGER_MAX, ITEMS_MAX

CHARS_MAX: Final = 1 << 20
_SPACE: Final = re.compile(r"[ \t\n\r]*")
_PLAIN: Final = re.compile(r'[^"\\\x00-\x1f]*')
_BARE: Final = re.compile(r"[-+.0-9A-Za-z]*")
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_WORDS: Final[dict[str, Any]] = {"true": True, "false": False, "null": None}
_DIGITS_MAX: Final = len(str(INTEGER_MAX)) + 1

Path = tuple[str | int, ...]


class NotJson(ValueError):
    """The text is no JSON document that may be stored; it cannot become one by going on."""


@dataclass(frozen=True, slots=True)
class Closed:
    """A value that is closed, and where in the document it stands."""

    path: Path
    value: Any


class _Open:
    """A container that is still being said."""

    __slots__ = ("holds", "key")

    def __init__(self, holds: dict[str, Any] | list[Any]) -> None:
        self.holds = holds
        self.key = ""

    @property
    def place(self) -> str | int:
        """Where its next member belongs."""
        return self.key if isinstance(self.holds, dict) else len(self.holds)


class Scanner:
    """Reads one document in whatever pieces it comes; gives the closed values of the outer `levels`.

    Members come before the container that they are in. The work for a piece does not grow with what came before it.
    """

    def __init__(self, levels: int = 2) -> None:
        self.done = False
        self.value: Any = None
        self._levels = levels
        self._stack: list[_Open] = []
        self._expects = "value"
        self._token: list[str] = []
        self._within = ""  # "string", "bare", or nothing while between tokens
        self._escaped = False
        self._chars = 0
        self._items = 0
        self._given: list[Closed] = []

    def feed(self, text: str) -> list[Closed]:
        """Give the values that this piece closes. Raises NotJson."""
        self._chars += len(text)
        if self._chars > CHARS_MAX:
            raise NotJson(f"longer than {CHARS_MAX} characters")
        at, end = 0, len(text)
        while at < end:
            if self._within == "string":
                at = self._go_on_with_string(text, at)
            elif self._within == "bare":
                at = self._go_on_with_bare(text, at)
            else:
                at = _ends(_SPACE, text, at)
                if at < end:
                    at = self._begin(text[at], at)
        given, self._given = self._given, []
        return given

    def close(self) -> list[Closed]:
        """The text is over: give what only its end closes. Raises NotJson if the document is not whole."""
        if self._within == "bare":
            self._bare()
        if not self.done:
            raise NotJson("it ends before it is whole")
        given, self._given = self._given, []
        return given

    def _begin(self, char: str, at: int) -> int:
        """Take one character between tokens, or find the first one of a token; where to go on."""
        expects = self._expects
        wants_value = expects in {"value", "value or end"}
        if char == '"' and (wants_value or expects in {"key", "key or end"}):
            self._within = "string"
        elif char in "[{" and wants_value:
            self._count()
            self._stack.append(_Open([] if char == "[" else {}))
            self._expects = "value or end" if char == "[" else "key or end"
        elif char in "]}" and expects in {"comma or end", "value or end", "key or end"}:
            self._shut(char)
        elif char == ":" and expects == "colon":
            self._expects = "value"
        elif char == "," and expects == "comma or end":
            self._expects = "value" if isinstance(self._stack[-1].holds, list) else "key"
        elif wants_value and _BARE.fullmatch(char):
            self._within = "bare"
            return at
        else:
            raise NotJson(f"{char!r} where it cannot stand")
        return at + 1

    def _shut(self, bracket: str) -> None:
        holds = self._stack.pop().holds
        if isinstance(holds, list) != (bracket == "]"):
            raise NotJson(f"{bracket!r} where it cannot stand")
        self._closed(holds)

    def _go_on_with_string(self, text: str, at: int) -> int:
        """Read on in a string, to its end or the end of the piece."""
        end = len(text)
        while at < end:
            if self._escaped:
                self._token.append(text[at])
                self._escaped = False
                at += 1
                continue
            ends = _ends(_PLAIN, text, at)
            self._token.append(text[at:ends])
            at = ends
            if at == end:
                break
            if text[at] == '"':
                self._string()
                return at + 1
            if text[at] != "\\":
                raise NotJson("a control character in a string")
            self._token.append("\\")
            self._escaped = True
            at += 1
        return at

    def _go_on_with_bare(self, text: str, at: int) -> int:
        ends = _ends(_BARE, text, at)
        self._token.append(text[at:ends])
        if ends < len(text):
            self._bare()  # else it may go on with the next piece
        return ends

    def _string(self) -> None:
        text = _unescaped("".join(self._token))
        self._token, self._within = [], ""
        if self._expects in {"key", "key or end"}:
            holder = self._stack[-1]
            if text in holder.holds:
                raise NotJson("an object names the same key twice")
            holder.key = text
            self._expects = "colon"
        else:
            self._count()
            self._closed(text)

    def _bare(self) -> None:
        word = "".join(self._token)
        self._token, self._within = [], ""
        self._count()
        self._closed(_WORDS[word] if word in _WORDS else _number(word))

    def _count(self) -> None:
        self._items += 1
        if self._items > ITEMS_MAX:
            raise NotJson(f"more than {ITEMS_MAX} items")
        if len(self._stack) >= DEPTH_MAX:
            raise NotJson(f"nested deeper than {DEPTH_MAX} levels")

    def _closed(self, value: Any) -> None:
        """Put a closed value where it belongs."""
        if len(self._stack) <= self._levels:
            self._given.append(Closed(tuple(open_.place for open_ in self._stack), value))
        if not self._stack:
            self.done, self.value, self._expects = True, value, "nothing"
            return
        holder = self._stack[-1]
        if isinstance(holder.holds, list):
            holder.holds.append(value)
        else:
            holder.holds[holder.key] = value
        self._expects = "comma or end"


def _ends(pattern: re.Pattern[str], text: str, at: int) -> int:
    """Where the run of such characters ends; the patterns match nothing as well."""
    match = pattern.match(text, at)
    return match.end() if match is not None else at


def _unescaped(raw: str) -> str:
    if "\\" in raw:
        try:
            raw = orjson.loads(f'"{raw}"')
        except orjson.JSONDecodeError:
            raise NotJson("a string that cannot be read") from None
    if "\x00" in raw:
        raise NotJson("a NUL character in a string")
    return raw


def _number(word: str) -> int | float:
    match = _NUMBER.fullmatch(word)
    if match is None:
        raise NotJson("a word that is no value")
    if match[1] is None and match[2] is None:
        number = int(word) if len(word) <= _DIGITS_MAX else INTEGER_MAX + 1
        if abs(number) > INTEGER_MAX:
            raise NotJson("an integer that cannot be read back exactly")
        return number
    value = float(word)
    if not math.isfinite(value):
        raise NotJson("a number that cannot be read back")
    return value
