"""Runs Runwire's own processes (API, workers) and keeps them alive: starts in order, restarts, stops in reverse order.

One thread and one loop, which a signal or the end of a child wakes at once. Children are tethered (see tether.py), so a
kill -9 of the supervisor ends them. Each leads a session of its own, so Ctrl-C in a terminal reaches the supervisor
only, which then stops them in order. They write straight into their log files: a busy supervisor never holds them up.
"""

import os
import selectors
import signal
import socket
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from ops.places import ServiceError
from ops.servers import open_log
from ops.tether import tethered

FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 5.0
HEALTHY_S = 10.0
DEATHS_TO_GIVE_UP = 5
ONE_SIGNAL_S = 0.5
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """One process to keep alive. Without `ready` it counts as ready at once, and as proven after ten seconds of life.

    The `death_signal` comes when the supervisor was killed. A child with processes of its own needs SIGTERM and must
    pass it on to them; for any other, SIGKILL is sure.
    """

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    ready: Callable[[], bool] | None = None
    restart: bool = True
    death_signal: signal.Signals = signal.SIGKILL


@dataclass
class _Child:
    """What is known of one child while the supervisor runs."""

    spec: ChildSpec
    log: Path
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    start_at: float | None = None  # when it is due to be started again
    wait_s: float = FIRST_WAIT_S
    proven: bool = False  # it has been ready once
    deaths: deque[float] = field(default_factory=lambda: deque(maxlen=DEATHS_TO_GIVE_UP))
    exit_code: int | None = None
    read_to: int = 0  # how far its log has been read
    last_line: str = ""

    @property
    def ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None


