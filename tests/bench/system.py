"""A whole Runwire for a benchmark: the same `runwire up` that a user starts."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

START_S = 60.0


@dataclass(frozen=True, slots=True)
class System:
    """A running system: where it answers and with which keys."""

    address: str
    keys: Mapping[str, str]

    def client(self, role: str) -> httpx.Client:
        """A client with that role's key."""
        return httpx.Client(
            base_url=self.address, headers={"Authorization": f"Bearer {self.keys[role]}"}, timeout=60, trust_env=False
        )


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def runwire(data: Path, environ: Mapping[str, str] | None = None, *options: str) -> Iterator[System]:
    """`runwire up` on a free port, stopped in order at the end."""
    command = [str(Path(sys.executable).with_name("runwire")), "up", "--port", str(free_port()), "--data", str(data)]
    process = subprocess.Popen([*command, *options], env={**os.environ, **(environ or {})}, stdout=subprocess.DEVNULL)
    try:
        yield _ready(process, data)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=30)


def _ready(process: "subprocess.Popen[bytes]", data: Path) -> System:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        assert process.poll() is None, "runwire up ended early"
        if (data / "up.json").exists() and (data / "keys.json").exists():
            told: dict[str, Any] = json.loads((data / "up.json").read_text())
            return System(told["address"], _keys(json.loads((data / "keys.json").read_text())))
        time.sleep(0.05)
    raise AssertionError("runwire up did not become ready")


def _keys(told: Any) -> dict[str, str]:
    return dict(told["keys"]) if "keys" in told else dict(told)
