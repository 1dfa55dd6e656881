"""The rules of the house that concern files: what is committed, and what state it is in."""

import re

import pytest

from tests.house import Rule, Tree, read_tree

BLOB_BYTES_MAX = 500_000
BUILT_FOLDERS = {"build", "dist", "node_modules", "__pycache__", ".venv", "htmlcov", "target"}
BUILT_FILES = re.compile(r"\.(pyc|pyo|so|o|whl|tgz|map|tsbuildinfo|log)$|\.min\.(js|css)$|\.egg-info(/|$)|\.tar\.gz$")
INDENTED_BY_SPACES = {".py", ".sql", ".js", ".mjs", ".ts", ".tsx", ".css", ".html", ".toml", ".yml", ".yaml"}
# Put together here, so that this file does not hold what it looks for.
REGISTRIES = [
    "pypi" + ".org",
    "pythonhosted" + ".org",
    "registry.npmjs" + ".org",
    "registry.yarnpkg" + ".com",
    "npm.pkg.github" + ".com",
    "--index" + "-url",
    "--extra-index" + "-url",
    "--find" + "-links",
    '"resolved"' + ": ",
]
SQL_FOLDERS = ("eventstore/sql/", "migrations/sql/")
PROMISE_WORDS_MIN = 4


def files_are_small(tree: Tree) -> list[str]:
    return [
        source.says(1, f"{len(source.content):,} bytes, {BLOB_BYTES_MAX:,} are allowed", "generate it where it is used")
        for source in tree.sources
        if len(source.content) > BLOB_BYTES_MAX
    ]


def nothing_built_is_committed(tree: Tree) -> list[str]:
    return [
        source.says(1, "this is built, not written", "add it to .gitignore")
        for source in tree.sources
        if BUILT_FOLDERS.intersection(source.path.split("/")[:-1]) or BUILT_FILES.search(source.path)
    ]


def no_file_names_a_registry(tree: Tree) -> list[str]:
    return [
        source.says(number, f"names a package registry ({needle})", "leave that to the settings of pip or npm")
        for source in tree.sources
        if source.is_text
        for number, line in enumerate(source.lines, 1)
        for needle in REGISTRIES
        if needle in line
    ]


def indents_are_spaces(tree: Tree) -> list[str]:
    return [
        source.says(number, "a tab", "use spaces, or \\t inside a text")
        for source in tree.sources
        if source.suffix in INDENTED_BY_SPACES
        for number, line in enumerate(source.lines, 1)
        if "\t" in line
    ]


def every_statement_opens_with_its_promise(tree: Tree) -> list[str]:
    complaints = []
    for source in tree.sources:
        if source.suffix == ".sql" and source.path.startswith(SQL_FOLDERS):
            opening = re.match(r"-- *(.*)", source.lines[0])
            if not opening or len(opening[1].split()) < PROMISE_WORDS_MIN:
                what = "the file does not open with what it promises"
                complaints.append(source.says(1, what, "begin with a `--` line that says it in a sentence"))
    return complaints


def every_file_ends_with_a_newline(tree: Tree) -> list[str]:
    return [
        source.says(len(source.lines), "no newline at the end", "add one")
        for source in tree.sources
        if source.is_text and source.content and not source.content.endswith(b"\n")
    ]


RULES: list[Rule] = [
    files_are_small,
    nothing_built_is_committed,
    no_file_names_a_registry,
    indents_are_spaces,
    every_statement_opens_with_its_promise,
    every_file_ends_with_a_newline,
]


@pytest.fixture(scope="module")
def tree() -> Tree:
    return read_tree()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_tree_is_tidy(rule: Rule, tree: Tree) -> None:
    complaints = rule(tree)
    assert not complaints, "\n" + "\n".join(complaints)
