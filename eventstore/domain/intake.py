"""What may be stored: one function, used before anything from outside reaches the log.

A value that the log accepts must read back the same for ever, in every reader. JSON parsers differ on very deep
nesting, huge integers, NaN, duplicate keys, lone surrogates and NUL, so none of these gets in.
"""

import json
import math
from typing import Any, Final

from eventstore.domain.errors import NotStorable

DEPTH_MAX: Final = 32
INTEGER_MAX: Final = 2**53  # the largest that every JSON reader keeps exactly
ITEMS_MAX: Final = 20_000
EVENT_BYTES_MAX: Final = 1_048_576  # a page of the largest events must still fit into a process that reads it


def parse(raw: bytes, bytes_max: int) -> Any:
    """Strict JSON from outside: the size first, then the text, then the value."""
    if len(raw) > bytes_max:
        raise NotStorable(f"The body is larger than {bytes_max} bytes.")
    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except UnicodeDecodeError as fault:
        raise NotStorable(f"The body is not UTF-8 (byte {fault.start}).") from fault
    except RecursionError as fault:
        raise NotStorable(f"The body is nested deeper than {DEPTH_MAX} levels.") from fault
    except json.JSONDecodeError as fault:
        raise NotStorable(f"The body is not JSON (line {fault.lineno}, column {fault.colno}).") from fault
    except ValueError as fault:  # an integer with more digits than Python reads
        raise NotStorable("The body holds a number that cannot be read back exactly.") from fault
    check(value)
    return value


def check(value: Any) -> None:
    """Raise NotStorable, naming the place, when this value would not read back faithfully."""
    waiting: list[tuple[Any, str, int]] = [(value, "", 1)]
    seen = 0
    while waiting:
        item, pointer, depth = waiting.pop()
        seen += 1
        if seen > ITEMS_MAX:
            raise NotStorable(f"The value holds more than {ITEMS_MAX} items.", pointer)
        if depth > DEPTH_MAX:
            raise NotStorable(f"The value is nested deeper than {DEPTH_MAX} levels.", pointer)
        if isinstance(item, dict):
            for key, inner in item.items():
                _check_text(key, pointer)
                waiting.append((inner, f"{pointer}/{key.replace('~', '~0').replace('/', '~1')}", depth + 1))
        elif isinstance(item, list | tuple):
            waiting.extend((inner, f"{pointer}/{index}", depth + 1) for index, inner in enumerate(item))
        else:
            _check_scalar(item, pointer)


def _check_scalar(item: Any, pointer: str) -> None:
    if item is None or isinstance(item, bool):
        return
    if isinstance(item, str):
        _check_text(item, pointer)
    elif isinstance(item, int):
        if abs(item) > INTEGER_MAX:
            raise NotStorable("An integer is outside ±2^53 and would not be read back exactly.", pointer)
    elif isinstance(item, float):
        if not math.isfinite(item):
            raise NotStorable("NaN and infinity are not JSON.", pointer)
    else:
        raise NotStorable(f"A value of type {type(item).__name__} is not JSON.", pointer)


def _check_text(text: Any, pointer: str) -> None:
    if not isinstance(text, str):
        raise NotStorable("An object key is not text.", pointer)
    if "\x00" in text:
        raise NotStorable("A text holds a NUL character.", pointer)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as fault:
        raise NotStorable("A text holds half of a surrogate pair.", pointer) from fault


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    whole = dict(pairs)
    if len(whole) != len(pairs):
        raise NotStorable("An object names the same key twice.")
    return whole


def _no_constant(name: str) -> Any:
    raise NotStorable(f"{name} is not JSON.")


def clean_text(text: str) -> str:
    """Text from a model as it may be stored: NUL and halves of surrogate pairs become U+FFFD, visibly."""
    whole = text.replace("\x00", "\ufffd")
    # Over UTF-16, so that two halves that stand side by side become the character that they are.
    return whole if whole.isascii() else whole.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
