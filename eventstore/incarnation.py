"""Whether this database still is the one that was sealed, the gate that is shut when it is not, and going on after it.

A restored backup or a cut table fits itself; only what is kept outside tells. Everything sealed since the backup is
known there, block by block: so it can be said which runs are missing or short, and the log of blocks is continued as
the same tree. What was lost stays lost: an operator says so in a block of its own kind, which every later checkpoint
covers.

What is kept outside can be lost too, and an emptied folder beside a restored database would look like a first start.
The database keeps each checkpoint that it published; when the outside ends before those, that is a fault of its own
(`withdrawn`), and it takes an operator's word to go on without the witness.
"""

import asyncio
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from eventstore import blocks, signing
from eventstore.blocks import StoredBlock
from eventstore.checkpoints import CheckpointStore, OutsideAway
from eventstore.domain import block, chain, merkle
from eventstore.domain.block import BadBlock, Entry
from eventstore.domain.note import Checkpoint, PublicKey
from eventstore.mending import CannotAcknowledge, SetAside, first_unfit, mend, put
from eventstore.sql import rows

PAGE: Final = 50
WITHDRAWN: Final = b'"fault":"withdrawn"'
OPERATOR_LEASE_S: Final = 0.0  # held by the row's lock; sealers may lead as soon as it is committed


class NotThisLog(Exception):
    """What is kept outside is not of this log, or not signed by a key that we trust."""


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
    are missing), `differs` (other blocks), `withdrawn` (checkpoints that were published are not outside any more) or
    `damaged` (the blocks are there, events are not)."""

    size: int
    outside: Checkpoint | None
    fault: str | None = None
    detail: str = ""
    damaged: Sequence[Damage] = ()
    lost: Sequence[StoredBlock] = field(default=(), repr=False)
    aside: SetAside | None = None  # once acknowledged: the blocks that were not those that were signed

    def __str__(self) -> str:
        outside = 0 if self.outside is None else self.outside.size
        said = f"the log of blocks is at {self.size}, the checkpoint outside at {outside}"
        return f"{said}; {self.detail}" if self.detail else said


@dataclass(frozen=True, slots=True)
class SealState:
    """How far the log is sealed and signed, for whoever watches. Blocks stay unsigned while a place outside is away."""

    blocks: int
    signed: int
    signed_at: datetime | None
    shut: bool
    why: str | None


async def seal_state(connection: AsyncConnection) -> SealState:
    """A look of two index reads that any process may take."""
    [row] = await rows(connection, "seal_state")
    return SealState(*row)


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
    """Compare the database with what is kept outside. Reads only, and not in one snapshot: a leader may be at work. A
    block is first in the database, then outside; a checkpoint is first outside, then in the database. Asked the other
    way round, what comes in between is no fault."""
    published = await rows(connection, "last_checkpoint")
    signed = await asyncio.to_thread(store.latest)
    size, _ = await blocks.log_size(connection)
    outside = None if signed is None else signing.open_checkpoint(signed, keys)
    if outside is not None and outside.origin != origin:
        raise NotThisLog(f"the checkpoint outside is of {outside.origin}, this is {origin}")
    standing, reach = Standing(size, outside), outside.size if outside else 0
    try:
        while (lost := await _lost(store, size, reach)) and (now := (await blocks.log_size(connection))[0]) != size:
            size, standing = now, replace(standing, size=now)
        peaks = await blocks.peaks_at(connection, min(size, reach))
    except (LookupError, BadBlock) as fault:
        return replace(standing, fault="differs", detail=str(fault))
    for stored in lost[: max(0, reach - size)]:
        peaks.append(merkle.leaf_hash(stored.header))
    if outside is not None and peaks.root() != outside.root:
        detail = await _first_difference(connection, store, min(size, reach))
        return replace(standing, fault="differs", detail=detail)
    if (other := await _unsigned_difference(connection, store, reach, size)) is not None:
        return replace(standing, fault="differs", detail=other)
    damaged = await _damaged(connection, lost)
    if (gone := await _withdrawn(connection, store, published, reach)) is not None:
        return replace(standing, fault="withdrawn", detail=gone, damaged=damaged, lost=lost)
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
    await rows(connection, "seal_durably")
    await rows(connection, "lead_over", {"owner": f"operator {by}", "lease_s": OPERATOR_LEASE_S})
    standing = await check_incarnation(connection, store, keys, origin)
    if standing.fault is None and (detail := await first_unfit(connection, standing.outside)) is not None:
        standing = replace(standing, fault="differs", detail=detail)
    if standing.fault is None:
        if not (await rows(connection, "open_gate"))[0][0]:
            raise CannotAcknowledge("the database fits what is kept outside and takes events: nothing to acknowledge")
        return standing
    if standing.fault == "differs":
        standing = await _mended(connection, store, standing)
    size, last_us = await blocks.log_size(connection)
    peaks = await blocks.peaks_at(connection, size)
    for stored in standing.lost:
        await put(connection, peaks, stored)
    [(now_us,)] = await rows(connection, "seal_clock")
    if standing.lost:
        _, last_us = await blocks.log_size(connection)
    statement = _statement(standing, by, why)
    raw = b"".join(
        Entry(each.run_id, each.tenant_id, each.seq, each.chain, each.closed).encode() for each in standing.damaged
    )
    header = block.new_incarnation(peaks.size + 1, max(now_us, last_us), raw, statement).encode()
    firsts = (1).to_bytes(4, "big") * len(standing.damaged)
    await put(connection, peaks, StoredBlock(peaks.size + 1, header, raw, statement, firsts))
    await rows(connection, "wake_heads")
    await rows(connection, "open_gate")
    return standing


async def _mended(connection: AsyncConnection, store: CheckpointStore, standing: Standing) -> Standing:
    """The blocks of the log are again those that were signed; what else then is not as it was sealed."""
    try:
        aside = await mend(connection, store, standing.outside)
    except (LookupError, BadBlock) as fault:
        raise CannotAcknowledge(
            f"{standing}. The log cannot be made whole from what is kept outside: {fault}. Bring that copy back to "
            "where checkpoints are kept, then acknowledge again."
        ) from fault
    reach = standing.outside.size if standing.outside else 0
    published = await rows(connection, "last_checkpoint")
    if (detail := await _withdrawn(connection, store, published, reach)) is not None:
        raise CannotAcknowledge(f"{standing}. And {detail}: bring them back first, or both cannot be told apart.")
    return replace(standing, damaged=await _damaged(connection, ()), aside=aside)


async def _lost(store: CheckpointStore, size: int, reach: int) -> list[StoredBlock]:
    """The blocks after the database's last one: all that were signed, and what was copied outside after those."""
    lost = []
    block_no = size
    while (raw := await asyncio.to_thread(store.block, block_no := block_no + 1)) is not None or block_no <= reach:
        if raw is None:
            if store.away:
                raise OutsideAway(f"{', '.join(store.away)}: away, and the others do not have block {block_no}")
            raise LookupError(f"block {block_no} is neither in the database nor outside")
        lost.append(blocks.in_place(block_no, raw))
    return lost


