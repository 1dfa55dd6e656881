"""Where checkpoints and blocks are kept outside the database: each written once, none ever replaced by another.

The copy is what makes a rolled-back or rewritten database visible, so it belongs where the database's administrators
cannot write. This is the form of it in a folder, and of several places at once; bucket.py is the form in a bucket.
"""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol, TypeVar

import structlog

NOTE_BYTES_MAX: Final = 65_536
NAME_DIGITS: Final = 15  # names sort as their numbers do

logger = structlog.get_logger(__name__)

T = TypeVar("T")


class Forked(Exception):
    """Something else is kept there already: two histories of one log."""


class OutsideAway(OSError):
    """A place outside does not answer; the same again may work later."""


class OutsideRefuses(OSError):
    """A place outside answers and says no: wrong credentials, no such bucket, no object lock. Somebody must act."""


class CheckpointStore(Protocol):
    """What the sealer needs of a place outside the database. A size is that of the log that was signed. Every operation
    raises OSError when the place is away or refuses."""

    @property
    def away(self) -> tuple[str, ...]:
        """The places that did not answer when `latest` was asked last, although others did."""

    def check(self) -> None:
        """Whether checkpoints can be kept there as the settings say; OutsideRefuses when not."""

    def latest(self) -> str | None:
        """The largest checkpoint's note."""

    def whole_to(self) -> int:
        """Up to this block everything is kept there; the blocks after it are still to be kept."""

    def checkpoint(self, size: int) -> str | None:
        """The note for this size."""

    def sizes(self) -> Iterator[int]:
        """The sizes that notes are kept for, smallest first."""

    def notes(self) -> Iterator[str]:
        """Every note that is kept, each once."""

    def block(self, block_no: int) -> bytes | None:
        """A block's bytes."""

    def keep_blocks(self, blocks: Mapping[int, bytes]) -> None:
        """Keep these blocks so that they outlive a power cut. The same again changes nothing; anything else in a place
        that is taken raises Forked."""

    def publish(self, size: int, note: str) -> None:
        """Keep the note, after its blocks, under the same conditions. A smaller size never becomes the latest."""


def size_of(note: str | None) -> int | None:
    """The size that a note says it is for, unchecked: 0 for no note, None for what is no note."""
    if note is None:
        return 0
    with suppress(ValueError, IndexError):
        return int(note.split("\n", 2)[1])
    return None


class Directory:
    """A folder: `checkpoints/` and `blocks/`, a thousand files to a folder, and `latest`."""

    away: tuple[str, ...] = ()

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def check(self) -> None:
        """Nothing to ask of a folder: it is made when the first block comes."""

    def whole_to(self) -> int:
        """The size of the latest note: its blocks were there before it."""
        return size_of(self.latest()) or 0

    def notes(self) -> Iterator[str]:
        """Every note that is kept."""
        for size in self.sizes():
            if (note := self.checkpoint(size)) is not None:
                yield note

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
        digits = f"{number:0{NAME_DIGITS}d}"
        return self._folder / kind / digits[:-3] / digits

    def _folders(self, kind: str) -> list[Path]:
        with suppress(FileNotFoundError):
            return [folder for folder in (self._folder / kind).iterdir() if folder.name.isdigit()]
        return []


class Several:
    """More than one place, each complete for itself. What is read is what the furthest of them says; what is kept is
    kept in all of them, so a place that is away leaves blocks unsigned and catches up when it is back."""

    def __init__(self, places: Mapping[str, CheckpointStore]) -> None:
        self._places = dict(places)
        self._away: tuple[str, ...] = ()

    @property
    def away(self) -> tuple[str, ...]:
        """The places that did not answer when `latest` was asked last."""
        return self._away

    def check(self) -> None:
        """Asks every place, so that one that is away hides nothing that another has to say."""
        self._in_all(lambda place: place.check())

    def latest(self) -> str | None:
        """The furthest note of the places that answer; OSError when none does."""
        furthest: str | None = None
        self._away, faults = (), list[OSError]()
        for name, place in self._places.items():
            try:
                note = place.latest()
            except OSError as fault:
                faults.append(fault)
                self._away += (name,)
                continue
            mine, best = size_of(note), size_of(furthest)
            if mine is None or (best is not None and mine > best):  # what is no note must be looked at, not passed over
                furthest = note
        if len(faults) == len(self._places):
            raise faults[0]
        for told in faults:
            logger.warning("a place of checkpoints is away: compared with the others only", fault=str(told))
        return furthest

    def whole_to(self) -> int:
        """What all places have."""
        return min(place.whole_to() for place in self._places.values())

    def checkpoint(self, size: int) -> str | None:
        """The note for this size, from the first place that has one."""
        return self._first(lambda place: place.checkpoint(size))

    def sizes(self) -> Iterator[int]:
        """The sizes that any place keeps a note for."""
        yield from sorted({size for place in self._places.values() for size in place.sizes()})

    def notes(self) -> Iterator[str]:
        """Every note of every place: where two places disagree, both."""
        seen: set[str] = set()
        for place in self._places.values():
            for note in place.notes():
                if note not in seen:
                    seen.add(note)
                    yield note

    def block(self, block_no: int) -> bytes | None:
        """A block's bytes, from the first place that has it."""
        return self._first(lambda place: place.block(block_no))

    def keep_blocks(self, blocks: Mapping[int, bytes]) -> None:
        """Keep these blocks in all places."""
        self._in_all(lambda place: place.keep_blocks(blocks))

    def publish(self, size: int, note: str) -> None:
        """Keep the note in all places."""
        self._in_all(lambda place: place.publish(size, note))

    def _first(self, ask: Callable[[CheckpointStore], T | None]) -> T | None:
        """A place that `latest` found away is not asked. OSError when another does not answer and none has it."""
        away: OSError | None = None
        for name, place in self._places.items():
            if name in self._away:
                continue
            try:
                if (found := ask(place)) is not None:
                    return found
            except OSError as fault:
                away = fault
        if away is not None:
            raise away
        return None

    def _in_all(self, do: Callable[[CheckpointStore], object]) -> None:
        faults: list[OSError] = []
        for place in self._places.values():
            try:
                do(place)
            except OSError as fault:
                faults.append(fault)
        if faults:
            raise next((fault for fault in faults if isinstance(fault, OutsideRefuses)), faults[0])


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
