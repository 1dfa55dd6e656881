"""What a run may take: each limit with its unit and default, checked against the others where it is declared.

The limits that a run was accepted with stand in its first event, and count for it whoever carries it. A run that was
accepted before a limit existed has its default.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from eventstore.domain.events import RunLimits
from worker.holding import SPAN_MAX
from worker.stops import WorkflowFailed

REACHED: Final[Mapping[str, str]] = {
    "run_s": "The run took longer than it may.",
    "attempts_max": "The run failed too often and was given up.",
    "step_s": "A step took longer than it may.",
    "first_byte_s": "The model did not begin to answer in time.",
    "between_pieces_s": "The model's answer stood still for longer than it may.",
    "turns_max": "The model was asked as often as it may be in one call and had not come to an end.",
    "tool_calls_max": "The run has called as many tools as it may.",
    "tool_failures_max": "Tools failed one after the other as often as they may.",
    "output_bytes_max": "The result is larger than it may be.",
    "events_max": "The run has told as many events as it may.",
    "hold_chars_max": "The model said more without a checkpoint than may be held back.",
    "on_end_s": "What was to be done at the run's end took longer than it may.",
    "tokens_max": "The run has spent as many tokens as it may.",
    "cost_micro_usd": "The run has cost as much as it may.",
}
# Another run meets the same bound again, unless the world is in another mood.
WORTH_ANOTHER_RUN: Final = frozenset({"run_s", "step_s", "first_byte_s", "between_pieces_s"})
WITHIN_A_RUN: Final = ("step_s", "first_byte_s", "between_pieces_s", "on_end_s")


class LimitReached(WorkflowFailed):
    """A limit of the run is reached."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"limit_{name}", REACHED[name], retryable=name in WORTH_ANOTHER_RUN)


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one run, whole. `None` is no bound."""

    run_s: float = 180.0
    attempts_max: int = 3
    step_s: float = 60.0
    first_byte_s: float = 30.0
    between_pieces_s: float = 30.0
    turns_max: int = 12
    tool_calls_max: int = 40
    tool_failures_max: int = 3
    output_bytes_max: int = 262_144
    events_max: int = 20_000
    hold_chars_max: int = 4_000
    parallel: int = 8
    on_end_s: float = 2.0
    tokens_max: int | None = None
    cost_micro_usd: int | None = None


LIMITS: Final = tuple(field.name for field in fields(Limits))


def limits_of(told: Mapping[str, Any]) -> Limits:
    """The limits that a run's first event tells."""
    return Limits(**{name: value for name, value in told.items() if name in LIMITS and value is not None})


def declared_limits(name: str, told: RunLimits | None) -> RunLimits:
    """A workflow's limits, whole and checked. What it does not say has its default, or less where it says less of a
    whole. Raises ValueError with a line for the author."""
    said = told.model_dump(exclude_none=True) if told is not None else {}
    if bad := [each for each, value in said.items() if not value > 0]:
        raise ValueError(f"{name}: limits must be more than 0: {', '.join(bad)}")
    whole = {**asdict(Limits()), **said}
    if whole["hold_chars_max"] <= SPAN_MAX:
        raise ValueError(f"{name}: hold_chars_max must be more than {SPAN_MAX}, which redactions look ahead")
    for each in WITHIN_A_RUN:
        if each not in said:
            whole[each] = min(whole[each], whole["run_s"])
        elif whole[each] > whole["run_s"]:
            raise ValueError(f"{name}: {each} ({whole[each]:g}) is more than run_s ({whole['run_s']:g})")
    if "tool_failures_max" not in said:
        whole["tool_failures_max"] = min(whole["tool_failures_max"], whole["tool_calls_max"])
    elif whole["tool_failures_max"] > whole["tool_calls_max"]:
        raise ValueError(f"{name}: tool_failures_max is more than tool_calls_max")
    return RunLimits(**whole)


def under(ceilings: Mapping[str, float], limits: RunLimits) -> RunLimits:
    """The same limits, none above its ceiling."""
    told = limits.model_dump()
    lower = {name: value for name, value in ceilings.items() if told[name] is None or told[name] > value}
    kept = RunLimits.model_validate({**told, **lower})
    within = {name: min(getattr(kept, name), kept.run_s) for name in WITHIN_A_RUN if getattr(kept, name) is not None}
    return kept.model_copy(update=within)
