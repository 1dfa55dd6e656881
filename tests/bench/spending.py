"""What the processes of a stage spend: processor time by process, servers with all their children."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.e2e.stage import children

TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
READER: Final = "reader"


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds of processor time by process, at one moment."""

    at: float
    seconds: dict[str, float]

    def since(self, before: "Spent") -> dict[str, float]:
        """The share of one processor that each used in between."""
        return {
            name: (seconds - before.seconds.get(name, 0.0)) / (self.at - before.at)
            for name, seconds in self.seconds.items()
        }


def spent(processes: Mapping[str, int]) -> Spent:
    """What these processes and this one have spent so far."""
    told = {name: sum(map(_seconds, [pid, *children(pid)])) for name, pid in processes.items()}
    own = os.times()
    return Spent(time.monotonic(), {**told, READER: own.user + own.system})


def _seconds(pid: int) -> float:
    """Of a process and those of its children that have ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return 0.0
    return sum(map(int, stat.rpartition(")")[2].split()[11:15])) / TICKS_PER_S
