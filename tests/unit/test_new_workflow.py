"""`new-workflow` writes a whole folder or nothing; what it writes is clean and taken; what is broken is one line."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from api import policies
from eventstore.domain.errors import PolicyError
from eventstore.workflow_folders import FolderError, workflow_folders
from ops import scaffold
from ops.cli import app
from ops.exits import FAILED, USAGE, Complaint
from ops.scaffold import new_workflow
from tests.house import ROOT
from worker.digests import folder_digest
from worker.lint.check import check_folder
from worker.llm.scripted_rules import load_rules
from worker.loading import NotTaken, known_workflows, load_workflow

FILES = {
    "__init__.py",
    "models.py",
    "policy.toml",
    "prompts.py",
    "samples/first.json",
    "test_triage.py",
    "triage.script.json",
    "workflow.py",
}


@pytest.fixture
def triage(tmp_path: Path) -> Path:
    return new_workflow("triage", tmp_path)


def test_a_new_workflow_is_whole_clean_and_taken(triage: Path) -> None:
    files = {str(path.relative_to(triage)): path for path in triage.rglob("*") if path.is_file()}
    assert set(files) == FILES
    assert not [name for name, path in files.items() if "_OF_WORKFLOW" in path.read_text()]
    assert check_folder(triage).findings == ()
    taken = load_workflow(triage)
    assert (taken.name, taken.title, taken.folder) == ("triage", "Triage", triage)
    assert [sample.name for sample in taken.manifest().samples] == ["first"]
    assert len(load_rules([triage])) == 2
    assert list(triage.parent.iterdir()) == [triage], "nothing half written lies about"


def test_its_code_is_in_the_form_that_this_repository_wants(triage: Path) -> None:
    for path in triage.rglob("*.py"):
        lines = path.read_text().splitlines()
        assert all(len(line) <= 120 for line in lines)
        assert lines[0].startswith('"""')


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Triage", "is no workflow name"),
        ("1st", "is no workflow name"),
        ("a-b", "is no workflow name"),
        ("../up", "is no workflow name"),
        ("", "is no workflow name"),
        ("a" * 64, "is no workflow name"),
        ("class", "is no workflow name"),
        ("match", "is no workflow name"),
        ("json", "Python has a module json already"),
        ("worker", "Python has a module worker already"),
        ("drill", "a workflow drill comes with Runwire"),
    ],
)
def test_a_name_that_would_lead_to_trouble_is_refused(name: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(Complaint, match=re.escape(said)) as refused:
        new_workflow(name, tmp_path)
    assert refused.value.code == USAGE
    assert refused.value.hint
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("there", [Path.mkdir, Path.touch, lambda path: path.symlink_to("nowhere")])
def test_what_is_there_is_never_touched(there: Callable[[Path], object], tmp_path: Path) -> None:
    there(tmp_path / "triage")
    with pytest.raises(Complaint, match="is there already") as refused:
        new_workflow("triage", tmp_path)
    assert refused.value.code == FAILED
    assert list(tmp_path.iterdir()) == [tmp_path / "triage"]


def test_a_disk_that_is_full_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(name: str, folder: Path) -> None:
        (folder / "workflow.py").write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(scaffold, "_write", half)
    with pytest.raises(Complaint, match="No space left"):
        new_workflow("triage", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_next_commands_are_told_and_name_what_exists(tmp_path: Path) -> None:
    told = CliRunner().invoke(app, ["new-workflow", "triage", "--in", str(tmp_path)])
    assert told.exit_code == 0
    assert f"Made {tmp_path}/triage/" in told.output
    commands = re.findall(r"^  (.+)$", told.output, re.MULTILINE)
    assert len(commands) == 4
    for command, word in zip(
        commands, ("check-workflow ", " -m pytest ", "RUNWIRE_WORKFLOWS=", " run triage "), strict=True
    ):
        assert word in command


def replaced(file: str, old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        text = (folder / file).read_text()
        assert old in text
        (folder / file).write_text(text.replace(old, new))

    return change


BROKEN: list[tuple[str, Callable[[Path], object], str]] = [
    ("an open model", replaced("models.py", ', extra="forbid"', ""), "Text must forbid extra fields"),
    ("no partial", replaced("workflow.py", "    partial=best_partial,\n", ""), "lacks 'partial'; partial= names"),
    ("an unplanned milestone", replaced("workflow.py", 'one("Reading")', 'one("Rading")'), "the milestone 'Rading'"),
    (
        "a random number",
        replaced("workflow.py", "notes: list[Note] = []", "notes = [hash(given)]"),
        "error [chance] hash()",
    ),
    ("no policy", lambda folder: (folder / "policy.toml").unlink(), "policy.toml is missing"),
    ("a broken policy", replaced("policy.toml", 'result = "all"\n', ""), "must show result"),
    ("no toml", replaced("policy.toml", "version = 1", "version ="), "policy.toml: "),
    ("another's policy", replaced("policy.toml", '"triage"', '"drill"'), 'workflow is "drill"'),
    ("another name", replaced("workflow.py", '    "triage",', '    "triages",'), "is called triages"),
    ("a bad sample", replaced("samples/first.json", '"title"', '"titel"'), "first.json: title: Field required"),
    ("no json", replaced("samples/first.json", "{", "["), "first.json: "),
    ("no object", lambda folder: (folder / "samples/first.json").write_text("[]"), "a sample is one JSON object"),
    ("an absolute import", replaced("workflow.py", "from . import", "from triage import"), "as `from .prompts import"),
    ("broken code", replaced("workflow.py", "async def triage", "async df triage"), "Python cannot read this file"),
    ("an exit", replaced("models.py", "class Text", "raise SystemExit(3)\nclass Text"), "models.py:6: SystemExit: 3"),
    ("no workflow", lambda folder: (folder / "workflow.py").write_text('"""Nothing."""\n'), "there is none"),
    ("twice a milestone", replaced("workflow.py", '"Summing up", ', '"Summing up", "Reading", '), "each once"),
]


@pytest.mark.parametrize(("change", "said"), [pytest.param(c, s, id=name) for name, c, s in BROKEN])
def test_why_a_workflow_is_not_taken_is_one_line_that_names_its_place(
    change: Callable[[Path], object], said: str, triage: Path
) -> None:
    change(triage)
    with pytest.raises(NotTaken) as refused:
        known_workflows(str(triage))
    assert said in str(refused.value)
    assert str(triage) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_workflow_of_ones_own_cannot_take_the_name_of_one_that_comes_along(triage: Path) -> None:
    for file in ("workflow.py", "policy.toml"):
        replaced(file, '"triage"', '"drill"')(triage)
    with pytest.raises(NotTaken, match="a workflow drill comes with Runwire"):
        known_workflows(str(triage.rename(triage.with_name("drill"))))


def test_a_workflow_that_was_mended_is_read_anew(triage: Path) -> None:
    assert load_workflow(triage).title == "Triage"
    replaced("workflow.py", 'title="Triage"', 'title="Triage of messages"')(triage)
    assert load_workflow(triage).title == "Triage of messages"


def test_the_setting_names_folders_or_folders_of_folders(triage: Path, tmp_path: Path) -> None:
    other = new_workflow("sorting", tmp_path)
    assert workflow_folders("") == []
    assert workflow_folders(str(triage)) == [triage]
    assert workflow_folders(str(tmp_path)) == [other, triage]
    assert workflow_folders(f"{triage}:{tmp_path}") == [triage, other]
    assert {"sorting", "triage", "drill", "contract_review"} <= set(known_workflows(str(tmp_path)))
    with pytest.raises(FolderError, match="there is no folder"):
        workflow_folders(f"{tmp_path}/nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FolderError, match=r"holds no workflow\.py"):
        workflow_folders(f"{tmp_path}/empty")
    shutil.copytree(triage, tmp_path / "empty" / "triage")
    with pytest.raises(FolderError, match="more than one folder is called triage"):
        workflow_folders(f"{triage}:{tmp_path}/empty")


def test_the_api_reads_the_policies_that_lie_beside_workflows(triage: Path) -> None:
    assert policies.load(ROOT / "policies").of("triage") is None
    found = policies.load(ROOT / "policies", str(triage)).of("triage")
    assert found is not None
    assert "user" in found.submit
    with pytest.raises(PolicyError, match="RUNWIRE_WORKFLOWS: there is no folder"):
        policies.load(ROOT / "policies", "/nowhere/at/all")


def test_a_test_beside_a_workflow_is_no_part_of_its_code(triage: Path) -> None:
    before = folder_digest(triage)
    replaced("test_triage.py", "assert", "assert True and")(triage)
    assert folder_digest(triage) == before
    replaced("prompts.py", "one sentence", "a sentence")(triage)
    assert folder_digest(triage) != before


def test_check_workflow_says_what_is_wrong_by_line_and_ends_with_1(triage: Path) -> None:
    replaced(
        "workflow.py", "    notes: list[Note] = []", "    notes: list[Note] = []\n    run.milestone('Summing up')"
    )(triage)
    told = CliRunner().invoke(app, ["check-workflow", str(triage)])
    assert told.exit_code == FAILED
    assert re.search(r"workflow\.py:\d+:5: error \[not-awaited\] ", told.output)
    assert "triage: 1 error" in told.output
    for_programs = CliRunner().invoke(app, ["check-workflow", str(triage), "--json"])
    assert for_programs.exit_code == FAILED
    report = json.loads(for_programs.output)
    assert (report["ok"], report["workflows"]) == (False, ["triage"])
    assert [found["rule"] for found in report["findings"]] == ["not-awaited"]


def test_check_workflow_also_says_what_a_worker_would_refuse_unless_only_the_rules_are_wanted(triage: Path) -> None:
    (triage / "policy.toml").unlink()
    told = CliRunner().invoke(app, ["check-workflow", str(triage)])
    assert told.exit_code == FAILED
    assert "[registration]" in told.output
    assert CliRunner().invoke(app, ["check-workflow", str(triage), "--rules-only"]).exit_code == 0


def test_check_workflow_takes_names_and_files(triage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "drill: nothing to complain of" in CliRunner().invoke(app, ["check-workflow", "drill"]).output
    assert CliRunner().invoke(app, ["check-workflow", str(triage / "workflow.py")]).exit_code == 0
    monkeypatch.setenv("RUNWIRE_WORKFLOWS", str(triage))
    assert "triage: nothing to complain of" in CliRunner().invoke(app, ["check-workflow", "triage"]).output
    for what, said in (("unheard_of", "workflows are agent, "), (str(triage / "models.py"), "no workflow in")):
        refused = CliRunner().invoke(app, ["check-workflow", what]).exception
        assert isinstance(refused, Complaint)
        assert said in str(refused)
        assert refused.code == USAGE
