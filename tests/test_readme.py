"""The README is true: its quick start is executed as it stands, and it names only commands and files that exist."""

import os
import re
import shlex
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import typer.main

from ops.cli import app
from ops.ports import free_port
from ops.running import Running
from tests.e2e.stage import environ
from tests.house import ROOT
from tests.machine import ends, open_folder, soon

README = (ROOT / "README.md").read_text(encoding="utf-8")
STEP_S = 120
STAYS = "make run"


def quick_start() -> list[str]:
    """The commands of the blocks that are marked as quick start, in order."""
    blocks = re.findall(r"^```sh quickstart\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip() and not line.startswith("#")]


@contextmanager
def kept_running(command: str, env: dict[str, str], data: Path) -> Iterator[None]:
    """A command that goes on until Ctrl-C, from the moment that it is ready."""
    with (data.parent / "run.out").open("wb") as out:
        process = subprocess.Popen(
            shlex.split(command), cwd=ROOT, env=env, stdout=out, stderr=out, start_new_session=True
        )
    try:
        soon(lambda: process.poll() is not None or Running.found(data) is not None, STEP_S)
        running = Running.found(data)
        assert running is not None, (data.parent / "run.out").read_text()
        yield
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does it
        process.wait(timeout=30)
        assert all(ends(pid, 10) for pid in (running.pid, *running.processes.values()))
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_the_quick_start_works_as_it_stands() -> None:
    commands = quick_start()
    assert commands[:2] == ["make demo", STAYS]
    with open_folder() as folder:
        data = folder / "data"
        env = environ(RUNWIRE_DATA=str(data), RUNWIRE_PORT=str(free_port()))

        def done(command: str) -> str:
            ended = subprocess.run(
                shlex.split(command),
                cwd=ROOT,
                env=env,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=STEP_S,
            )
            assert ended.returncode == 0, f"{command}: {ended.stdout}{ended.stderr}"
            return ended.stdout

        before, after = commands[: commands.index(STAYS)], commands[commands.index(STAYS) + 1 :]
        assert all("Result (validated, final" in done(command) for command in before)
        with kept_running(STAYS, env, data):
            for command in after:
                shown = done(command)
                assert shown.count("\n[") == 7
                assert "Result (validated, final" in shown


@pytest.mark.parametrize("name", sorted({found[0] for found in re.finditer(r"(?<=runwire )[a-z]+(?=[ `])", README)}))
def test_every_command_that_is_named_exists(name: str) -> None:
    assert name in typer.main.get_command(app).commands  # type: ignore[attr-defined]


def test_every_file_that_is_linked_exists() -> None:
    assert [link for link in re.findall(r"\]\(([^)#:]+)\)", README) if not (ROOT / link).exists()] == []
