"""Programs that are no Python or npm package: which tests need them, and how to get them."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Program:
    """One program: whether it is here, and the words that bring it."""

    is_here: Callable[[], bool]
    get: str


PROGRAMS: dict[str, Program] = {
    "curl": Program(lambda: shutil.which("curl") is not None, "apt-get install curl"),
    "postgresql-15": Program(
        lambda: Path("/usr/lib/postgresql/15/bin/postgres").exists(), "apt-get install postgresql-15 (Debian 12)"
    ),
    "nginx": Program(lambda: Path("/usr/sbin/nginx").exists(), "apt-get install nginx-light (Debian 12)"),
    "privoxy": Program(lambda: Path("/usr/sbin/privoxy").exists(), "apt-get install privoxy (Debian 12)"),
}