async def _unsigned_difference(
    connection: AsyncConnection, store: CheckpointStore, reach: int, size: int
) -> str | None:
    """Blocks are copied outside before they are signed. One that was cut off there still says what this log was."""
    after = reach
    while after < size:
        for stored in await blocks.page(connection, after, PAGE):
            raw = await asyncio.to_thread(store.block, stored.block_no)
            if raw is None:
                return None
            if raw != stored.outside():
                return f"block {stored.block_no} is another one than was published"
            after = stored.block_no
    return None


async def _withdrawn(
    connection: AsyncConnection, store: CheckpointStore, kept: Sequence[Any], reach: int
) -> str | None:
    """What was published and is not outside any more, unless an operator has said so since."""
    if not kept or kept[0][0] <= reach:
        return None
    if store.away:  # it may be there
        raise OutsideAway(f"{', '.join(store.away)}: away, and the others do not have checkpoint {kept[0][0]}")
    for (statement,) in await rows(connection, "incarnations_after", {"after": kept[0][0]}):
        if WITHDRAWN in bytes(statement):
            return None
    return f"a checkpoint of size {kept[0][0]} was published and is not outside any more"


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
        if not (some := await blocks.page(connection, after, PAGE)):
            return f"block {after + 1} is not there"
        for stored in some:
            outside = await asyncio.to_thread(store.block, stored.block_no)
            if outside is not None and outside != stored.outside():
                return f"block {stored.block_no} is another one than was published"
            if stored.block_no != after + 1:
                return f"block {after + 1} is not there"
            after = stored.block_no
    return "the root over the blocks is another one than was signed"


def _statement(standing: Standing, by: str, why: str) -> bytes:
    """The operator's words and what they are about; stored and hashed as these bytes."""
    lost: list[dict[str, Any]] = [
        {"run_id": str(each.run_id), "sealed_seq": each.sealed_seq, "kept_seq": each.seq} for each in standing.damaged
    ]
    told: dict[str, Any] = {
        "by": by,
        "why": why,
        "fault": standing.fault,
        "blocks_before": standing.size,
        "blocks_outside": standing.outside.size if standing.outside else 0,
        "runs": lost,
    }
    if standing.aside is not None:
        told["set_aside"] = {
            "from_block": standing.aside.first,
            "blocks": standing.aside.count,
            "headers_sha256": standing.aside.headers.hex(),
        }
    return json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode()
