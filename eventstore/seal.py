"""The sealer's work: moved heads become a block, the block a leaf of the log, the log a signed checkpoint.

The order is what the evidence rests on. A block is made of committed heads only and is committed itself, with
synchronous_commit on, before anything is signed; a commit is never on disk before those that came before it, so what
the block names is as durable as the block. Then the checkpoint is signed and published outside, then stored here.
Whatever is cut off in between is taken up again: a block without a checkpoint is signed at the next tick, a published
checkpoint that is not stored is found outside and stored, never signed a second time.

No writer of events is ever waited for or made to wait: heads are read, not locked. Sealers among themselves are ordered
by the lock of one row and fenced by an epoch in the statement that stores. An idle log is only read.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from eventstore import blocks, incarnation
from eventstore.checkpoints import CheckpointStore, Forked
from eventstore.domain import block, merkle
from eventstore.domain.merkle import Peaks
from eventstore.domain.note import BadNote, Checkpoint
from eventstore.incarnation import NotThisLog, Standing
from eventstore.signing import KeyFault, KeyRing
from eventstore.sql import rows

BACKLOG_PAGE: Final = 20
DAMAGED_TOLD: Final = 100

logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Tick:
    """What one tick did. `fault`: why nothing was sealed (`shut`) or signed (`unsigned`)."""

    leading: bool
    blocks: int = 0
    entries: int = 0
    size: int = 0
    signed: int = 0
    fault: str | None = None


@dataclass(slots=True)
class _Lead:
    """What the leader knows of the log. Thrown away at the first doubt and read again."""

    epoch: int
    peaks: Peaks
    sealed_us: int
    signed: int
    horizon: str | None = None  # every transaction before this one was seen to have ended, and its heads are sealed
    quiet_at: str | None = None  # at this transaction number nothing was under way and nothing was left to seal


class Sealer:
    """One sealer. `tick` is called about once a second; nothing is kept between ticks that cannot be read again."""

    def __init__(
        self,
        engine: AsyncEngine,
        store: CheckpointStore,
        keys: Callable[[], KeyRing],
        *,
        name: str,
        owner: str,
        lease_s: float,
        block_runs_max: int = 20_000,
        signed: Callable[[KeyRing], object] = lambda used: None,
    ) -> None:
        self._engine = engine
        self._store = store
        self._keys = keys
        self._name = name
        self._owner = owner
        self._lease_s = lease_s
        self._block_runs_max = block_runs_max
        self._after_signing = signed
        self._origin = ""
        self._checked = False
        self._told = False
        self._lead: _Lead | None = None

    async def tick(self) -> Tick:
        """Seal what has moved, if this sealer leads or can. Errors of the database come out: call `forget` then."""
        if not self._checked and not await self._check():
            return Tick(False, fault="shut")
        if self._lead is None and not await self._take_lead():
            return Tick(False)
        made = entries = 0
        while self._lead is not None:
            more = await self._seal(self._lead)
            made, entries = made + bool(more), entries + more
            if more < self._block_runs_max:
                break
        fault = None if self._lead is None else await self._sign(self._lead)
        lead = self._lead
        if lead is None:
            return Tick(False, made, entries, fault=fault)
        return Tick(True, made, entries, lead.peaks.size, lead.signed, fault)

    def forget(self) -> None:
        """Trust nothing that was read so far: the connection was lost, and who knows what answers now."""
        self._lead = None
        self._checked = False

    async def _check(self) -> bool:
        """Whether the database is the one that was sealed; shuts the gate when it is not, and says what is missing."""
        async with self._engine.begin() as connection:
            await rows(connection, "seal_durably")
            if self._told and await incarnation.is_shut(connection):
                return False
            self._origin = await incarnation.log_origin(connection, self._name)
            keys = await asyncio.to_thread(self._keys)
            standing = await incarnation.check_incarnation(connection, self._store, keys.public, self._origin)
            self._checked = standing.fault is None
            if self._checked and (why := await incarnation.is_shut(connection)):
                # It fits by now, but somebody shut it: only an operator opens what was shut.
                self._checked = False
                logger.error("the log is shut until an operator acknowledges", why=why)
        if standing.fault is not None:
            await self._shut(standing)
        self._told = not self._checked
        return self._checked

    async def _shut(self, standing: Standing) -> None:
        async with self._engine.begin() as connection:
            await rows(connection, "shut_gate", {"why": f"{standing.fault}: {standing}"})
        logger.error("the log is shut until an operator acknowledges", fault=standing.fault, standing=str(standing))
        for damage in standing.damaged[:DAMAGED_TOLD]:
            logger.error("a run is not as it was sealed", run=str(damage))
        if len(standing.damaged) > DAMAGED_TOLD:
            logger.error("and more runs", runs=len(standing.damaged) - DAMAGED_TOLD)

    async def _take_lead(self) -> bool:
        async with self._engine.begin() as connection:
            await rows(connection, "seal_durably")
            [(_, _, held)] = await rows(connection, "sealer")
            if held:
                return False
            size, _ = await blocks.log_size(connection)
            kept = await rows(connection, "last_checkpoint")
            unsigned = size > (kept[0][0] if kept else 0)
            if not unsigned and not await rows(connection, "seal_moved", {"limit": 1, "horizon": None}):
                return False  # nothing to lead for: an idle log is not written to
            [(epoch,)] = await rows(connection, "lead", {"owner": self._owner, "lease_s": self._lease_s})
        if epoch is None or not await self._check():
            return False
        async with self._engine.begin() as connection:
            await rows(connection, "seal_durably")
            size, sealed_us = await blocks.log_size(connection)
            peaks = await blocks.peaks_at(connection, size)
            kept = await rows(connection, "last_checkpoint")
            await self._mend_sealed(connection, epoch, size)
        self._lead = _Lead(epoch, peaks, sealed_us, kept[0][0] if kept else 0)
        logger.info("this sealer leads", owner=self._owner, epoch=epoch, size=size)
        return True

    async def _mend_sealed(self, connection: AsyncConnection, epoch: int, size: int) -> None:
        if size == 0:
            return
        [last] = await blocks.page(connection, size - 1, 1)
        [(count,)] = await rows(connection, "sealed_in", {"no": size})
        if count != last.decoded().count:
            logger.error("where runs were sealed is not what the last block says: reading it again from all blocks")
            await rows(connection, "rebuild_sealed", {"epoch": epoch})

    async def _seal(self, lead: _Lead) -> int:
        """The next block, committed; answers how many runs it names."""
        peaks = lead.peaks.copy()
        async with self._engine.begin() as connection:
            await rows(connection, "seal_durably")
            [(oldest, following)] = await rows(connection, "seal_horizon")
            if following == lead.quiet_at:
                return 0  # no transaction has written since: an idle log is not even read
            look = {"limit": self._block_runs_max, "horizon": lead.horizon}
            moved = await rows(connection, "seal_moved", look)
            if not moved:
                lead.horizon, lead.quiet_at = oldest, following if oldest == following else None
                return 0
            [(now_us,)] = await rows(connection, "seal_clock")
            entries = b"".join(row[0] for row in moved)
            sealed_us = max(now_us, lead.sealed_us)
            header = block.new_block(peaks.size + 1, sealed_us, entries).encode()
            completed = peaks.append(merkle.leaf_hash(header))
            asked = {
                "epoch": lead.epoch,
                "lease_s": self._lease_s,
                "no": peaks.size,
                "header": header,
                "entries": entries,
                "firsts": b"".join(row[1].to_bytes(4, "big") for row in moved),
                "nodes": b"".join(completed),
            }
            [(verdict,)] = await rows(connection, "add_block", asked)
        if verdict != "ok":
            logger.warning("this sealer does not lead any more", verdict=verdict, epoch=lead.epoch)
            self.forget()
            return 0
        lead.peaks, lead.sealed_us = peaks, sealed_us
        if len(moved) < self._block_runs_max:
            lead.horizon = oldest
        return len(moved)

    async def _sign(self, lead: _Lead) -> str | None:
        """A checkpoint over everything that is committed: signed, published, stored, in this order."""
        size = lead.peaks.size
        if size == lead.signed:
            return None
        checkpoint = Checkpoint(self._origin, size, lead.peaks.root())
        try:
            signed, used = await asyncio.to_thread(self._signed, checkpoint)
            await self._publish(lead, size, signed)
        except (OSError, KeyFault, BadNote) as fault:
            # Events stay chained and blocks go on; the next tick signs all of it.
            logger.error("blocks are not signed", blocks=size - lead.signed, fault=f"{type(fault).__name__}: {fault}")
            return "unsigned"
        except (Forked, NotThisLog) as fault:
            await self._shut(Standing(size, None, "differs", str(fault)))
            self.forget()
            return "shut"
        async with self._engine.begin() as connection:
            asked = {"epoch": lead.epoch, "size": size, "note": signed}
            [(verdict,)] = await rows(connection, "keep_checkpoint", asked)
        if verdict != "ok":
            logger.warning("this sealer does not lead any more", verdict=verdict, epoch=lead.epoch)
            self.forget()
            return None
        lead.signed = size
        if used is not None and len(used.signing) > 1:
            await asyncio.to_thread(self._after_signing, used)
        return None

    def _signed(self, checkpoint: Checkpoint) -> tuple[str, KeyRing | None]:
        """The note: the one that is outside already, else a new one."""
        keys = self._keys()
        if (published := self._store.checkpoint(checkpoint.size)) is not None:
            if keys.open(published) != checkpoint:
                raise Forked(f"the checkpoint outside for size {checkpoint.size} is another one")
            return published, None
        return keys.sign(checkpoint), keys

    async def _publish(self, lead: _Lead, size: int, signed: str) -> None:
        after = lead.signed
        while after < size:
            async with self._engine.connect() as connection:
                some = await blocks.page(connection, after, min(BACKLOG_PAGE, size - after))
            if not some or some[0].block_no != after + 1:
                raise Forked(f"block {after + 1} is not in the database any more")
            await asyncio.to_thread(self._store.keep_blocks, {each.block_no: each.outside() for each in some})
            after = some[-1].block_no
        await asyncio.to_thread(self._store.publish, size, signed)
