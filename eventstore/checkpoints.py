"""Where checkpoints and blocks are kept outside the database: each written once, none ever replaced by another.

The copy is what makes a rolled-back or rewritten database visible, so it belongs where the database's administrators
cannot write. This is the form of it in a folder; a bucket with object lock has the same six operations.
"""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

NOTE_BYTES_MAX: Final = 65_536


class Forked(Exception):
    """Something else is kept there already: two histories of one log."""


class CheckpointStore(Protocol):
    """What the sealer needs of a place outside the database. A size is that of the log that was signed."""

    def latest(self) -> str | None:
        """The largest checkpoint's note."""

    def checkpoint(self, size: int) -> str | None:
        """The note for this size."""

    def sizes(self) -> Iterator[int]:
        """The sizes that notes are kept for, smallest first."""

    def block(self, block_no: int) -> bytes | None:
        """A block's bytes."""

    def keep_blocks(self, blocks: Mapping[int, bytes]) -> None:
        """Keep these blocks so that they outlive a power cut. The same again changes nothing; anything else in a place
        that is taken raises Forked. OSError when the place is away."""

    def publish(self, size: int, note: str) -> None:
        """Keep the note, after its blocks, under the same conditions. A smaller size never becomes the latest."""


class Directory:
    """A folder: `checkpoints/` and `blocks/`, a thousand files to a folder, and `latest`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def latest(self) -> str | None:
        """The largest checkpoint's note. `latest` only helps to find it: a file that is there counts."""
        pointed, best = self._latest_size(), -1
        for folder in sorted(self._folders("checkpoints"), reverse=True)[:1]:
            best = max(_numbers(folder), default=-1)
        if pointed is not None and pointed > best:  # somebody took the file away: what it said still counts
            return (self._folder / "latest").read_text(encoding="utf-8")
        return self.checkpoint(best) if best >= 0 else None

    def checkpoint(self, size: int) -> str | None:
        """The note for this size."""
        raw = _read(self._place("checkpoints", size))
        return None if raw is None else raw[:NOTE_BYTES_MAX].decode("utf-8", "replace")

    def sizes(self) -> Iterator[int]:
        """The sizes that notes are kept for, smallest first."""
        for folder in sorted(self._folders("checkpoints")):
            yield from sorted(_numbers(folder))

    def block(self, block_no: int) -> bytes | None:
        """A block's bytes."""
        return _read(self._place("blocks", block_no))

    def keep_blocks(self, blocks: Mapping[int, bytes]) -> None:
        """Keep these blocks."""
        changed: set[Path] = set()
        for block_no, raw in blocks.items():
            changed |= self._keep(self._place("blocks", block_no), raw)
        _sync(changed)

    def publish(self, size: int, note: str) -> None:
        """Keep the note, then say that it is the latest."""
        _sync(self._keep(self._place("checkpoints", size), note.encode()))
        if (last := self._latest_size()) is None or last < size:
            self._point(note)

    def _latest_size(self) -> int | None:
        with suppress(FileNotFoundError, ValueError, IndexError):
            return int((self._folder / "latest").read_text(encoding="utf-8").split("\n")[1])
        return None

    def _keep(self, place: Path, raw: bytes) -> set[Path]:
        """Write a file once. Answers the folders that must be made to last."""
        made = [folder for folder in place.parents if not folder.exists()]
        place.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        half = _write_aside(place.parent, raw)
        try:
            os.link(half, place)  # fails when the place is taken, as a rename would not
        except FileExistsError:
            if _read(place) != raw:
                raise Forked(f"{place} holds something else") from None
            return set()
        finally:
            half.unlink()
        return {place.parent, *(folder.parent for folder in made)}

    def _point(self, note: str) -> None:
        half = _write_aside(self._folder, note.encode())
        half.replace(self._folder / "latest")
        _sync({self._folder})

    def _place(self, kind: str, number: int) -> Path:
        digits = f"{number:015d}"
        return self._folder / kind / digits[:-3] / digits

    def _folders(self, kind: str) -> list[Path]:
        with suppress(FileNotFoundError):
            return [folder for folder in (self._folder / kind).iterdir() if folder.name.isdigit()]
        return []


def _numbers(folder: Path) -> list[int]:
    return [int(file.name) for file in folder.iterdir() if file.name.isdigit()]


def _read(place: Path) -> bytes | None:
    with suppress(FileNotFoundError, NotADirectoryError):
        return place.read_bytes()
    return None


def _write_aside(folder: Path, raw: bytes) -> Path:
    handle, half = tempfile.mkstemp(dir=folder, prefix=".half-")
    with os.fdopen(handle, "wb") as out:
        os.fchmod(handle, 0o644)
        out.write(raw)
        out.flush()
        os.fsync(handle)
    return Path(half)


def _sync(folders: set[Path]) -> None:
    for folder in sorted(folders):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
