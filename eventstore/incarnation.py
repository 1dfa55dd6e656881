"""Whether this database still is the one that was sealed, the gate that is shut when it is not, and going on after it.

A restored backup or a cut table fits itself; only what is kept outside tells. Everything sealed since the backup is
known there, block by block: so it can be said which runs are missing or short, and the log of blocks is continued as
the same tree. What was lost stays lost: an operator says so in a block of its own kind, which every later checkpoint
covers.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from eventstore import blocks, signing
from eventstore.blocks import StoredBlock
from eventstore.checkpoints import CheckpointStore
from eventstore.domain import block, chain, merkle
from eventstore.domain.block import BadBlock, Entry
from eventstore.domain.note import Checkpoint, PublicKey
from eventstore.sql import rows

PAGE: Final = 50
OPERATOR_LEASE_S: Final = 0.0  # held by the row's lock; sealers may lead as soon as it is committed


class NotThisLog(Exception):
    """What is kept outside is not of this log, or not signed by a key that we trust."""


class CannotAcknowledge(Exception):
    """There is nothing that an acknowledgement could put right."""


@dataclass(frozen=True, slots=True)
class Damage:
    """A run that does not hold what was sealed of it: what was, and what is. `seq` 0: nothing of it is left."""

    run_id: UUID
    tenant_id: UUID
    sealed_seq: int
    seq: int
    chain: bytes
    closed: bool

    def __str__(self) -> str:
        if self.seq == 0:
            return f"{self.run_id}: missing, {self.sealed_seq} events were sealed"
        if self.seq < self.sealed_seq:
            return f"{self.run_id}: events {self.seq + 1} to {self.sealed_seq} are missing"
        return f"{self.run_id}: its first {self.sealed_seq} events are not those that were sealed"


@dataclass(frozen=True, slots=True)
class Standing:
    """How the database compares with the last checkpoint outside. `fault` is None when it fits, else `behind` (blocks
    are missing), `differs` (other blocks) or `damaged` (the blocks are there, events are not)."""

    size: int
    outside: Checkpoint | None
    fault: str | None = None
    detail: str = ""
    damaged: Sequence[Damage] = ()
    lost: Sequence[StoredBlock] = field(default=(), repr=False)

    def __str__(self) -> str:
        outside = 0 if self.outside is None else self.outside.size
        said = f"the log of blocks is at {self.size}, the checkpoint outside at {outside}"
        return f"{said}; {self.detail}" if self.detail else said


async def is_shut(connection: AsyncConnection) -> str | None:
    """Why the log takes no events; None when it does. For every process that starts."""
    [(shut, why, _)] = await rows(connection, "gate")
    return (why or "shut") if shut else None


async def log_origin(connection: AsyncConnection, name: str) -> str:
    """The origin of this database's checkpoints."""
    [(log_id,)] = await rows(connection, "log_id")
    return f"{name}/{log_id}"


async def check_incarnation(
    connection: AsyncConnection, store: CheckpointStore, keys: Sequence[PublicKey], origin: str
) -> Standing:
    """Compare the database with what is kept outside. Reads only."""
    size, _ = await blocks.log_size(connection)
    signed = store.latest()
    outside = None if signed is None else signing.open_checkpoint(signed, keys)
    if outside is not None and outside.origin != origin:
        raise NotThisLog(f"the checkpoint outside is of {outside.origin}, this is {origin}")
    standing = Standing(size, outside)
    known = min(size, outside.size if outside else 0)
    try:
        peaks = await blocks.peaks_at(connection, known)
        lost = _lost(store, size, outside.size) if outside else []
    except (LookupError, BadBlock) as fault:
        return replace(standing, fault="differs", detail=str(fault))
    for stored in lost:
        peaks.append(merkle.leaf_hash(stored.header))
    if outside is not None and peaks.root() != outside.root:
        detail = await _first_difference(connection, store, known)
        return replace(standing, fault="differs", detail=detail)
    damaged = await _damaged(connection, lost)
    if lost:
        detail = f"blocks {size + 1} to {lost[-1].block_no} are missing, {len(damaged)} runs are missing or short"
        return replace(standing, fault="behind", detail=detail, damaged=damaged, lost=lost)
    if damaged:
        return replace(
            standing, fault="damaged", detail=f"{len(damaged)} runs do not hold what was sealed", damaged=damaged
        )
    return standing


