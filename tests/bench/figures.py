"""How figures are told: percentiles of a list, one line each."""

from collections.abc import Sequence
from dataclasses import dataclass


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, round(share * len(ordered)) - 1))]


def latency_line(name: str, seconds: Sequence[float]) -> str:
    """Median, 99th percentile and maximum, in milliseconds."""
    p50, p99, top = (percentile(seconds, share) * 1000 for share in (0.5, 0.99, 1.0))
    return f"{name}: p50 {p50:.1f} ms, p99 {p99:.1f} ms, max {top:.1f} ms over {len(seconds)}"


def told(value: float | None) -> str:
    """A number with as many digits as it is worth."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.1f}" if abs(value) >= 10 else f"{value:,.2f}"


@dataclass(frozen=True, slots=True)
class Claim:
    """What is to be reached, and what was."""

    name: str
    measured: float
    at_least: float | None = None
    at_most: float | None = None

    @property
    def holds(self) -> bool:
        low = self.at_least is None or self.measured >= self.at_least
        return low and (self.at_most is None or self.measured <= self.at_most)

    def line(self) -> str:
        wanted = f"at least {told(self.at_least)}" if self.at_least is not None else f"at most {told(self.at_most)}"
        return f"  {'holds ' if self.holds else 'MISSED'}  {self.name}: {told(self.measured)}, wanted {wanted}"
