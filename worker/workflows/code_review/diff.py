"""Reads a unified diff. Pure: the same text gives the same files and lines."""

import re
from typing import Final

from pydantic import BaseModel, ConfigDict

from worker.author import WorkflowFailed

FILES_MAX: Final = 40
HUNK: Final = re.compile(r"^@@ -\d+(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")
NOWHERE: Final = "/dev/null"


class Change(BaseModel):
    """The change of one file: where it stands in the diff. The text is cut from the input, so it is stored once."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    path: str
    start: int
    end: int

    def lines(self, diff: str) -> dict[int, str]:
        """The lines of the new file that the change shows, by their number, with `+` or a space before them."""
        found: dict[int, str] = {}
        number = old = new = 0
        for line in diff[self.start : self.end].splitlines():
            if (hunk := HUNK.match(line)) is not None:
                old, number, new = int(hunk[1] or 1), int(hunk[2]), int(hunk[3] or 1)
            elif old > 0 or new > 0:
                mark = line[:1] or " "
                old, new = old - (mark in " -"), new - (mark in " +")
                if mark in " +":
                    found[number] = line or " "
                    number += 1
        return found


def changes(diff: str) -> list[Change]:
    """The files of a diff, in its order."""
    found: list[Change] = []
    old = new = at = 0
    before, path, start = "", "", -1
    for line in diff.splitlines(keepends=True):
        if (hunk := HUNK.match(line)) is not None:
            old, new = int(hunk[1] or 1), int(hunk[3] or 1)
        elif old > 0 or new > 0:  # inside a hunk a line that begins with `--- ` is a line that was removed
            old, new = old - (line[:1] in " -\n"), new - (line[:1] in " +\n")
        elif line.startswith("--- "):
            if start >= 0:
                found.append(Change(path=path, start=start, end=at))
                start = -1
            before = _name(line)
        elif line.startswith("+++ "):
            after = _name(line)
            path, start = (before if after == NOWHERE else after), at
        at += len(line)
    if start >= 0:
        found.append(Change(path=path, start=start, end=at))
    return _checked(found)


def _name(line: str) -> str:
    name = line[4:].split("\t", maxsplit=1)[0].strip()
    return name[2:] if name.startswith(("a/", "b/")) else name


def _checked(found: list[Change]) -> list[Change]:
    if not found:
        raise WorkflowFailed("no_files", "No changed files were found. A unified diff names each with --- and +++.")
    if len(found) > FILES_MAX:
        raise WorkflowFailed("too_many_files", f"The diff changes more than {FILES_MAX} files.")
    if len({change.path for change in found}) != len(found):
        raise WorkflowFailed("file_twice", "The diff names a file twice.")
    return found
