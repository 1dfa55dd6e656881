"""What writers and readers noted outside the database: one append-only file per process, and the index over them.

A record is one write(2): a stretch of events of one run, 16 bytes of digest each. That is enough here: only processes
are killed, not the machine, and what write(2) took the kernel keeps, whoever dies. A kill in the middle of a write can
leave a torn record at the end of a file; then its writer had not gone on yet, and nothing was promised.
"""

import mmap
import os
import struct
from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from hashlib import sha256
from pathlib import Path
from typing import Final
from uuid import UUID

DIGEST_BYTES: Final = 16
SUFFIX: Final = ".journal"
_HEAD: Final = struct.Struct(">B16siiI")  # kind, run, epoch, first seq, how many digests follow
_OFFSET_BITS: Final = 40


class Kind(IntEnum):
    """What a stretch says of its events."""

    SUBMITTED = 1  # may be in the log from now on, under a seq that nobody knows yet
    ACKED = 2  # the log said that they are stored, the first one under this seq
    SEEN = 3  # a reader was given them, in this order


@dataclass(frozen=True, slots=True)
class Stretch:
    """Events of one run that follow each other, by their digests."""

    epoch: int
    first: int
    digests: bytes

    def __len__(self) -> int:
        return len(self.digests) // DIGEST_BYTES

    def each(self) -> Iterator[tuple[int, bytes]]:
        """(seq, digest) of each."""
        for place in range(len(self)):
            yield self.first + place, self.digests[place * DIGEST_BYTES : (place + 1) * DIGEST_BYTES]


@dataclass(frozen=True, slots=True)
class Told:
    """All that was noted of one run."""

    submitted: set[tuple[int, bytes]] = field(default_factory=set)
    acked: list[Stretch] = field(default_factory=list)
    seen: Mapping[str, list[Stretch]] = field(default_factory=dict)


def digest(body: bytes) -> bytes:
    """What stands for a body in a journal; every body of a fault run is unlike all others."""
    return sha256(body).digest()[:DIGEST_BYTES]


def stretches(events: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, list[bytes]]]:
    """(first seq, digests) of each part of these events that is without a gap, in the order given."""
    first, digests = 0, list[bytes]()
    for seq, one in events:
        if digests and seq != first + len(digests):
            yield first, digests
            digests = []
        if not digests:
            first = seq
        digests.append(one)
    if digests:
        yield first, digests


class Journal:
    """One process's own file."""

    def __init__(self, folder: Path, name: str) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        self._file = os.open(folder / (name + SUFFIX), flags, 0o600)

    def note(self, kind: Kind, run_id: UUID, epoch: int, first: int, digests: Sequence[bytes]) -> None:
        """Keep this, whatever becomes of the process."""
        raw = _HEAD.pack(kind, run_id.bytes, epoch, first, len(digests)) + b"".join(digests)
        if os.write(self._file, raw) != len(raw):
            raise OSError("the journal took only a part of a record")

    def close(self) -> None:
        os.close(self._file)


class Ledger:
    """All journals of a folder, found by run. Holds a number per record; the records stay in their files."""

    def __init__(self, folder: Path) -> None:
        self._names: list[str] = []
        self._maps: list[mmap.mmap] = []
        self._places: dict[bytes, array[int]] = {}
        for path in sorted(folder.glob("*" + SUFFIX)):
            if path.stat().st_size:
                with path.open("rb") as file:
                    self._add(path.stem, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

    def _add(self, name: str, content: mmap.mmap) -> None:
        number, offset, end = len(self._maps), 0, len(content)
        self._names.append(name)
        self._maps.append(content)
        while offset + _HEAD.size <= end:
            _, run, _, _, count = _HEAD.unpack_from(content, offset)
            after = offset + _HEAD.size + count * DIGEST_BYTES
            if after > end:
                break  # torn by a kill
            self._places.setdefault(run, array("Q")).append(number << _OFFSET_BITS | offset)
            offset = after

    @property
    def runs(self) -> Collection[UUID]:
        return [UUID(bytes=run) for run in self._places]

    def of(self, run_id: UUID) -> Told:
        """What was noted of this run, each file in its own order."""
        submitted: set[tuple[int, bytes]] = set()
        acked: list[Stretch] = []
        seen: dict[str, list[Stretch]] = {}
        for place in self._places.get(run_id.bytes, ()):
            number, offset = place >> _OFFSET_BITS, place & ((1 << _OFFSET_BITS) - 1)
            content = self._maps[number]
            kind, _, epoch, first, count = _HEAD.unpack_from(content, offset)
            start = offset + _HEAD.size
            stretch = Stretch(epoch, first, content[start : start + count * DIGEST_BYTES])
            if kind == Kind.SUBMITTED:
                submitted.update((epoch, one) for _, one in stretch.each())
            elif kind == Kind.ACKED:
                acked.append(stretch)
            else:
                seen.setdefault(self._names[number], []).append(stretch)
        return Told(submitted, acked, seen)

    def close(self) -> None:
        for content in self._maps:
            content.close()
