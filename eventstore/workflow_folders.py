"""Where the workflows are that do not come with Runwire: the folders that RUNWIRE_WORKFLOWS names."""

import os
from pathlib import Path
from typing import Final

SETTING: Final = "RUNWIRE_WORKFLOWS"
CODE: Final = "workflow.py"
POLICY: Final = "policy.toml"


class FolderError(ValueError):
    """The setting does not lead to workflows; the message is one line for whoever set it."""


def workflow_folders(setting: str) -> list[Path]:
    """One folder for each workflow. The setting names their folders, or folders that hold several, split by `:`."""
    found: list[Path] = []
    for named in filter(None, (part.strip() for part in setting.split(os.pathsep))):
        folder = Path(named).expanduser().resolve()
        if not folder.is_dir():
            raise FolderError(f"{SETTING}: there is no folder {named}")
        inside = [folder] if (folder / CODE).is_file() else _inside(folder)
        if not inside:
            raise FolderError(f"{SETTING}: {named} holds no {CODE}, and no folder in it does")
        found += [each for each in inside if each not in found]
    names = [folder.name for folder in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise FolderError(f"{SETTING}: more than one folder is called {', '.join(twice)}")
    return found


def _inside(folder: Path) -> list[Path]:
    return sorted(file.parent for file in folder.glob(f"*/{CODE}") if not file.parent.name.startswith("."))