async def acknowledge(
    connection: AsyncConnection,
    store: CheckpointStore,
    keys: Sequence[PublicKey],
    *,
    origin: str,
    by: str,
    why: str,
) -> Standing:
    """Go on with what is left: take the lost blocks back into the log, add a block that says who acknowledged what,
    and open the gate. One transaction of the caller's, as the owner of the schema. The next checkpoint covers it."""
    await rows(connection, "lead_over", {"owner": f"operator {by}", "lease_s": OPERATOR_LEASE_S})
    standing = await check_incarnation(connection, store, keys, origin)
    if standing.fault == "differs":
        raise CannotAcknowledge(
            f"{standing}. The blocks of this database are not those that were signed: bring the table of blocks back "
            "from the copies outside before anything goes on."
        )
    if standing.fault is None:
        if not (await rows(connection, "open_gate"))[0][0]:
            raise CannotAcknowledge("the database fits what is kept outside and takes events: nothing to acknowledge")
        return standing
    peaks = await blocks.peaks_at(connection, standing.size)
    for stored in standing.lost:
        await _put(connection, peaks, stored)
    [(now_us,)] = await rows(connection, "seal_clock")
    _, last_us = await blocks.log_size(connection)
    statement = _statement(standing, by, why)
    raw = b"".join(
        Entry(each.run_id, each.tenant_id, each.seq, each.chain, each.closed).encode() for each in standing.damaged
    )
    header = block.new_incarnation(peaks.size + 1, max(now_us, last_us), raw, statement).encode()
    firsts = (1).to_bytes(4, "big") * len(standing.damaged)
    await _put(connection, peaks, StoredBlock(peaks.size + 1, header, raw, statement, firsts))
    await rows(connection, "open_gate")
    return standing


def _lost(store: CheckpointStore, size: int, outside: int) -> list[StoredBlock]:
    lost = []
    for block_no in range(size + 1, outside + 1):
        raw = store.block(block_no)
        if raw is None:
            raise LookupError(f"block {block_no} is neither in the database nor outside")
        stored = blocks.from_outside(raw)
        if stored.block_no != block_no:
            raise BadBlock(f"the block outside in place {block_no} is number {stored.block_no}")
        lost.append(stored)
    return lost


async def _damaged(connection: AsyncConnection, lost: Iterable[StoredBlock]) -> list[Damage]:
    damaged: dict[UUID, Damage] = {}
    expected: dict[UUID, Entry] = {}
    for run_id, sealed_seq, _, tenant_id, seq, head, closed in await rows(connection, "damaged_runs"):
        known = Damage(run_id, tenant_id or UUID(int=0), sealed_seq, seq, bytes(head or b""), closed)
        damaged[run_id] = known if tenant_id is not None else await _gone(connection, known)
    for stored in lost:
        for entry in block.decode_entries(stored.entries):
            expected[entry.run_id] = entry
    wanted = list(expected.values())
    for place in range(0, len(wanted), 1_000):
        some = wanted[place : place + 1_000]
        asked = {
            "runs": [entry.run_id for entry in some],
            "seqs": [entry.seq for entry in some],
            "chains": [entry.chain for entry in some],
        }
        for run_id, _, seq, head, closed, holds in await rows(connection, "heads_of", asked):
            entry = expected[run_id]
            if holds or entry.seq == 0:
                damaged.pop(run_id, None)
                continue
            kept = bytes(head) if head is not None else chain.genesis(run_id, entry.tenant_id)
            damaged[run_id] = Damage(run_id, entry.tenant_id, entry.seq, seq, kept, closed)
    return [damaged[run_id] for run_id in sorted(damaged)]


async def _gone(connection: AsyncConnection, damage: Damage) -> Damage:
    """A run without a head: its tenant stands in the block that sealed it."""
    [row] = await rows(connection, "seal_of_run", {"run": damage.run_id})
    entries = block.decode_entries(StoredBlock(*row).entries)
    tenant_id = next(entry.tenant_id for entry in entries if entry.run_id == damage.run_id)
    return replace(damage, tenant_id=tenant_id, chain=chain.genesis(damage.run_id, tenant_id))


async def _first_difference(connection: AsyncConnection, store: CheckpointStore, size: int) -> str:
    after = 0
    while after < size:
        for stored in await blocks.page(connection, after, PAGE):
            outside = store.block(stored.block_no)
            if outside is not None and outside != stored.outside():
                return f"block {stored.block_no} is another one than was published"
            if stored.block_no != after + 1:
                return f"block {after + 1} is not there"
            after = stored.block_no
    return "the root over the blocks is another one than was signed"


async def _put(connection: AsyncConnection, peaks: merkle.Peaks, stored: StoredBlock) -> None:
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


def _statement(standing: Standing, by: str, why: str) -> bytes:
    """The operator's words and what they are about; stored and hashed as these bytes."""
    lost: list[dict[str, Any]] = [
        {"run_id": str(each.run_id), "sealed_seq": each.sealed_seq, "kept_seq": each.seq} for each in standing.damaged
    ]
    told = {
        "by": by,
        "why": why,
        "fault": standing.fault,
        "blocks_before": standing.size,
        "blocks_outside": standing.outside.size if standing.outside else 0,
        "runs": lost,
    }
    return json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode()
