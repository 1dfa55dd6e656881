"""Checks the source of workflows: a file, a folder, or a text. Never imports or runs what it reads."""

import ast
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from worker.lint import escapes
from worker.lint.declared import declarations
from worker.lint.finding import Finding
from worker.lint.project import Module, Project
from worker.lint.reach import reach
from worker.lint.rules import RULES, Scope


@dataclass(frozen=True, slots=True)
class Report:
    """What was found, and how many workflows were seen."""

    findings: tuple[Finding, ...]
    workflows: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether a worker would take it. Warnings do not stand in the way."""
        return not any(finding.level == "error" for finding in self.findings)


@dataclass(frozen=True, slots=True)
class Source:
    """A file that is to be checked: how it is shown, its dotted name, and its text."""

    path: str
    name: str
    package: str
    content: bytes


def check_folder(folder: Path, *, shown: str | None = None) -> Report:
    """All modules of a workflow's folder together. Tests are not part of the workflow."""
    base, sources = shown or str(folder), []
    root = folder.resolve()
    for file in sorted(root.rglob("*.py")):
        relative = file.relative_to(root)
        if _is_test(file.name) or any(part.startswith(".") or part == "__pycache__" for part in relative.parts):
            continue
        package = ".".join([root.name, *relative.parts[:-1]])
        name = package if file.name == "__init__.py" else f"{package}.{file.stem}"
        sources.append(Source(str(Path(base) / relative), name, package, file.read_bytes()))
    return check(sources)


def check_file(file: Path, *, shown: str | None = None) -> Report:
    """One module by itself."""
    package = file.resolve().parent.name
    return check([Source(shown or str(file), f"{package}.{file.stem}", package, file.read_bytes())])


def check(sources: Iterable[Source]) -> Report:
    """These modules together."""
    modules, findings, marks = [], list[Finding](), dict[str, list[escapes.Escape]]()
    for source in sources:
        try:
            tree = ast.parse(source.content, source.path)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as fault:
            findings.append(_unreadable(source.path, fault))
            continue
        modules.append(Module(source.path, source.name, source.package, tree))
        marks[source.path] = escapes.escapes(source.content.decode("utf-8-sig", "replace"))
    project = Project(modules)
    reached = reach(project)
    for unit in reached.units:
        scope = Scope(project, unit, reached.handed.get(unit, set()), reached.branches)
        for rule in RULES:
            findings += rule(scope)
    if reached.entries:
        findings += declarations(project, reached)
    left = sorted(set(escapes.apply(findings, marks)))
    return Report(tuple(left), tuple(sorted(entry.name for entry in reached.entries)))


def _unreadable(path: str, fault: Exception) -> Finding:
    line, column = getattr(fault, "lineno", None) or 1, getattr(fault, "offset", None) or 1
    what = f"Python cannot read this file: {getattr(fault, 'msg', None) or fault or type(fault).__name__}"
    return Finding(path, line, column, "syntax", "error", what, "mend it first")


def _is_test(name: str) -> bool:
    return name.startswith("test_") or name.endswith("_test.py") or name == "conftest.py"
