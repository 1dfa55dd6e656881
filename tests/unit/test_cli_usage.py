"""What the command line says of itself, and that wrong usage is told apart from failure."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ops.cli import app
from ops.exits import USAGE, Complaint

COMMANDS = ("up", "demo", "api", "worker", "migrate", "keys create", "new-workflow", "check-workflow")
READING = ("run", "watch", "poll", "cancel", "show", "replay", "verify", "runs")


@pytest.mark.parametrize("command", ["", *COMMANDS, *READING])
def test_every_command_explains_itself_and_its_exit_codes(command: str) -> None:
    shown = CliRunner().invoke(app, [*command.split(), "--help"], env={"NO_COLOR": "1", "TERM": "dumb"})
    assert shown.exit_code == 0
    text = re.sub(r"[\s│]+", " ", shown.output)
    assert "Exit codes: 0 completed; 1 failed" in text
    assert "\x1b" not in shown.output


@pytest.mark.parametrize("command", READING)
def test_what_a_program_would_read_comes_as_json(command: str) -> None:
    assert "--json" in CliRunner().invoke(app, [command, "--help"], env={"NO_COLOR": "1"}).output


@pytest.mark.parametrize(
    "words",
    [["nothing"], ["watch"], ["poll", "x", "--wait", "99"], ["up", "--workers", "0"], ["up", "--port", "70000"]],
)
def test_wrong_usage_is_exit_code_2(words: list[str]) -> None:
    assert CliRunner().invoke(app, words).exit_code == USAGE


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "contract_review"], "say what to run it on"),
        (["run", "contract_review", "--sample", "--input", "x"], "say what to run it on"),
        (["run", "--sample"], "say what to run, or which run to go on with"),
        (["run", "contract_review", "--continue", "x"], "--continue takes workflow and input from the earlier run"),
        (["run", "--sample", "--continue", "x"], "--continue takes workflow and input from the earlier run"),
        (["migrate"], "no database (set RUNWIRE_DATABASE_URL"),
        (["worker"], "no database (set RUNWIRE_DATABASE_URL"),
        (["keys", "create", "--role", "user", "--tenant", "a", "--subject", "b"], "no database"),
    ],
)
def test_what_is_missing_is_said(words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RUNWIRE_DATABASE_URL", "RUNWIRE_REDIS_URL", "RUNWIRE_URL", "RUNWIRE_KEY"):
        monkeypatch.delenv(name, raising=False)
    outcome = CliRunner().invoke(app, words, env={"RUNWIRE_DATA": str(tmp_path)})
    assert isinstance(outcome.exception, Complaint)
    assert outcome.exception.code == USAGE
    assert said in str(outcome.exception)
