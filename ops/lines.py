"""A place in line, as people read it."""

from collections.abc import Mapping
from typing import Any, Final

REASONS: Final = {
    "tenant": "as many of your tenant's runs as may are under way",
    "caller": "as many of your runs as may are under way",
    "workflow": "as many runs of this workflow as may are under way",
    "no_worker": "no worker that is there can carry this version",
}


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th, 11th, 21st."""
    suffix = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{suffix}"


def in_line(queue: Mapping[str, Any] | None) -> str:
    """`queued, 3rd in line`, with the reason if it is not only that others come first; empty if it is not in line."""
    if not queue:
        return ""
    position, why = queue.get("position"), REASONS.get(str(queue.get("reason")), "")
    told = ["queued"]
    if position:
        told.append(f"{ordinal(position)} in line" if queue.get("exact") else f"at least {ordinal(position)} in line")
    return ", ".join(told) + (f" ({why})" if why else "")
