"""Blocks: where runs stood when they were sealed, as the exact bytes that the log of blocks hashes.

A block lists the runs that moved since the block before it, in the order of their ids. An incarnation is a block of
another kind: it lists the runs whose sealed events the database no longer holds, at the place where they go on, with
an operator's statement. The header of either is one leaf of the log.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256
from itertools import pairwise
from typing import Final
from uuid import UUID

from eventstore.domain import merkle
from eventstore.domain.chain import FORMAT

_ENTRY: Final = struct.Struct(">16s16si32sB")
_HEADER: Final = struct.Struct(">B9sqqi32s")
ENTRY_BYTES: Final = _ENTRY.size


class Kind(IntEnum):
    """What a leaf of the log is; the first byte of its header."""

    BLOCK = 3
    INCARNATION = 4


class BadBlock(ValueError):
    """These bytes are no block."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Where one run stood: its last event and the chain up to it."""

    run_id: UUID
    tenant_id: UUID
    seq: int
    chain: bytes
    closed: bool

    def encode(self) -> bytes:
        """The bytes of the entry."""
        return _ENTRY.pack(self.run_id.bytes, self.tenant_id.bytes, self.seq, self.chain, self.closed)


@dataclass(frozen=True, slots=True)
class Header:
    """One leaf of the log. An incarnation also names its statement."""

    kind: Kind
    block_no: int
    sealed_us: int
    count: int
    root: bytes
    statement: bytes | None = None  # its digest

    def encode(self) -> bytes:
        """The bytes that the log hashes."""
        fixed = _HEADER.pack(self.kind, FORMAT, self.block_no, self.sealed_us, self.count, self.root)
        return fixed + (self.statement or b"")


def decode_header(raw: bytes) -> Header:
    """A header, or BadBlock: nothing but the bytes of one is accepted."""
    try:
        kind_no, name, block_no, sealed_us, count, root = _HEADER.unpack(raw[: _HEADER.size])
        kind = Kind(kind_no)
    except (struct.error, ValueError) as fault:
        raise BadBlock("not a header of this format") from fault
    rest = raw[_HEADER.size :]
    if name != FORMAT or block_no < 1 or count < 0 or len(rest) != (32 if kind is Kind.INCARNATION else 0):
        raise BadBlock("not a header of this format")
    return Header(kind, block_no, sealed_us, count, root, rest or None)


def decode_entries(raw: bytes) -> Iterator[Entry]:
    """The entries in these bytes."""
    if len(raw) % ENTRY_BYTES:
        raise BadBlock("these are no whole entries")
    for run_id, tenant_id, seq, chain, closed in _ENTRY.iter_unpack(raw):
        if closed > 1 or seq < 0:
            raise BadBlock("a value of an entry does not fit the format")
        yield Entry(UUID(bytes=run_id), UUID(bytes=tenant_id), seq, chain, bool(closed))


def entries_root(raw: bytes) -> bytes:
    """The Merkle root over the entries in these bytes."""
    return merkle.tree_root(
        merkle.leaf_hash(raw[place : place + ENTRY_BYTES]) for place in range(0, len(raw), ENTRY_BYTES)
    )


def new_block(block_no: int, sealed_us: int, entries: bytes) -> Header:
    """The header of a block over these entries, which are in order."""
    return Header(Kind.BLOCK, block_no, sealed_us, len(entries) // ENTRY_BYTES, entries_root(entries))


def new_incarnation(block_no: int, sealed_us: int, entries: bytes, statement: bytes) -> Header:
    """The header of an incarnation."""
    count, digest = len(entries) // ENTRY_BYTES, sha256(statement).digest()
    return Header(Kind.INCARNATION, block_no, sealed_us, count, entries_root(entries), digest)


def fault_of(header: Header, entries: bytes, statement: bytes | None) -> str | None:
    """What does not fit between a header and what it stands for; None when all does."""
    if len(entries) != header.count * ENTRY_BYTES:
        return f"the header counts {header.count} entries, {len(entries) / ENTRY_BYTES:g} are there"
    if entries_root(entries) != header.root:
        return "the entries are not those that the header was made of"
    if header.statement != (None if statement is None else sha256(statement).digest()):
        return "the statement is not the one that the header was made of"
    ids = [entries[place : place + 16] for place in range(0, len(entries), ENTRY_BYTES)]
    if any(first >= second for first, second in pairwise(ids)):
        return "the entries are not in the order of their runs"
    return None
