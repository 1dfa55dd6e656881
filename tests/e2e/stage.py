"""A whole Runwire as a newcomer starts it: real processes behind the console script, and ways to hurt them."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import redis

from eventstore.domain.lifecycle import TERMINAL_TYPES
from ops.running import Running
from tests.house import ROOT
from tests.machine import ends, soon

RUNWIRE = str(Path(sys.executable).with_name("runwire"))
SAMPLE = ROOT / "worker/workflows/contract_review/samples/cloud_services.json"
COMMENTS = "Task: draft comments"  # only the prompt of that step holds it
START_S = 60.0
END_S = 30.0
COMMAND_S = 60.0
QUICK_PER_S = 2000
SLOW_PER_S = 20  # a review says about 600 pieces

Event = dict[str, Any]


def environ(**more: str) -> dict[str, str]:
    """This process's environment without what would lead to other servers, models or folders."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RUNWIRE_", "OPENAI_"))}
    return {**kept, "RUNWIRE_SCRIPTED_PIECES_PER_S": str(QUICK_PER_S), **more}


def runwire(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
    """One command, run to its end."""
    env = environ(**more)
    return subprocess.run(
        [RUNWIRE, *words], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=COMMAND_S
    )


class Stage:
    """One `runwire up` on a data folder; may be started again after its end."""

    def __init__(self, data: Path, workers: int = 1, **more: str) -> None:
        self.data = data
        self._workers = workers
        self._environ = {**more, "RUNWIRE_DATA": str(data)}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> "Stage":
        with (self.data.parent / "up.out").open("ab") as out:
            env = environ(**self._environ)
            words = [RUNWIRE, "up", "--port", "0", "--workers", str(self._workers)]
            self._process = subprocess.Popen(words, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        soon(lambda: self.ended or Running.found(self.data) is not None, START_S)
        assert not self.ended, self.said
        return self

    @property
    def ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    @property
    def said(self) -> str:
        return (self.data.parent / "up.out").read_text()

    @property
    def running(self) -> Running:
        found = Running.found(self.data)
        assert found is not None, self.said
        return found

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Tell it to stop, and see that nobody is left."""
        assert self._process is not None
        everybody = [*self.running.processes.values(), *children(self._process.pid)] if not self.ended else []
        self._process.send_signal(number)
        code = self._process.wait(timeout=30)
        left = [pid for pid in everybody if not ends(pid, 10 if number == signal.SIGKILL else 0)]
        assert not left, f"processes {left} were left behind"
        return code

    def runwire(self, *words: str) -> subprocess.CompletedProcess[str]:
        """One command in this folder, run to its end."""
        return runwire(*words, **self._environ)

    def begin(self, out: Path, *words: str) -> subprocess.Popen[bytes]:
        """One command in this folder that goes on beside the test; writes to `out`, and to `out`.err."""
        with out.open("wb") as stdout, out.with_suffix(".err").open("wb") as stderr:
            return subprocess.Popen(
                [RUNWIRE, *words], env=environ(**self._environ), stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr
            )

    def client(self, role: str) -> httpx.Client:
        """The API with that role's key."""
        key = json.loads((self.data / "keys.json").read_text())["keys"][role]
        headers = {"Authorization": f"Bearer {key}"}
        return httpx.Client(base_url=self.running.address, headers=headers, timeout=30, trust_env=False)

    def submit(self, workflow: str, given: Mapping[str, Any]) -> str:
        with self.client("operator" if workflow == "drill" else "user") as client:
            answer = client.post("/v1/runs", json={"workflow": workflow, "input": given})
            assert answer.status_code == 202, answer.text
            return str(answer.json()["id"])

    def review(self) -> str:
        """A contract review, submitted."""
        return self.submit("contract_review", json.loads(SAMPLE.read_text()))

    def events(self, run_id: str, role: str = "officer") -> list[Event]:
        """The run's log as the role sees it now; an officer sees all of it."""
        told: list[Event] = []
        with self.client(role) as client:
            while True:
                after = told[-1]["seq"] if told else 0
                page = client.get(
                    f"/v1/runs/{run_id}/events", params={"after": after}, headers={"Accept": "application/json"}
                ).json()
                told += page["events"]
                if not page["more"]:
                    return told

    def state(self, run_id: str, role: str = "officer", at: int | None = None) -> dict[str, Any]:
        with self.client(role) as client:
            found: dict[str, Any] = client.get(f"/v1/runs/{run_id}", params={} if at is None else {"at": at}).json()
            return found

    def until(self, run_id: str, happened: Callable[[Event], bool], within_s: float = END_S) -> list[Event]:
        """The log of the run as soon as it has such an event."""
        log: list[Event] = []

        def there() -> bool:
            log[:] = self.events(run_id)
            return any(map(happened, log))

        soon(there, within_s)
        return log

    def until_ended(self, run_id: str) -> list[Event]:
        """The whole log of the run, which has an end: no gap, nothing twice, one terminal event, and it is the last."""
        log = self.until(run_id, lambda event: event["type"] in TERMINAL_TYPES)
        assert [event["seq"] for event in log] == list(range(1, len(log) + 1))
        assert [event["type"] for event in log if event["type"] in TERMINAL_TYPES] == [log[-1]["type"]]
        return log

    def hold_the_comments(self) -> None:
        """The model falls silent in the middle of the next draft of comments."""
        self._order("faults", {"kind": "hang", "when": COMMENTS, "after_pieces": 20})

    @contextmanager
    def slowly(self) -> Iterator[None]:
        """The model speaks so slowly that no review ends inside the block."""
        self._order("pace", {"pieces_per_s": SLOW_PER_S})
        try:
            yield
        finally:
            self._order("pace", {"pieces_per_s": QUICK_PER_S})

    def _order(self, what: str, order: Mapping[str, Any]) -> None:
        url = (self.running.scripted_url or "").removesuffix("/v1")
        httpx.post(f"{url}/scripted/{what}", json=order, trust_env=False).raise_for_status()

    def hurt(self, name: str, number: signal.Signals) -> int:
        """Send a signal to one process; answers which."""
        pid = self.running.processes[name]
        os.kill(pid, number)
        return pid

    def carrier(self, log: Sequence[Event]) -> str:
        """The name of the process that carries the run of this log."""
        started = [event for event in log if event["type"] == "started"]
        pid = int(started[-1]["data"]["worker"].rpartition("/")[2])
        return next(name for name, known in self.running.processes.items() if known == pid)

    def until_replaced(self, name: str, pid: int) -> None:
        soon(lambda: self.running.processes.get(name) not in {pid, None}, 20)

    def flush_redis(self) -> None:
        with redis.Redis.from_url(self.running.redis_url) as client:
            client.flushall()


def children(pid: int) -> list[int]:
    """The processes that descend from this one, as the kernel knows them."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *children(child)]
    return found


def drafting(event: Event) -> bool:
    """Whether it is a piece of the drafted comments."""
    return bool(event["type"] == "token" and event["data"]["section"] == "comments")


def lines_of(out: Path) -> list[str]:
    """The whole lines of a file that is being written."""
    return out.read_text().split("\n")[:-1]


def seqs_of(lines: Sequence[str]) -> list[int]:
    return [json.loads(line)["seq"] for line in lines]
