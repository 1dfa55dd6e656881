"""The guide for authors is true: its example is written, checked, tested and run as it stands; what it names exists."""

import inspect
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
import typer.main

from ops.cli import app
from ops.scaffold import new_workflow
from runwire_testing.author import Author, AuthorRun
from runwire_testing.ending import Ended
from runwire_testing.model import ScriptedModel
from tests.e2e.stage import Stage, environ, runwire
from tests.house import ROOT
from tests.machine import open_folder
from worker.lint.check import check_folder
from worker.lint.finding import Rule
from worker.loading import load_workflow
from worker.run import Run

GUIDE = (ROOT / "docs/workflows.md").read_text(encoding="utf-8")
TESTS_S = 150
NO_CALLS = {"now", "random", "uuid"}  # these are not awaited


def blocks() -> dict[str, str]:
    """The files that the guide shows, by their path."""
    found = re.findall(r"^```\w+ (triage/\S+)\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
    assert len(found) == 6
    return dict(found)


@pytest.fixture(scope="module")
def triage() -> Iterator[Path]:
    """The guide followed: a new workflow, with the files of the guide in place of those that were written."""
    with open_folder() as folder:
        made = new_workflow("triage", folder)
        written = {path.relative_to(folder).as_posix() for path in made.rglob("*") if path.is_file()}
        for path, text in blocks().items():
            assert path in written, "the guide replaces only what new-workflow wrote"
            (folder / path).write_text(text)
        yield made


def test_the_example_is_clean_and_a_worker_takes_it(triage: Path) -> None:
    assert check_folder(triage).findings == ()
    assert load_workflow(triage).title == "Triage"


def test_the_examples_own_test_passes(triage: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "triage"],
        cwd=triage.parent,
        env=environ(PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        timeout=TESTS_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout


def test_the_example_runs_on_everything_that_up_starts(triage: Path) -> None:
    with open_folder() as folder:
        stage = Stage(folder / "data", RUNWIRE_WORKFLOWS=str(triage)).start()
        try:
            shown = stage.runwire("run", "triage", "--sample")
        finally:
            assert stage.stop() == 0
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "Result (validated, final" in shown.stdout
    assert "invoice: weekdays from 9 to 17" in shown.stdout


def test_a_workflow_that_cannot_be_taken_stops_everything_with_one_line(triage: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(triage, tmp_path / "triage"))
    (broken / "policy.toml").unlink()
    done = runwire("up", "--data", str(tmp_path / "data"), RUNWIRE_WORKFLOWS=str(broken))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "policy.toml is missing: without a policy nobody may start triage" in done.stderr
    assert not (tmp_path / "data").exists()


def test_every_command_that_is_named_exists() -> None:
    named = set(re.findall(r"runwire ((?!_)[a-z-]+)", GUIDE))
    assert named
    assert named <= set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def test_every_rule_of_the_lint_has_its_row_and_no_other_has() -> None:
    table = GUIDE.partition("| rule | finds |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `([a-z-]+)` \|", table, re.MULTILINE)) == set(get_args(Rule))


def test_every_call_on_run_that_is_named_takes_what_is_said() -> None:
    table = GUIDE.partition("## The calls")[2].partition("\n## ")[0]
    named = re.findall(r"^\| `run\.(\w+)\((.*?)\)`", table, re.MULTILINE)
    methods = {name for name, _ in inspect.getmembers(Run, inspect.isfunction) if name[0] != "_"}
    assert {name for name, _ in named} == methods - NO_CALLS
    for name, given in named:
        words = re.findall(r"(\w+)=", given)
        assert set(words) <= set(inspect.signature(getattr(Run, name)).parameters), name


def test_everything_of_the_test_kit_that_is_named_exists() -> None:
    table = GUIDE.partition("## Tests")[2].partition("\n## ")[0]
    for owner, prefix in ((Author, "author"), (AuthorRun, "run"), (ScriptedModel, r"author\.model")):
        named = set(re.findall(rf"`{prefix}\.(\w+)\(", table))
        assert named
        assert all(callable(getattr(owner, name)) for name in named)
    [ended] = re.findall(r"`(\.status [^`]+)`", table)
    assert {word.strip(".") for word in ended.split()} == set(Ended.__dataclass_fields__)
