"""How a run ended, as a value or an exception."""

from collections.abc import Mapping
from typing import Any

from runwire.event import Event
from runwire.problems import RunCancelled, RunFailed, RunwireError


def output_of(end: Event | None) -> Mapping[str, Any]:
    """The validated output. Raises RunFailed or RunCancelled when there is none, with the partial result."""
    if end is None or not end.terminal:
        raise RunwireError("the server ended the run's events without its end")
    if end.type == "cancelled":
        raise RunCancelled(end.data)
    if end.type == "error":
        raise RunFailed(end.data)
    if "output" not in end.data:
        raise RunwireError("the run has its result; this key's role is not shown what it says")
    output: Mapping[str, Any] = end.data["output"]
    return output


def open_question(state: Mapping[str, Any]) -> int:
    """The seq of the one question that a run asks."""
    still = [one["seq"] for one in state.get("questions") or () if "decision" not in one]
    if len(still) != 1:
        raise ValueError(f"name the question: this run asks {len(still) or 'nothing'} at the moment")
    return int(still[0])