class Supervisor:
    """Keeps `children` alive; each one's output goes to `logs`/NAME.log and, line by line, to `on_line` (name, line).

    `tend` is called about once a second and when any child of this process ends, for what else wants looking after
    (Services.tend).
    """

    def __init__(
        self,
        children: Sequence[ChildSpec],
        on_line: Callable[[str, str], None] | None = None,
        *,
        logs: Path,
        tend: Callable[[], object] | None = None,
        ready_timeout_s: float = 60.0,
        grace_s: float = 10.0,
    ) -> None:
        self._children = [_Child(spec, logs / f"{spec.name}.log") for spec in children]
        self._on_line = on_line
        self._tend = tend
        self._tend_at = 0.0
        self._ready_timeout_s = ready_timeout_s
        self._grace_s = grace_s
        self._selector = selectors.DefaultSelector()
        self._asked_at: float | None = None
        self._in_a_hurry = False
        self._undo = ExitStack()

    @property
    def processes(self) -> dict[str, int]:
        """The pids of the running children by name."""
        return {child.spec.name: child.process.pid for child in self._children if child.process is not None}

    def exit_code(self, name: str) -> int | None:
        """How a child that is not restarted ended; None while it runs."""
        return next(child.exit_code for child in self._children if child.spec.name == name)

    def __enter__(self) -> Self:
        """From here to the end of the block a signal does nothing but wake the loop."""
        wake, waker = socket.socketpair()
        for end in (wake, waker):
            end.setblocking(False)
            self._undo.callback(end.close)
        self._selector.register(wake, selectors.EVENT_READ)
        self._undo.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False))
        for number in (*_STOP_SIGNALS, signal.SIGCHLD):
            if number in _STOP_SIGNALS and signal.getsignal(number) == signal.SIG_IGN:
                continue  # nohup, or a background job of a shell: not meant for us
            self._undo.callback(signal.signal, number, signal.signal(number, self._noticed))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            self.stop()
        finally:
            self._undo.close()
            self._selector.close()

    def start(self) -> bool:
        """Starts the children one after the other, each when the one before is ready; False if a signal came first.

        A child that cannot be brought up is a ServiceError with its last line.
        """
        for child in self._children:
            self._launch(child)
            deadline = time.monotonic() + self._ready_timeout_s
            while not self._is_ready(child):
                if time.monotonic() > deadline:
                    raise _gave_up(child, f"was not ready within {self._ready_timeout_s:g} s")
                self._turn(0.02)
                if self._asked_at is not None:
                    return False
            child.proven = child.spec.ready is not None
        return self._asked_at is None

    def run(self, until: Callable[[], bool] | None = None) -> None:
        """Keeps the children alive until a signal to stop comes, or `until` says so (asked ten times a second)."""
        while self._asked_at is None and not (until is not None and until()):
            self._turn(1.0 if until is None and self._on_line is None else 0.1)

    def stop(self) -> None:
        """Stops the children in reverse order: SIGTERM, a bounded grace, SIGKILL. A second signal ends the grace."""
        for child in reversed(self._children):
            child.start_at = None
            if child.process is None:
                continue
            child.process.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + self._grace_s
            while not child.ended and time.monotonic() < deadline and not self._in_a_hurry:
                self._wait(0.1)
            self._bury(child)

    def _noticed(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGCHLD:
            self._tend_at = 0.0
        elif self._asked_at is None:
            self._asked_at = time.monotonic()
        else:  # a closing terminal or `timeout` may send the first one twice
            self._in_a_hurry = time.monotonic() - self._asked_at > ONE_SIGNAL_S

    def _wait(self, seconds: float) -> None:
        """Waits for a signal, at most so long, and passes on what the children have written."""
        for key, _ in self._selector.select(seconds):
            with suppress(BlockingIOError):
                os.read(key.fd, 4096)  # the signals themselves went to _noticed
        for child in self._children:
            self._read_log(child)

    def _turn(self, longest_s: float) -> None:
        """One turn of the loop: wait for something to happen, then see who died, who is due and who is proven."""
        now = time.monotonic()
        due = [child.start_at - now for child in self._children if child.start_at is not None]
        self._wait(max(0.0, min([longest_s, *due])))
        if self._asked_at is not None:
            return
        now = time.monotonic()
        for child in self._children:
            if child.ended:
                self._died(child, now)
            elif child.start_at is not None and now >= child.start_at:
                self._launch(child)
            elif child.process is not None and now - child.started_at >= HEALTHY_S:
                child.wait_s = FIRST_WAIT_S
                child.proven = child.proven or child.spec.ready is None
        if self._tend is not None and now >= self._tend_at:
            self._tend_at = now + 1.0
            self._tend()

    def _is_ready(self, child: _Child) -> bool:
        if not child.spec.restart and child.exit_code is not None:
            if child.exit_code == 0:
                return True
            raise _gave_up(child, f"ended with {_how(child.exit_code)}")
        if child.process is None:
            return False
        return child.spec.ready is None or (child.spec.ready() and not child.ended)

    def _launch(self, child: _Child) -> None:
        child.start_at, child.started_at, child.exit_code = None, time.monotonic(), None
        log = open_log(child.log)
        try:
            child.read_to = os.fstat(log).st_size
            child.process = subprocess.Popen(
                tethered(child.spec.argv, child.spec.death_signal),
                env=dict(child.spec.env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        finally:
            os.close(log)

    def _died(self, child: _Child, now: float) -> None:
        code = self._bury(child)
        if not child.spec.restart:
            child.exit_code = code
            return
        child.deaths.append(now)
        often = len(child.deaths) == DEATHS_TO_GIVE_UP and now - child.deaths[0] <= HEALTHY_S
        if often and not child.proven:
            raise _gave_up(child, f"died {DEATHS_TO_GIVE_UP} times before it was ready ({_how(code)})")
        child.start_at = now + child.wait_s
        if self._on_line is not None:
            self._on_line(child.spec.name, f"ended with {_how(code)}, starts again in {child.wait_s:.1f} s")
        child.wait_s = min(child.wait_s * 2, LONGEST_WAIT_S)

    def _bury(self, child: _Child) -> int:
        """Ends a child for good, with whatever is left of its process group, and returns its exit code."""
        assert child.process is not None
        with suppress(ProcessLookupError, PermissionError):  # nobody left; macOS says the latter for zombies
            os.killpg(child.process.pid, signal.SIGKILL)
        code = child.process.wait()
        self._read_log(child, to_the_end=True)
        child.process = None
        return code

    def _read_log(self, child: _Child, *, to_the_end: bool = False) -> None:
        """Passes on the whole lines that a child has written since the last time."""
        if child.process is None:
            return
        with child.log.open("rb") as log:
            log.seek(child.read_to)
            text = log.read(2**20)
        whole = len(text) if to_the_end or len(text) == 2**20 else text.rfind(b"\n") + 1
        child.read_to += whole
        for line in text[:whole].decode("utf-8", "replace").splitlines():
            child.last_line = line.strip() or child.last_line
            if self._on_line is not None:
                self._on_line(child.spec.name, line)


def _gave_up(child: _Child, what: str) -> ServiceError:
    return ServiceError(f"{child.spec.name} {what}: {child.last_line or 'it wrote nothing'}", f"more in {child.log}")


def _how(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    with suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"
