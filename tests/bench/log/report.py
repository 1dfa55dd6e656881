"""What a run of the benchmark found: printed as it is found, and kept as JSON."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.figures import Claim, percentile, told

_WIDTHS = (74, 11, 10, 8, 8)


@dataclass(frozen=True, slots=True)
class Tally:
    """Events that were stored or read, in how many calls, and how long that took in all."""

    events: int
    seconds: float
    calls: tuple[float, ...] = ()

    @property
    def rate(self) -> float:
        return self.events / self.seconds

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(self.events + other.events, self.seconds + other.seconds, self.calls + other.calls)

    def spread(self) -> dict[str, float]:
        """Milliseconds that a call took."""
        shares = {"p50_ms": 0.5, "p99_ms": 0.99, "max_ms": 1.0}
        return {name: percentile(self.calls, share) * 1000 for name, share in shares.items()} if self.calls else {}


@dataclass(frozen=True, slots=True)
class Figure:
    """One number that was measured. `times` says how many times as much ours is, where this is not ours."""

    part: str
    name: str
    value: float
    unit: str
    fsync_per_s: float
    times: float | None = None
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Report:
    """The figures of one run, in the order in which they were measured."""

    about: dict[str, Any]
    figures: list[Figure] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    disk_after: dict[str, float] = field(default_factory=dict)
    part: str = ""
    fsync_per_s: float = 0.0

    def begin(self, part: str, fsync_per_s: float) -> None:
        """What is added from here on belongs to this part; the disk was just asked how fast it is."""
        self.part, self.fsync_per_s = part, fsync_per_s
        print(f"\n{_line((part, 'measured', 'unit', 'ours is', 'fsync/s'))}\n{'-' * (sum(_WIDTHS) + 4)}", flush=True)

    def end(self, fsync_per_s: float) -> None:
        """The part is over; a disk that is now much slower or faster was shared, and so are these figures."""
        self.disk_after[self.part] = fsync_per_s
        print(f"(after this part the disk gives {fsync_per_s:,.0f} fsync/s)", flush=True)

    def add(self, name: str, value: float, unit: str, times: float | None = None, **more: Any) -> None:
        figure = Figure(self.part, name, value, unit, self.fsync_per_s, times, more)
        self.figures.append(figure)
        ratio = "" if times is None else f"{times:,.2f} x" if times < 10 else f"{times:,.0f} x"
        print(_line((name, told(value), unit, ratio, f"{self.fsync_per_s:,.0f}")), flush=True)

    def value(self, name: str) -> float:
        """The latest figure of this name."""
        return next(figure.value for figure in reversed(self.figures) if figure.name == name)

    def claim(self, claim: Claim) -> None:
        self.claims.append(claim)

    def told_claims(self) -> str:
        return "\n".join(["", "To be reached:", *(claim.line() for claim in self.claims)]) if self.claims else ""

    def as_json(self) -> str:
        claims = [{**asdict(claim), "holds": claim.holds} for claim in self.claims]
        told = {
            "about": self.about,
            "figures": [asdict(figure) for figure in self.figures],
            "fsync_per_s_after": self.disk_after,
            "claims": claims,
        }
        return json.dumps(told, indent=1) + "\n"

    def write(self, file: Path) -> None:
        file.write_text(self.as_json())


def _line(cells: tuple[str, ...]) -> str:
    name, *rest = (
        cell.ljust(width) if place in (0, 2) else cell.rjust(width)
        for place, (cell, width) in enumerate(zip(cells, _WIDTHS, strict=True))
    )
    return " ".join([name, *rest]).rstrip()
