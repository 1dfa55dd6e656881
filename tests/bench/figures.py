"""How figures are told: percentiles of a list, one line each."""

from collections.abc import Sequence


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, round(share * len(ordered)) - 1))]


def latency_line(name: str, seconds: Sequence[float]) -> str:
    """Median, 99th percentile and maximum, in milliseconds."""
    p50, p99, top = (percentile(seconds, share) * 1000 for share in (0.5, 0.99, 1.0))
    return f"{name}: p50 {p50:.1f} ms, p99 {p99:.1f} ms, max {top:.1f} ms over {len(seconds)}"
