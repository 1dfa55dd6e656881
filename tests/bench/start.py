"""How long a newcomer waits: from `make run` in a fresh clone to the first result, cold and at the second start."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

from ops.running import Running
from tests.e2e.stage import environ
from tests.house import ROOT
from tests.machine import soon

START_S = 600.0
SAMPLE = "worker/workflows/contract_review/samples/cloud_services.json"


def _first_result(clone: Path, data: Path) -> tuple[float, float]:
    """`make run`, then `runwire run` as soon as it is ready: the time to ready and to the first result."""
    env = environ(RUNWIRE_DATA=str(data), RUNWIRE_PORT="0", RUNWIRE_SCRIPTED_PIECES_PER_S="60")
    began = time.perf_counter()
    up = subprocess.Popen(["make", "run"], cwd=clone, env=env, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        soon(lambda: up.poll() is not None or Running.found(data) is not None, START_S)
        ready = time.perf_counter() - began
        told = subprocess.run(
            [".venv/bin/runwire", "run", "contract_review", "--input", SAMPLE, "--json"],
            cwd=clone, env=env, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert json.loads(told.stdout.splitlines()[-1])["type"] == "result"
        return ready, time.perf_counter() - began
    finally:
        os.killpg(up.pid, signal.SIGINT)
        up.wait(timeout=60)


def main(folder: Path) -> None:
    clone = folder / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    for name in ("cold start, fresh clone", "second start"):
        ready, result = _first_result(clone, folder / "start")
        print(f"{name}: make run to ready {ready:.1f} s, to the first validated result {result:.1f} s")
