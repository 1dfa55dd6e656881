"""Each rule of the house sees the fault it is there for, and only that one."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import test_architecture, test_tidy
from tests.house import Rule, read_tree

RULES: list[Rule] = [*test_architecture.RULES, *test_tidy.RULES]
SAYS = '"""A module that says what it keeps."""\n'
LONG_FUNCTION = SAYS + "def go():\n" + "    x = 1\n" * 70


@dataclass(frozen=True)
class Fault:
    rule: str
    path: str
    content: str
    named: str

    def __str__(self) -> str:
        return f"{self.rule}-{self.path}"


def fault(rule: Rule, path: str, content: str, named: str) -> Fault:
    return Fault(rule.__name__, path, content, named)


a, t = test_architecture, test_tidy
FAULTS = [
    fault(a.imports_run_one_way, "worker/runner.py", SAYS + "from api import app\n", ":2: worker may not import api"),
    fault(a.imports_run_one_way, "api/app.py", SAYS + "import worker.runner\n", ":2: api may not import worker"),
    fault(a.imports_run_one_way, "eventstore/log.py", SAYS + "import ops\n", ":2: eventstore may not import ops"),
    fault(a.imports_run_one_way, "migrations/env.py", SAYS + "import api\n", ":2: migrations may not import api"),
    fault(a.imports_run_one_way, "ops/cli.py", SAYS + "import tests\n", ":2: ops may not import tests"),
    fault(
        a.imports_run_one_way,
        "api/late.py",
        SAYS + "import importlib\nimportlib.import_module('worker.runner')\n",
        ":3: api may not import worker",
    ),
    fault(a.imports_run_one_way, "setup.py", SAYS, ":1: code outside the rooms"),
    fault(a.the_domain_is_pure, "eventstore/domain/run.py", SAYS + "import sqlalchemy\n", ":2: the domain is pure"),
    fault(a.the_domain_is_pure, "eventstore/domain/run.py", SAYS + "import random\n", ":2: the domain is pure"),
    fault(
        a.the_domain_is_pure,
        "eventstore/domain/run.py",
        SAYS + "from eventstore import log\n",
        "eventstore.log;",
    ),
    fault(
        a.the_domain_is_pure,
        "eventstore/domain/run.py",
        SAYS + "from datetime import UTC, datetime\nAT = datetime.now(UTC)\n",
        ":3: the domain is pure and calls now()",
    ),
    fault(
        a.imports_are_at_the_top, "api/app.py", SAYS + "async def go():\n    import json\n", ":3: import inside go()"
    ),
    fault(a.imports_are_absolute, "api/app.py", SAYS + "from . import feed\n", ":2: relative import"),
    fault(a.modules_are_short, "api/app.py", SAYS + "x = 1\n" * 400, ":401: 401 lines"),
    fault(a.modules_are_short, "tests/test_app.py", SAYS + "x = 1\n" * 600, ":601: 601 lines"),
    fault(a.modules_are_short, "api/web/static/console.js", "x = 1;\n" * 401, ":401: 401 lines"),
    fault(a.functions_are_short, "api/app.py", LONG_FUNCTION, ":2: go() has 71 lines"),
    fault(a.names_say_what_is_kept, "api/utils.py", SAYS, ":1: 'utils' says nothing"),
    fault(a.names_say_what_is_kept, "worker/core/lease.py", SAYS, ":1: 'core' says nothing"),
    fault(a.names_say_what_is_kept, "worker/lease_manager.py", SAYS, ":1: 'manager' says nothing"),
    fault(a.only_the_log_commits, "api/app.py", SAYS + "connection.commit()\n", ":2: .commit( outside eventstore"),
    fault(
        a.statements_are_not_built_from_text,
        "eventstore/log.py",
        SAYS + 'c.execute(f"SELECT {x}")\n',
        ":2: SQL built from text goes to execute()",
    ),
    fault(
        a.statements_are_not_built_from_text,
        "eventstore/log.py",
        SAYS + 'c.execute(text("SELECT " + x))\n',
        ":2: SQL built from text goes to text()",
    ),
    fault(
        a.statements_are_not_built_from_text,
        "eventstore/log.py",
        SAYS + 'q = "SELECT {}".format(x)\nc.execute(q)\n',
        ":3: SQL built from text goes to execute()",
    ),
    fault(a.every_module_says_what_it_keeps, "api/app.py", "x = 1\n", ":1: no module docstring"),
    fault(a.every_module_says_what_it_keeps, "api/app.py", '"""Keeps\nthings."""\n', ":1: the docstring does not"),
    fault(t.files_are_small, "tests/golden/big.txt", "x" * 500_000 + "\n", ":1: 500,001 bytes"),
    fault(t.nothing_built_is_committed, "api/web/dist/console.js", "x\n", ":1: this is built"),
    fault(t.nothing_built_is_committed, "api/web/static/console.min.js", "x\n", ":1: this is built"),
    fault(t.no_file_names_a_registry, "requirements/a.txt", f"\n{t.REGISTRIES[0]}\n", ":2: names a package registry"),
    fault(t.no_file_names_a_registry, "package-lock.json", '{"resolved"' + ': "x"}\n', ":1: names a package registry"),
    fault(t.indents_are_spaces, "eventstore/sql/head.sql", "-- One run's head, by key.\n\tSELECT 1\n", ":2: a tab"),
    fault(t.every_statement_opens_with_its_promise, "eventstore/sql/head.sql", "SELECT 1\n", ":1: the file does not"),
    fault(t.every_statement_opens_with_its_promise, "migrations/sql/1/up.sql", "-- up\n", ":1: the file does not"),
    fault(t.every_file_ends_with_a_newline, "README.md", "# Runwire\nmore", ":2: no newline at the end"),
]
SOUND = {
    "eventstore/__init__.py": "",
    "eventstore/domain/run.py": SAYS + "import pydantic\n\nfrom eventstore.domain.events import Event\n",
    "eventstore/log.py": '"""Appends and reads.\n\nA page on why.\n"""\n\nconnection.commit()\n',
    "eventstore/sql/head.sql": "-- One run's head; the primary key serves it.\nSELECT 1\n",
    "api/app.py": SAYS + "from eventstore import log\n\nc.execute(text(statement), {'n': 1})\n",
    "ops/cli.py": SAYS + "import api\nimport worker\n",
}


def plant(root: Path, files: dict[str, str]) -> Path:
    subprocess.run(["git", "init", "--quiet", str(root)], check=True)
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content, encoding="utf-8")
    return root


@pytest.mark.parametrize("planted", FAULTS, ids=str)
def test_a_planted_fault_is_named_by_its_rule_and_by_no_other(planted: Fault, tmp_path: Path) -> None:
    tree = read_tree(plant(tmp_path, SOUND | {planted.path: planted.content}))
    complaints = {rule.__name__: found for rule in RULES if (found := rule(tree))}
    assert list(complaints) == [planted.rule]
    [complaint] = complaints[planted.rule]
    assert complaint.startswith(planted.path + ":")
    assert planted.named in complaint
    assert "; " in complaint, "a complaint also says what to do instead"


def test_a_sound_tree_has_no_complaint(tmp_path: Path) -> None:
    tree = read_tree(plant(tmp_path, SOUND))
    assert [complaint for rule in RULES for complaint in rule(tree)] == []
    assert {source.path for source in tree.sources} == set(SOUND)


def test_every_rule_has_a_planted_fault() -> None:
    assert {planted.rule for planted in FAULTS} == {rule.__name__ for rule in RULES}


def test_ignored_and_deleted_files_are_not_judged(tmp_path: Path) -> None:
    root = plant(tmp_path, SOUND | {".gitignore": "dist/\n", "dist/utils.py": "", "api/gone.py": "x = 1"})
    subprocess.run(["git", "add", "--all"], cwd=root, check=True)
    (root / "api/gone.py").unlink()
    assert [complaint for rule in RULES for complaint in rule(read_tree(root))] == []
