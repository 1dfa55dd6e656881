"""The reading of the source tree, once, for every rule that judges it."""

import ast
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GIT_TIMEOUT_S = 30


@dataclass(frozen=True)
class Source:
    """One file: its path inside the tree and what it holds."""

    path: str
    content: bytes = field(repr=False)

    @property
    def room(self) -> str:
        """The top folder, or nothing for a file beside the rooms."""
        return self.path.partition("/")[0] if "/" in self.path else ""

    @property
    def suffix(self) -> str:
        return Path(self.path).suffix

    @property
    def is_text(self) -> bool:
        return b"\0" not in self.content

    @cached_property
    def lines(self) -> list[str]:
        return self.content.decode("utf-8", "replace").split("\n")

    @cached_property
    def parsed(self) -> ast.Module:
        return ast.parse(self.content, self.path)

    def says(self, line: int, what: str, instead: str) -> str:
        """A complaint, in the one form that every rule uses."""
        return f"{self.path}:{line}: {what}; {instead}"


@dataclass(frozen=True)
class Tree:
    """Every file that is in the repository or would be with the next `git add`."""

    sources: tuple[Source, ...]

    @property
    def python(self) -> Iterator[Source]:
        return (source for source in self.sources if source.suffix == ".py")


Rule = Callable[[Tree], list[str]]


def read_tree(root: Path = ROOT) -> Tree:
    """What git lists under the root, tracked or not, without what it ignores and what was deleted."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        timeout=GIT_TIMEOUT_S,
        check=True,
    )
    paths = sorted({name.decode() for name in listed.stdout.split(b"\0") if name})
    files = [(path, root / path) for path in paths]
    return Tree(tuple(Source(path, file.read_bytes()) for path, file in files if file.is_file()))
