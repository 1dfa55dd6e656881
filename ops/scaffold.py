"""Writes a new workflow's folder: all of it or nothing, and never over something that is there."""

import importlib.util
import keyword
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

from ops.exits import FAILED, USAGE, Complaint
from worker.declare import NAME
from worker.registry import WORKFLOWS

TEMPLATE: Final = Path(__file__).parent / "new_workflow"
SUFFIX: Final = ".txt"  # so that no tool takes a template for a module
RENAMED: Final = {"test.py": "test_{name}.py", "script.json": "{name}.script.json"}


def new_workflow(name: str, parent: Path) -> Path:
    """The folder that was made."""
    _check_name(name)
    if not parent.is_dir():
        raise Complaint(f"there is no folder {parent}", USAGE)
    folder = parent / name
    if os.path.lexists(folder):
        raise Complaint(f"{folder} is there already", FAILED, "nothing was changed; choose another name, or remove it")
    try:
        half = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=parent))
    except OSError as fault:
        raise Complaint(f"cannot write to {parent}: {fault.strerror}") from fault
    try:
        half.chmod(0o755)
        _write(name, half)
        half.rename(folder)  # refused by the system when somebody made a folder with something in it meanwhile
    except OSError as fault:
        raise Complaint(f"cannot make {folder}: {fault.strerror}") from fault
    finally:
        shutil.rmtree(half, ignore_errors=True)
    return folder


def _write(name: str, half: Path) -> None:
    for source in sorted(TEMPLATE.rglob(f"*{SUFFIX}")):
        relative = source.relative_to(TEMPLATE).with_suffix("")
        target = half / relative.with_name(RENAMED.get(relative.name, relative.name).format(name=name))
        target.parent.mkdir(exist_ok=True)
        text = source.read_text(encoding="utf-8")
        text = text.replace("NAME_OF_WORKFLOW", name).replace("TITLE_OF_WORKFLOW", _title(name))
        target.write_text(text, encoding="utf-8")


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name) or keyword.iskeyword(name) or keyword.issoftkeyword(name):
        raise Complaint(
            f"{name!r} is no workflow name", USAGE, "lower case letters, digits and _, a letter first, at most 63"
        )
    if name in WORKFLOWS:
        raise Complaint(f"a workflow {name} comes with Runwire", USAGE, "choose another name")
    if _is_taken(name):
        raise Complaint(f"Python has a module {name} already", USAGE, "choose another name")


def _is_taken(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return True
