"""The log of blocks as it is stored: reading it in order, the cross-run feed, and proofs from it."""

from collections.abc import Sequence
from dataclasses import dataclass
from struct import iter_unpack
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from eventstore.domain import block, merkle
from eventstore.domain.block import Entry, Header, Kind
from eventstore.domain.merkle import Node, Peaks, Span
from eventstore.sql import rows


@dataclass(frozen=True, slots=True)
class StoredBlock:
    """One block as it lies in the database."""

    block_no: int
    header: bytes
    entries: bytes
    statement: bytes | None
    firsts: bytes

    def decoded(self) -> Header:
        """Its header, or BadBlock."""
        return block.decode_header(self.header)

    def outside(self) -> bytes:
        """The bytes that are kept outside the database."""
        return self.header + self.entries + (self.statement or b"")

    def first_seqs(self) -> list[int]:
        """Per entry, the first seq that is new in this block."""
        return [first for (first,) in iter_unpack(">i", self.firsts)]


@dataclass(frozen=True, slots=True)
class Range:
    """Events of one run: from `first_seq` to `last_seq`, none of them in an earlier range of the feed, unless `again`:
    then the run's events before are void and it is to be read from the start."""

    run_id: UUID
    tenant_id: UUID
    first_seq: int
    last_seq: int
    chain: bytes
    closed: bool
    again: bool


@dataclass(frozen=True, slots=True)
class Step:
    """One block of the feed."""

    block_no: int
    sealed_us: int
    ranges: tuple[Range, ...]


@dataclass(frozen=True, slots=True)
class RunSeal:
    """What shows that a run is in the log as it was sealed: its entry, its way to the block's root, the block's header,
    and that header's way to the root of the log at `size`."""

    entry: Entry
    index: int
    path: list[bytes]
    header: bytes
    size: int
    log_path: list[bytes]


def from_outside(raw: bytes) -> StoredBlock:
    """A block from the bytes that are kept outside, or BadBlock. Its `firsts` are not kept there."""
    if not raw or raw[0] not in (Kind.BLOCK, Kind.INCARNATION):
        raise block.BadBlock("not a block of this format")
    width = len(Header(Kind(raw[0]), 1, 0, 0, bytes(32), bytes(32) if raw[0] == Kind.INCARNATION else None).encode())
    header = block.decode_header(raw[:width])
    entries = raw[width : width + header.count * block.ENTRY_BYTES]
    statement = raw[width + len(entries) :]
    found = StoredBlock(header.block_no, raw[:width], entries, statement or None, b"")
    if (fault := block.fault_of(header, entries, found.statement)) is not None:
        raise block.BadBlock(fault)
    return found


def in_place(block_no: int, raw: bytes) -> StoredBlock:
    """The same, of a block that is kept outside under this number."""
    stored = from_outside(raw)
    if stored.block_no != block_no:
        raise block.BadBlock(f"the block outside in place {block_no} is number {stored.block_no}")
    return stored


async def page(connection: AsyncConnection, after: int, limit: int) -> list[StoredBlock]:
    """The next blocks as they are stored."""
    found = await rows(connection, "blocks_after", {"after": after, "limit": limit})
    return [StoredBlock(*row) for row in found]


async def blocks_after(connection: AsyncConnection, after: int, limit: int) -> list[Step]:
    """The feed over all runs: the steps after number `after`. Numbers have no gaps and steps come in the order in which
    they were committed, so a reader that goes on from the last number it has seen gets every event once."""
    steps = []
    for stored in await page(connection, after, limit):
        header = stored.decoded()
        again = header.kind is Kind.INCARNATION
        entries = zip(block.decode_entries(stored.entries), stored.first_seqs(), strict=True)
        ranges = tuple(
            Range(entry.run_id, entry.tenant_id, first, entry.seq, entry.chain, entry.closed, again)
            for entry, first in entries
        )
        steps.append(Step(stored.block_no, header.sealed_us, ranges))
    return steps


async def log_size(connection: AsyncConnection) -> tuple[int, int]:
    """How many blocks there are, and when the last one was sealed."""
    found = await rows(connection, "log_size")
    return (int(found[0][0]), block.decode_header(found[0][1]).sealed_us) if found else (0, 0)


async def peaks_at(connection: AsyncConnection, size: int) -> Peaks:
    """The tree at this size, from the stored nodes; LookupError when they are not all there."""
    wanted = merkle.perfect_nodes((0, size))
    nodes = await _nodes(connection, wanted)
    return Peaks(size, [nodes[node] for node in wanted])


async def inclusion_proof(connection: AsyncConnection, block_no: int, size: int) -> list[bytes]:
    """The way from a block's header to the root of the log at `size`."""
    return await _proof(connection, merkle.inclusion_spans(block_no - 1, size))


async def consistency_proof(connection: AsyncConnection, old: int, new: int) -> list[bytes]:
    """What shows that the log at size `new` begins with that at size `old`."""
    return await _proof(connection, merkle.consistency_spans(old, new))


async def seal_of_run(connection: AsyncConnection, run_id: UUID, size: int) -> RunSeal | None:
    """The evidence of where a run stood when it was sealed last; None when no block of the first `size` names it."""
    found = await rows(connection, "seal_of_run", {"run": run_id})
    if not found or found[0][0] > size:
        return None
    stored = StoredBlock(*found[0])
    entries = list(block.decode_entries(stored.entries))
    index = next(place for place, entry in enumerate(entries) if entry.run_id == run_id)
    leaves = [merkle.leaf_hash(entry.encode()) for entry in entries]
    spans = merkle.inclusion_spans(index, len(leaves))
    path = [merkle.tree_root(leaves[first:end]) for first, end in spans]
    log_path = await inclusion_proof(connection, stored.block_no, size)
    return RunSeal(entries[index], index, path, stored.header, size, log_path)


async def _proof(connection: AsyncConnection, spans: Sequence[Span]) -> list[bytes]:
    nodes = await _nodes(connection, [node for span in spans for node in merkle.perfect_nodes(span)])
    return merkle.proof(spans, nodes.__getitem__)


async def _nodes(connection: AsyncConnection, wanted: Sequence[Node]) -> dict[Node, bytes]:
    asked = {"levels": [level for level, _ in wanted], "indexes": [index for _, index in wanted]}
    found = await rows(connection, "block_nodes", asked) if wanted else []
    nodes = {(level, index): bytes(raw) for level, index, raw in found if len(raw) == 32}
    if missing := [node for node in wanted if node not in nodes]:
        raise LookupError(f"{len(missing)} nodes of the tree are not there")
    return nodes
