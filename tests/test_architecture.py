"""The rules of the house that concern code: who imports whom, how long things are, what they are called."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import PurePosixPath

import pytest

from tests.house import Rule, Source, Tree, read_tree

# Who may import whom. A room that is not here does not exist yet: add it with its reason.
MAY_IMPORT = {
    "eventstore": set[str](),
    "api": {"eventstore"},
    "worker": {"eventstore"},
    "migrations": {"eventstore"},
    "runwire": set[str](),  # installed where there is no server
    "ops": {"api", "eventstore", "migrations", "runwire", "worker"},
    "runwire_testing": {"eventstore", "migrations", "ops", "worker"},
    "tests": {"api", "eventstore", "migrations", "ops", "runwire", "runwire_testing", "worker"},
}
DOMAIN = "eventstore/domain/"
DOMAIN_PACKAGES = {"pydantic", "pydantic_core"}
# Modules of the standard library that read a clock, roll dice or reach outside: the domain is told such things.
IMPURE = re.compile(
    r"(asyncio|glob|http|logging|multiprocessing|os|random|secrets|select|shutil|signal|socket|sqlite3|ssl|subprocess"
    r"|tempfile|threading|time|urllib\.request)(\.|$)"
)
IMPURE_CALLS = {"now", "today", "utcnow", "uuid1", "uuid4", "uuid7"}
BANNED_WORDS = {"utils", "helpers", "common", "core", "manager"}
MODULE_SUFFIXES = {".py", ".sql", ".js", ".mjs", ".ts", ".tsx", ".css"}
MODULE_LINES_MAX = 400
TEST_MODULE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70
SENDS_SQL = {"execute", "executemany", "exec_driver_sql", "scalar", "scalars", "stream", "stream_scalars", "text"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def imports_run_one_way(tree: Tree) -> list[str]:
    complaints = []
    for source in tree.python:
        if source.room not in MAY_IMPORT:
            complaints.append(source.says(1, "code outside the rooms", f"move it into one of {', '.join(MAY_IMPORT)}"))
            continue
        for line, module in _imported(source):
            room = module.partition(".")[0]
            if room in MAY_IMPORT and room not in MAY_IMPORT[source.room] | {source.room}:
                what = f"{source.room} may not import {room}"
                complaints.append(source.says(line, what, "move what both need into eventstore, or pass it as data"))
    return complaints


def the_domain_is_pure(tree: Tree) -> list[str]:
    complaints = []
    for source in tree.python:
        if not source.path.startswith(DOMAIN):
            continue
        for line, module in _imported(source):
            top = module.partition(".")[0]
            ours = module == "eventstore.domain" or module.startswith("eventstore.domain.")
            if not ours and top not in DOMAIN_PACKAGES and (top not in sys.stdlib_module_names or IMPURE.match(module)):
                what = f"the domain is pure and imports {module}"
                complaints.append(source.says(line, what, "move what needs it out, and pass its answer in"))
        for call in _calls(source):
            if _called(call) in IMPURE_CALLS | {"open"}:
                what = f"the domain is pure and calls {_called(call)}()"
                complaints.append(source.says(call.lineno, what, "take the value as an argument"))
    return complaints


def imports_are_at_the_top(tree: Tree) -> list[str]:
    return [
        source.says(node.lineno, f"import inside {function.name}()", "import at the top of the file")
        for source in tree.python
        for function in _functions(source)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]


def imports_are_absolute(tree: Tree) -> list[str]:
    return [
        source.says(node.lineno, "relative import", "name the module from its room on")
        for source in tree.python
        for node in ast.walk(source.parsed)
        if isinstance(node, ast.ImportFrom) and node.level
    ]


def modules_are_short(tree: Tree) -> list[str]:
    complaints = []
    for source in tree.sources:
        length = source.content.count(b"\n")
        most = TEST_MODULE_LINES_MAX if source.room == "tests" else MODULE_LINES_MAX
        if source.suffix in MODULE_SUFFIXES and length > most:
            what = f"{length} lines, {most} are allowed"
            complaints.append(source.says(length, what, "split it where its docstring would need an 'and'"))
    return complaints


def functions_are_short(tree: Tree) -> list[str]:
    return [
        source.says(
            function.lineno,
            f"{function.name}() has {_length(function)} lines, {FUNCTION_LINES_MAX} are allowed",
            "give a part of it a name",
        )
        for source in tree.python
        for function in _functions(source)
        if _length(function) > FUNCTION_LINES_MAX
    ]


def names_say_what_is_kept(tree: Tree) -> list[str]:
    return [
        source.says(1, f"'{word}' says nothing about what is kept here", "name it for a word of the glossary")
        for source in tree.sources
        for part in PurePosixPath(source.path).parts
        for word in sorted(BANNED_WORDS.intersection(re.split(r"[^a-z]+", part.lower())))
    ]


def only_the_log_commits(tree: Tree) -> list[str]:
    return [
        source.says(call.lineno, ".commit( outside eventstore", "let `with engine.begin()` bound the transaction")
        for source in tree.python
        if source.room != "eventstore"
        for call in _calls(source)
        if isinstance(call.func, ast.Attribute) and call.func.attr == "commit"
    ]


def statements_are_not_built_from_text(tree: Tree) -> list[str]:
    complaints = []
    for source in tree.python:
        if source.room == "tests":
            continue  # tests make and drop databases, whose names no statement can bind
        # A name that is given a built text anywhere in the module counts as built: one name, one meaning.
        built = {
            target.id
            for node in ast.walk(source.parsed)
            if isinstance(node, ast.Assign) and _is_built_text(node.value)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for call in _calls(source):
            statement = call.args[0] if call.args else None
            by_name = isinstance(statement, ast.Name) and statement.id in built
            if _called(call) in SENDS_SQL and (by_name or (statement and _is_built_text(statement))):
                what = f"SQL built from text goes to {_called(call)}()"
                complaints.append(source.says(call.lineno, what, "bind parameters, or compose with psycopg.sql"))
    return complaints


def every_module_says_what_it_keeps(tree: Tree) -> list[str]:
    complaints = []
    for source in tree.python:
        if not source.content.strip() and source.path.endswith("__init__.py"):
            continue
        docstring = ast.get_docstring(source.parsed) or ""
        first, _, rest = docstring.partition("\n")
        if not docstring:
            complaints.append(source.says(1, "no module docstring", "say in one sentence what the module keeps"))
        elif not first.endswith(".") or (rest and not rest.startswith("\n")):
            what = "the docstring does not open with one sentence on one line"
            complaints.append(source.says(1, what, "end that line with a full stop; what follows needs a blank line"))
    return complaints


def _functions(source: Source) -> Iterator[Function]:
    return (node for node in ast.walk(source.parsed) if isinstance(node, Function))


def _length(function: Function) -> int:
    return (function.end_lineno or function.lineno) - function.lineno + 1


def _calls(source: Source) -> Iterator[ast.Call]:
    return (node for node in ast.walk(source.parsed) if isinstance(node, ast.Call))


def _called(call: ast.Call) -> str:
    match call.func:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
    return ""


def _imported(source: Source) -> Iterator[tuple[int, str]]:
    """Each module that the file imports, by statement or by name, with its line."""
    for node in ast.walk(source.parsed):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(module=str(module), names=names, level=0):
                # `from eventstore import domain` imports eventstore.domain; the longer name decides what is allowed.
                yield from ((node.lineno, f"{module}.{alias.name}") for alias in names)
            case ast.Call(args=[ast.Constant(value=str(module)), *_]):
                if _called(node) in {"import_module", "__import__"}:
                    yield node.lineno, module


def _is_built_text(node: ast.expr) -> bool:
    match node:
        case ast.JoinedStr():
            return True
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return any(_is_text(side) or _is_built_text(side) for side in (left, right))
        case ast.BinOp(left=left, op=ast.Mod()):
            return _is_text(left)
        case ast.Call(func=ast.Attribute(value=value, attr="format")):
            return _is_text(value)
    return False


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


RULES: list[Rule] = [
    imports_run_one_way,
    the_domain_is_pure,
    imports_are_at_the_top,
    imports_are_absolute,
    modules_are_short,
    functions_are_short,
    names_say_what_is_kept,
    only_the_log_commits,
    statements_are_not_built_from_text,
    every_module_says_what_it_keeps,
]


@pytest.fixture(scope="module")
def tree() -> Tree:
    return read_tree()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps_its_rule(rule: Rule, tree: Tree) -> None:
    complaints = rule(tree)
    assert not complaints, "\n" + "\n".join(complaints)


def test_the_rules_are_shown_the_whole_tree(tree: Tree) -> None:
    paths = {source.path for source in tree.sources}
    assert {"tests/test_architecture.py", "eventstore/__init__.py", "api/__init__.py", "worker/__init__.py"} <= paths
