"""What a running `runwire up` leaves in its data folder for others to find it: where it answers and which processes."""

import json
import os
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from ops.servers import alive


@dataclass(frozen=True, slots=True)
class Running:
    """One start of everything: written when all of it is ready, rewritten when a process is replaced."""

    address: str
    pid: int
    processes: dict[str, int]
    database_url: str
    redis_url: str
    model: str
    scripted_url: str | None
    logs: str
    born: str = field(default_factory=lambda: _born(os.getpid()))

    @classmethod
    def found(cls, data: Path) -> Self | None:
        """The one that runs on this data folder now; what a killed one left does not count."""
        told = read_json(_file(data))
        if told is None:
            return None
        try:
            running = cls(**told)
        except TypeError:  # of another release
            return None
        # A number alone is no proof: after a restart of a machine or a container it soon names another process.
        return running if alive(running.pid) and _born(running.pid) == running.born else None

    def write(self, data: Path) -> None:
        """Tell others; readable by the owner only, as the URLs may hold a password."""
        write_json(_file(data), asdict(self))

    @staticmethod
    def forget(data: Path) -> None:
        """Nothing runs here any more."""
        _file(data).unlink(missing_ok=True)


def _file(data: Path) -> Path:
    return data / "up.json"


def _born(pid: int) -> str:
    """Which boot of the machine a process belongs to, and when in it it was started; empty where nobody says."""
    with suppress(OSError, IndexError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path(f'/proc/{pid}/stat').read_text(encoding='utf-8').rpartition(')')[2].split()[19]}"
    return ""


def write_json(file: Path, value: Any) -> None:
    """The whole file or nothing of it, readable by the owner only."""
    handle, half = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            json.dump(value, out, indent=2)
            out.write("\n")
        Path(half).replace(file)
    except BaseException:
        Path(half).unlink(missing_ok=True)
        raise


def read_json(file: Path) -> dict[str, Any] | None:
    """What such a file holds; None when there is none, or none that can be read."""
    with suppress(OSError, ValueError):
        value = json.loads(file.read_text(encoding="utf-8"))
        return value if isinstance(value, dict) else None
    return None
