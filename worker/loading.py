"""Brings workflows in from their own folders, and says in one line why one cannot be taken.

A folder becomes a package of its own name inside `runwire_workflows`, so that its modules find each other by relative
imports, and no folder of a user's ever stands in the place of a module that somebody else means.
"""

import importlib
import importlib.util
import re
import sys
import tomllib
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Final

import orjson
from pydantic import BaseModel, ValidationError

from eventstore.domain.disclosure import policy_from
from eventstore.domain.errors import PolicyError
from eventstore.workflow_folders import CODE, POLICY, workflow_folders
from worker.declare import Workflow
from worker.lint.check import check_folder
from worker.registry import WORKFLOWS

PACKAGE: Final = "runwire_workflows"
LACKS: Final = re.compile(r"\bworkflow\(\) missing \d+ required keyword-only arguments?: (.+)$")


class NotTaken(ValueError):
    """A workflow that cannot be registered: where, what, and what to do, in one line."""


def known_workflows(setting: str) -> dict[str, Workflow]:
    """The workflows that come along, and those of the folders that the setting names."""
    found = dict(WORKFLOWS)
    for folder in workflow_folders(setting):
        workflow = load_workflow(folder)
        if workflow.name in WORKFLOWS:
            raise NotTaken(f"{folder}: a workflow {workflow.name} comes with Runwire; give this one another name")
        found[workflow.name] = workflow
    return found


def load_workflow(folder: Path) -> Workflow:
    """The one workflow of a folder, checked: its code by the lint, its policy, its samples."""
    errors = [finding for finding in check_folder(folder).findings if finding.level == "error"]
    if errors:
        more = f" (and {len(errors) - 1} more: runwire check-workflow {folder})" if len(errors) > 1 else ""
        raise NotTaken(f"{errors[0]}{more}")
    module = _imported(folder)
    declared = [value for value in vars(module).values() if isinstance(value, Workflow)]
    if len({workflow.name for workflow in declared}) != 1:
        names = ", ".join(sorted({workflow.name for workflow in declared})) or "none"
        raise NotTaken(f"{folder / CODE}: one workflow is expected here, and there is {names}")
    workflow = declared[0]
    if workflow.name != folder.name:
        raise NotTaken(f"{folder / CODE}: the workflow is called {workflow.name}; give its folder the same name")
    _check_policy(workflow)
    _check_samples(workflow)
    return workflow


def _imported(folder: Path) -> ModuleType:
    name = f"{PACKAGE}.{folder.name}"
    for known in [each for each in sys.modules if each == name or each.startswith(f"{name}.")]:
        del sys.modules[known]  # of another folder of this name, or of an earlier look at this one
    importlib.invalidate_caches()
    sys.modules.setdefault(PACKAGE, _package(PACKAGE, []))
    try:
        _enter(name, folder)
        return importlib.import_module(f"{name}.workflow")
    except (Exception, SystemExit) as fault:
        raise NotTaken(_where(folder, fault)) from fault


def _enter(name: str, folder: Path) -> None:
    opening = folder / "__init__.py"
    if not opening.is_file():
        sys.modules[name] = _package(name, [str(folder)])
        return
    spec = importlib.util.spec_from_file_location(name, opening, submodule_search_locations=[str(folder)])
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


def _package(name: str, path: list[str]) -> ModuleType:
    module = ModuleType(name)
    module.__path__ = path
    return module


def _where(folder: Path, fault: BaseException) -> str:
    """The line of the folder's own code at which its import ended, and why."""
    own = [frame for frame in traceback.extract_tb(fault.__traceback__) if Path(frame.filename).is_relative_to(folder)]
    place = f"{own[-1].filename}:{own[-1].lineno}" if own else str(folder / CODE)
    return f"{place}: {_why(folder, fault)}"


def _why(folder: Path, fault: BaseException) -> str:
    said = " ".join(str(fault).split()) or type(fault).__name__
    if (lacks := LACKS.search(said)) is not None:
        hint = "; partial= names a function of the RunView that makes the best partial result" * ("partial" in lacks[1])
        return f"@workflow(...) lacks {lacks[1]}{hint}"
    if isinstance(fault, ModuleNotFoundError) and str(fault.name).partition(".")[0] == folder.name:
        return f"{said}; import modules of the same folder as `from .prompts import ...`"
    return said if isinstance(fault, ValueError) else f"{type(fault).__name__}: {said}"


def _check_policy(workflow: Workflow) -> None:
    file = workflow.folder / POLICY
    try:
        policy = policy_from(tomllib.loads(file.read_text(encoding="utf-8")), str(file))
    except FileNotFoundError as fault:
        raise NotTaken(f"{file} is missing: without a policy nobody may start {workflow.name} or see it") from fault
    except PolicyError as fault:
        raise NotTaken(str(fault)) from fault
    except (OSError, ValueError) as fault:
        raise NotTaken(f"{file}: {fault}") from fault
    if policy.workflow != workflow.name:
        raise NotTaken(f'{file}: workflow is "{policy.workflow}", and the code declares "{workflow.name}"')


def _check_samples(workflow: Workflow) -> None:
    for file in sorted((workflow.folder / "samples").glob("*.json")):
        _check_sample(workflow.input, file)


def _check_sample(model: type[BaseModel], file: Path) -> None:
    try:
        value = orjson.loads(file.read_bytes())
        if not isinstance(value, Mapping):
            raise NotTaken(f"{file}: a sample is one JSON object")
        model.model_validate(value)
    except ValidationError as fault:
        first = fault.errors(include_url=False, include_input=False)[0]
        raise NotTaken(f"{file}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from fault
    except orjson.JSONDecodeError as fault:
        raise NotTaken(f"{file}: {fault}") from fault
