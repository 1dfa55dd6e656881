"""What the lint found at one place: what is wrong there, why, and what to write instead."""

from dataclasses import dataclass
from typing import Any, Literal

Level = Literal["error", "warning"]
Rule = Literal[
    "clock",
    "chance",
    "environment",
    "outside",
    "tasks",
    "swallow",
    "broad-except",
    "shared",
    "global",
    "set-order",
    "not-awaited",
    "not-validated",
    "unplanned",
    "escape",
    "syntax",
    "registration",
]


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One complaint. Errors stop a workflow from being taken, warnings do not."""

    path: str
    line: int
    column: int
    rule: Rule
    level: Level
    what: str
    instead: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}: {self.level} [{self.rule}] {self.what}; {self.instead}"

    def plain(self) -> dict[str, Any]:
        """For programs."""
        return {
            "path": self.path,
            "line": self.line,
            "column": self.column,
            "rule": self.rule,
            "level": self.level,
            "what": self.what,
            "instead": self.instead,
        }
