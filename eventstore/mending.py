"""Makes the log of blocks again the one that was signed, block by block from the copies outside.

Blocks in the database that are others than those that were published cannot be signed on: every later checkpoint has
to begin with the older ones. So they are set aside, kept as they were found, and the published ones take their place.
Where a copy outside is missing the database's own block is tried. The root that was signed decides whether it is whole.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from eventstore import blocks
from eventstore.blocks import StoredBlock
from eventstore.checkpoints import CheckpointStore
from eventstore.domain import block, merkle
from eventstore.domain.block import BadBlock
from eventstore.domain.note import Checkpoint
from eventstore.sql import rows

PAGE: Final = 50


class CannotAcknowledge(Exception):
    """There is nothing that an acknowledgement could put right."""


@dataclass(frozen=True, slots=True)
class SetAside:
    """The blocks that were not those that were signed: from which number on, how many, and what names them."""

    first: int
    count: int
    headers: bytes


async def mend(connection: AsyncConnection, store: CheckpointStore, outside: Checkpoint | None) -> SetAside:
    """Put the published blocks in their places. LookupError or BadBlock when they do not come to the signed root."""
    reach = 0 if outside is None else outside.size
    peaks, first = merkle.Peaks(), 0
    async for wanted, own in _wanted(connection, store, reach):
        if not first and (own is None or own.outside() != wanted.outside()):
            first = wanted.block_no
        peaks.append(merkle.leaf_hash(wanted.header))
        if outside is not None and peaks.size == reach and peaks.root() != outside.root:
            raise LookupError(f"the first {reach} blocks are not those that were signed")
    size = peaks.size
    first = first or 1  # every block is right: what is derived from them is not
    [(count, headers)] = await rows(connection, "set_blocks_aside", {"from": first})
    peaks = await blocks.peaks_at(connection, first - 1) if first > 1 else merkle.Peaks()
    for block_no in range(first, size + 1):
        raw = await asyncio.to_thread(store.block, block_no)
        if raw is not None:
            await put(connection, peaks, blocks.in_place(block_no, raw))
        else:
            [row] = await rows(connection, "block_aside", {"no": block_no})
            await put(connection, peaks, StoredBlock(*row))
    return SetAside(first, count, bytes(headers))


async def first_unfit(connection: AsyncConnection, outside: Checkpoint | None) -> str | None:
    """What a start does not look for: whether every block fits itself and the signed root, not only the tree's peaks.
    Reads the log of blocks whole, and nothing outside."""
    peaks = merkle.Peaks()
    while some := await blocks.page(connection, peaks.size, PAGE):
        for stored in some:
            number = peaks.size + 1
            try:
                fault = block.fault_of(stored.decoded(), stored.entries, stored.statement)
            except BadBlock as bad:
                fault = str(bad)
            if fault is not None or stored.block_no != number:
                return f"block {number}: {fault or 'is not there'}"
            peaks.append(merkle.leaf_hash(stored.header))
            if outside is not None and peaks.size == outside.size and peaks.root() != outside.root:
                return f"the first {peaks.size} blocks are not those that were signed"
    return None


async def _wanted(
    connection: AsyncConnection, store: CheckpointStore, reach: int
) -> AsyncIterator[tuple[StoredBlock, StoredBlock | None]]:
    """The log as it was published, in order, each block with what the database has in its place: what is outside, and
    while that is not all that was signed, the database's own."""
    own: dict[int, StoredBlock] = {}
    block_no = 0
    while True:
        block_no += 1
        if block_no not in own:
            own = {stored.block_no: stored for stored in await blocks.page(connection, block_no - 1, PAGE)}
        mine = own.get(block_no)
        raw = await asyncio.to_thread(store.block, block_no)
        if raw is not None:
            yield blocks.in_place(block_no, raw), mine
        elif block_no > reach:
            return
        elif mine is None or block.fault_of(mine.decoded(), mine.entries, mine.statement) is not None:
            raise LookupError(f"block {block_no} is not outside, and the database has none that fits")
        else:
            yield mine, mine


async def put(connection: AsyncConnection, peaks: merkle.Peaks, stored: StoredBlock) -> None:
    """Add a block as it stands, whoever leads; for an operator."""
    firsts = stored.firsts
    if not firsts:
        entries = list(block.decode_entries(stored.entries))
        sealed = await rows(connection, "sealed_of", {"runs": [entry.run_id for entry in entries]})
        before: dict[UUID, int] = dict(map(tuple, sealed))
        again = stored.decoded().kind is block.Kind.INCARNATION
        seqs = [1 if again else before.get(entry.run_id, 0) + 1 for entry in entries]
        firsts = b"".join(seq.to_bytes(4, "big") for seq in seqs)
    answer = await rows(
        connection,
        "put_block",
        {
            "no": stored.block_no,
            "header": stored.header,
            "entries": stored.entries,
            "statement": stored.statement,
            "firsts": firsts,
            "nodes": b"".join(peaks.append(merkle.leaf_hash(stored.header))),
        },
    )
    if answer[0][0] != "ok":
        raise CannotAcknowledge(f"block {stored.block_no} could not be stored: {answer[0][0]}")
