"""Runs one server program as a tethered child: starts it, waits until it answers, stops it, ends one left over."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ops.places import ServiceError, ServiceUser, disk_full
from ops.tether import tethered

# The servers see nothing of the caller's environment: PGDATA, PGOPTIONS, LD_LIBRARY_PATH or a locale would change them.
_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
_LOG_ROTATE_BYTES = 10 * 2**20
# Less than one WAL segment: PostgreSQL could not even start, and its log line about that found no room either.
_FULL_BYTES = 16 * 2**20
_LEFT_OVER_WAIT_S = 10.0
_NO_SPACE = "No space left on device"


def open_log(path: Path) -> int:
    """A log file to append to; one of more than 10 MiB is put aside first (one older one is kept)."""
    with suppress(FileNotFoundError):
        if path.stat().st_size > _LOG_ROTATE_BYTES:
            path.replace(path.with_name(path.name + ".1"))
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def run_once(argv: Sequence[str], user: ServiceUser, data: Path) -> str:
    """Runs a program to its end and returns what it printed; a failure becomes a ServiceError with its last line."""
    done = subprocess.run(
        tethered(argv, signal.SIGKILL, user.ids),
        env=_ENVIRONMENT,
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode == 0:
        return done.stdout
    raise _failure(Path(argv[0]).name, done.stdout, data, f"exit code {done.returncode}")


@dataclass
class Server:
    """One server program.

    `stops` are the signals to send in turn, each with the seconds that it is given. `busy_sign` is what it logs when
    what is left of an earlier process still holds something: then it is started again for a while.
    """

    name: str
    argv: list[str]
    log: Path
    user: ServiceUser
    death_signal: signal.Signals
    stops: tuple[tuple[signal.Signals, float], ...]
    answers: Callable[[], bool]
    start_timeout_s: float = 60.0
    busy_sign: str | None = None
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _asked_to_stop: bool = field(default=False, init=False)
    _log_start: int = field(default=0, init=False)

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    @property
    def died(self) -> bool:
        """Whether it was started and ended without being asked to."""
        return self._process is not None and self._process.poll() is not None

    def start(self) -> None:
        log = open_log(self.log)
        self._asked_to_stop = False
        try:
            self._log_start = os.fstat(log).st_size
            self._process = subprocess.Popen(
                tethered(self.argv, self.death_signal, self.user.ids),
                env=_ENVIRONMENT,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C in a terminal goes to every process of the session: not to this one
            )
        finally:
            os.close(log)

    def wait_until_it_answers(self) -> None:
        now = time.monotonic()
        deadline, retry_until = now + self.start_timeout_s, now + _LEFT_OVER_WAIT_S
        while not self.answers():
            if self.died:
                if self.busy_sign is None or self.busy_sign not in self.last_words() or time.monotonic() > retry_until:
                    raise self._failure("it ended at once")
                self.start()
            if time.monotonic() > deadline:
                raise self._failure(f"no answer within {self.start_timeout_s:.0f} s")
            time.sleep(0.01)

    def signal_stop(self) -> None:
        """Asks it to stop, so that several can stop side by side; `stop` waits for the end."""
        if self._process is not None and not self._asked_to_stop:
            self._process.send_signal(self.stops[0][0])  # does nothing once it has ended
            self._asked_to_stop = True

    def stop(self) -> None:
        if self._process is None:
            return
        self.signal_stop()
        for turn, (number, seconds) in enumerate(self.stops):
            if turn > 0:
                self._process.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)
                break
        else:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _failure(self, what: str) -> ServiceError:
        return _failure(self.name, self.last_words(), self.log.parent, what, self.log)

    def last_words(self) -> str:
        """What it logged since it was last started (the end of it)."""
        with self.log.open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            log.seek(max(self._log_start, end - 64 * 1024))
            return log.read().decode("utf-8", "replace")


def _failure(name: str, output: str, data: Path, what: str, log: Path | None = None) -> ServiceError:
    if _NO_SPACE in output or shutil.disk_usage(data).free < _FULL_BYTES:
        return disk_full(data)
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    telling = [line for line in lines if re.search(r"\b(FATAL|PANIC|ERROR|[Ee]rror|[Ff]atal|cannot|can't)\b", line)]
    line = (telling or lines or [what])[-1]
    return ServiceError(f"{name} did not start: {line}", f"more in {log}" if log else "")


def end_left_over(pid: int, program: str, folder: Path, marker: str, started_at: float | None = None) -> bool:
    """Waits until the server that an earlier owner left in `folder` has gone; True if `pid` was that server.

    Being tethered it is normally on its way out, so waiting is all. One that stays is told to quit, but only if
    everything says that it is ours: program, working folder and, where known, the time it was started.
    """
    if not _is_ours(pid, program, folder, marker):
        return False
    deadline = time.monotonic() + _LEFT_OVER_WAIT_S
    while _is_ours(pid, program, folder, marker):
        late = time.monotonic() - deadline
        if late > _LEFT_OVER_WAIT_S:
            raise ServiceError(f"a {program} of an earlier start still runs in {folder} as process {pid}", "end it")
        if late > 0:
            born = _born_at(pid)
            if started_at is None or born is None or abs(born - started_at) < 60:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGQUIT if late < _LEFT_OVER_WAIT_S / 2 else signal.SIGKILL)
        time.sleep(0.05)
    return True


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _is_ours(pid: int, program: str, folder: Path, marker: str) -> bool:
    """Whether process `pid` is a `program` that works in `folder`; without /proc its command must name `marker`."""
    if pid <= 1 or not alive(pid):
        return False
    if sys.platform == "linux":
        with suppress(OSError):
            executable = os.readlink(f"/proc/{pid}/exe").removesuffix(" (deleted)")
            return Path(executable).name == program and os.readlink(f"/proc/{pid}/cwd") == str(folder)
        return False
    shown = subprocess.run(["ps", "-p", str(pid), "-o", "command="], capture_output=True, text=True, check=False).stdout
    return program in shown and marker in shown


def _born_at(pid: int) -> float | None:
    """When a process was started, in seconds since 1970; None where the machine does not say."""
    with suppress(OSError, ValueError, IndexError):
        ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
        booted = re.search(r"^btime (\d+)$", Path("/proc/stat").read_text(), re.MULTILINE)
        return None if booted is None else int(booted[1]) + ticks / os.sysconf("SC_CLK_TCK")
    return None
