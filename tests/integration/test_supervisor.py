"""The supervisor with real children: it restarts, gives up, stops in order, and leaves nobody behind."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from ops.places import ServiceError
from ops.supervisor import ChildSpec, Supervisor
from tests.machine import ends

# The supervisor under test runs in a process of its own, as it is its signals and its death that matter. It prints what
# happens, one line each; the tests wait for these lines.
SCRIPT = """
import json, os, signal, sys
from pathlib import Path
from ops.services import ServiceError
from ops.supervisor import ChildSpec, Supervisor

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may run under nohup

def say(*words):
    print(*words, flush=True)

def spec(name, script, ready=None, **more):
    test = None if ready is None else lambda: Path(ready).exists()
    return ChildSpec(name, ["sh", "-c", script], dict(os.environ), ready=test, **more)

folder, specs, options = Path(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3])
children = [spec(**one) for one in specs]
try:
    with Supervisor(children, lambda name, line: say(f"{name}: {line}"), logs=folder, **options) as supervisor:
        if supervisor.start():
            say("started", *supervisor.processes)
            supervisor.run()
            say("asked to stop")
        else:
            say("asked to stop while starting")
    say("stopped")
except ServiceError as error:
    sys.exit(str(error))
"""

SERVE = 'trap "echo bye; exit 0" TERM; trap "echo interrupted" INT; echo "up $$"; while :; do sleep 0.05; done'
STUBBORN = 'trap "" TERM; sleep 60 & echo "up $$ $!"; wait; wait; while :; do sleep 60; done'


class Run:
    """One supervisor process and the lines that it has printed."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []

    def wait_for(self, pattern: str) -> re.Match[str]:
        """The first line from here on that matches; the time-out of the whole test bounds the wait."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            if found := re.fullmatch(pattern, self.lines[-1]):
                return found
        raise AssertionError(f"no line {pattern!r} in {self.lines}: {self.rest()}")

    def rest(self) -> tuple[list[str], str, int]:
        """What it printed until its end, its complaint and its exit code."""
        # Not communicate: it would miss what wait_for has read ahead.
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        lines = self.process.stdout.read().splitlines()
        return lines, self.process.stderr.read(), self.process.wait()


@contextmanager
def supervised(folder: Path, *specs: Mapping[str, object], **options: object) -> Iterator[Run]:
    command = [sys.executable, "-W", "error", "-c", SCRIPT, str(folder), json.dumps(specs), json.dumps(options)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            yield Run(process)
        finally:
            process.kill()


def test_a_child_that_is_killed_is_started_again(tmp_path: Path) -> None:
    with supervised(tmp_path, {"name": "api", "script": SERVE}) as run:
        first = int(run.wait_for(r"api: up (\d+)")[1])
        os.kill(first, signal.SIGKILL)
        run.wait_for(r"api: ended with SIGKILL, starts again in 0\.1 s")
        second = int(run.wait_for(r"api: up (\d+)")[1])
        assert second != first
        run.process.terminate()
        assert run.rest() == (["asked to stop", "api: bye", "stopped"], "", 0)
    assert (tmp_path / "api.log").read_text() == f"up {first}\nup {second}\nbye\n"


def test_what_a_killed_child_had_started_ends_with_it(tmp_path: Path) -> None:
    with supervised(tmp_path, {"name": "worker", "script": STUBBORN}) as run:
        child, grandchild = map(int, run.wait_for(r"worker: up (\d+) (\d+)").groups())
        os.kill(child, signal.SIGKILL)
        assert ends(grandchild)


def test_a_child_that_never_comes_up_is_given_up_with_its_last_line(tmp_path: Path) -> None:
    script = {"name": "api", "script": "echo starting; echo port 8000 is in use >&2; exit 3", "ready": "/nowhere"}
    with supervised(tmp_path, {"name": "worker", "script": SERVE}, script) as run:
        child = int(run.wait_for(r"worker: up (\d+)")[1])
        lines, complaint, code = run.rest()
    assert complaint == (
        f"api died 5 times before it was ready (exit code 3): port 8000 is in use (more in {tmp_path}/api.log)\n"
    )
    assert code == 1
    waits = [line.rpartition(" in ")[2] for line in (*run.lines, *lines) if "starts again" in line]
    assert waits == ["0.1 s", "0.2 s", "0.4 s", "0.8 s"]
    assert "worker: bye" in lines
    assert ends(child, 0)


def test_a_child_that_is_not_ready_in_time_is_one_clear_line(tmp_path: Path) -> None:
    with supervised(tmp_path, {"name": "api", "script": SERVE, "ready": "/nowhere"}, ready_timeout_s=0.3) as run:
        child = int(run.wait_for(r"api: up (\d+)")[1])
        _, complaint, code = run.rest()
    assert complaint.startswith(f"api was not ready within 0.3 s: up {child}")
    assert code == 1
    assert ends(child, 0)


def test_a_killed_supervisor_leaves_no_child(tmp_path: Path) -> None:
    with supervised(
        tmp_path,
        {"name": "api", "script": "trap '' TERM; echo up $$; while :; do sleep 0.05; done"},
        {"name": "worker", "script": SERVE, "death_signal": signal.SIGTERM},
    ) as run:
        stubborn = int(run.wait_for(r"api: up (\d+)")[1])
        polite = int(run.wait_for(r"worker: up (\d+)")[1])
        run.process.kill()
        assert ends(stubborn)
        assert ends(polite)
    assert (tmp_path / "worker.log").read_text().endswith("bye\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_children_stop_in_reverse_order_and_hear_nothing_of_the_terminal(
    tmp_path: Path, number: signal.Signals
) -> None:
    names = ("first", "second", "third")
    with supervised(tmp_path, *({"name": name, "script": SERVE} for name in names)) as run:
        run.wait_for("started first second third")
        for name in names:
            wait_for_file(tmp_path / f"{name}.log")
        os.killpg(run.process.pid, number)  # as Ctrl-C does, to everybody in the terminal's group
        lines, complaint, code = run.rest()
    said = [line for line in lines if " up " not in line]
    assert said == ["asked to stop", "third: bye", "second: bye", "first: bye", "stopped"]
    assert (complaint, code) == ("", 0)


def wait_for_file(path: Path) -> None:
    """Until the child has set its traps and said so; `tail` wakes with the file, nobody sleeps."""
    with subprocess.Popen(
        ["tail", "-n", "+1", "-F", str(path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as tail:
        assert tail.stdout is not None
        tail.stdout.readline()
        tail.kill()


def test_a_child_that_does_not_stop_in_its_grace_is_killed_with_all_it_started(tmp_path: Path) -> None:
    with supervised(tmp_path, {"name": "worker", "script": STUBBORN}, grace_s=0.2) as run:
        child, grandchild = map(int, run.wait_for(r"worker: up (\d+) (\d+)").groups())
        run.process.terminate()
        assert run.rest() == (["asked to stop", "stopped"], "", 0)
        assert ends(child, 0)
        assert ends(grandchild)


def test_a_second_signal_ends_the_grace(tmp_path: Path) -> None:
    with supervised(tmp_path, {"name": "worker", "script": STUBBORN}, grace_s=120) as run:
        child = int(run.wait_for(r"worker: up (\d+) (\d+)")[1])
        run.process.terminate()
        run.wait_for("asked to stop")
        assert not ends(child, 0.6), "one signal is no hurry"
        run.process.send_signal(signal.SIGINT)
        assert run.rest() == (["stopped"], "", 0)
        assert ends(child, 0)


def test_a_child_is_started_when_the_one_before_it_is_ready(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    with supervised(
        tmp_path, {"name": "api", "script": SERVE, "ready": str(ready)}, {"name": "worker", "script": SERVE}
    ) as run:
        run.wait_for(r"api: up \d+")
        assert not (tmp_path / "worker.log").exists()
        ready.touch()
        run.wait_for("started api worker")
        run.wait_for(r"worker: up \d+")


def test_a_signal_while_starting_stops_what_was_started(tmp_path: Path) -> None:
    with supervised(tmp_path, {"name": "api", "script": SERVE, "ready": "/nowhere"}) as run:
        child = int(run.wait_for(r"api: up (\d+)")[1])
        run.process.send_signal(signal.SIGINT)
        assert run.rest() == (["asked to stop while starting", "api: bye", "stopped"], "", 0)
        assert ends(child, 0)


def test_a_child_that_may_end_is_waited_for_and_not_started_again(tmp_path: Path) -> None:
    once = ChildSpec("demo", ["sh", "-c", "echo done; exit 4"], dict(os.environ), restart=False)
    tended: list[bool] = []
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)]
    with Supervisor([once], logs=tmp_path, tend=lambda: tended.append(True)) as supervisor:
        assert supervisor.start()
        supervisor.run(until=lambda: supervisor.exit_code("demo") is not None)
        assert supervisor.exit_code("demo") == 4
        assert supervisor.processes == {}
    assert tended
    assert (tmp_path / "demo.log").read_text() == "done\n"
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)] == before


def test_a_program_that_does_not_exist_is_one_clear_line(tmp_path: Path) -> None:
    absent = ChildSpec("api", ["/nowhere/api"], {}, ready=lambda: False, restart=False)
    with (
        pytest.raises(ServiceError, match=r"api ended with exit code 1: cannot start /nowhere/api: .*No such file"),
        Supervisor([absent], logs=tmp_path) as supervisor,
    ):
        supervisor.start()
