"""Old stored shapes to today's. Stored bytes are never rewritten; a reader meets today's shape only.

A changed event shape gets a new version number in `events.py` and one function here, from the old version to the next,
which answers a new body with its fields in the order of that version: readers are sent them in this order. A new field
that may be absent needs neither. There is none yet: every type is at version 1.
"""

from collections.abc import Callable, Mapping
from typing import Any

Upcast = Callable[[dict[str, Any]], dict[str, Any]]

UPCASTS: Mapping[tuple[str, int], Upcast] = {}


def upcast(type_: str, version: int, data: dict[str, Any]) -> dict[str, Any]:
    """Walk the body from its stored version to the newest one."""
    while (step := UPCASTS.get((type_, version))) is not None:
        data, version = step(data), version + 1
    return data
