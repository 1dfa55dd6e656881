"""The sealer's work: moved heads become a block, the block a leaf of the log, the log a signed checkpoint.

The order is what the evidence rests on. A block is made of committed heads only and is committed itself, with
synchronous_commit on, before anything is signed; a commit is never on disk before those that came before it, so what
the block names is as durable as the block. Then the checkpoint is signed and published outside, then stored here.
Whatever is cut off in between is taken up again: a block without a checkpoint is signed at the next tick, a published
checkpoint that is not stored is found outside and stored, never signed a second time.

No writer of events is ever waited for or made to wait: heads are read, not locked. Sealers among themselves are ordered
by the lock of one row and fenced by an epoch in the statement that stores. An idle log is only read.

A tick is bounded: some blocks of a bounded size, some blocks copied outside. A log that was never sealed is gone
through from its first run to its last over many ticks, each signed, and then only what has moved since is looked for. A
place outside that is away costs signatures and nothing else: blocks go on, and are signed when it is back.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

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

BACKLOG_PAGE: Final = 20  # blocks that are read and copied outside at once
BLOCKS_PER_TICK: Final = 5
COPIES_PER_TICK: Final = 200
DAMAGED_TOLD: Final = 100
FIRST: Final = UUID(int=0)  # before every run

logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Tick:
    """What one tick did. `fault`: why nothing was sealed (`shut`) or signed (`unsigned`). `more`: there is more to do
    at once."""

    leading: bool
    blocks: int = 0
    entries: int = 0
    size: int = 0
    signed: int = 0
    fault: str | None = None
    more: bool = False


@dataclass(frozen=True, slots=True)
class Outage:
    """Why blocks are not signed, and since when by the monotonic clock."""

    since_s: float
    why: str


@dataclass(slots=True)
class _Lead:
    """What the leader knows of the log. Thrown away at the first doubt and read again."""

    epoch: int
    peaks: Peaks
    sealed_us: int
    signed: int
    copied: int | None = None  # up to this block all is known to be outside
    after: UUID = FIRST  # without a horizon: the heads up to this run are gone through
    pass_horizon: str | None = None  # what the horizon becomes when they all are
    horizon: str | None = None  # every transaction before this one was seen to have ended, and its heads are sealed
    quiet_at: str | None = None  # at this transaction number nothing was under way and nothing was left to seal
    ended: bool = True  # heads of ended runs may have been sealed that do not rest yet


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
        block_runs_max: int = 10_000,
        retry_s: float = 0.0,
        signed: Callable[[KeyRing], object] = lambda used: None,
    ) -> None:
        self._engine = engine
        self._store = store
        self._keys = keys
        self._name = name
        self._owner = owner
        self._lease_s = lease_s
        self._block_runs_max = block_runs_max
        self._retry_s = retry_s
        self._retry_at = 0.0
        self.outage: Outage | None = None
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
        for _ in range(BLOCKS_PER_TICK):
            if self._lead is None:
                break
            named, more = await self._seal(self._lead)
            made, entries = made + bool(named), entries + named
            if not more:
                break
        if self._lead is not None and not made and self._lead.signed == self._lead.peaks.size:
            made += await self._seal_for_a_new_key(self._lead)
        fault = None if self._lead is None else await self._sign(self._lead)
        lead = self._lead
        if lead is None:
            return Tick(False, made, entries, fault=fault)
        if lead.ended:
            await self._rest(lead)
        return Tick(True, made, entries, lead.peaks.size, lead.signed, fault, more)

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
            moved = unsigned or await rows(connection, "seal_any")
            if not moved and not await self._key_is_new():
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
            await rows(connection, "wake_heads")
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

    async def _seal(self, lead: _Lead) -> tuple[int, bool]:
        """The next block, committed; answers how many runs it names, and whether there may be more at once."""
        async with self._engine.begin() as connection:
            await rows(connection, "seal_durably")
            [(oldest, following)] = await rows(connection, "seal_horizon")
            if following == lead.quiet_at:
                return 0, False  # no transaction has written since: an idle log is not even read
            if lead.horizon is None:
                return await self._seal_page(connection, lead, oldest)
            look = {"limit": self._block_runs_max, "horizon": lead.horizon}
            moved = await rows(connection, "seal_moved", look)
            if moved and not await self._add(connection, lead, moved):
                return 0, False
        full = len(moved) == self._block_runs_max
        if not full:
            lead.horizon = oldest
        lead.quiet_at = following if not moved and oldest == following else None
        return len(moved), full

    async def _seal_page(self, connection: AsyncConnection, lead: _Lead, oldest: str) -> tuple[int, bool]:
        """Without a horizon all heads are gone through, page by page. What moves behind the page meanwhile is written
        by transactions that the horizon of the first page leaves to be looked at."""
        lead.pass_horizon = lead.pass_horizon or oldest
        page = await rows(connection, "seal_backlog", {"limit": self._block_runs_max, "after": lead.after})
        moved = [row[1:] for row in page if row[1] is not None]
        if moved and not await self._add(connection, lead, moved):
            return 0, False
        full = len(page) == self._block_runs_max
        if full:
            lead.after = page[-1][0]
        else:
            lead.horizon = lead.pass_horizon
        return len(moved), full

    async def _add(self, connection: AsyncConnection, lead: _Lead, moved: list[Any]) -> bool:
        """The block of these heads; False when another sealer leads."""
        peaks = lead.peaks.copy()
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
            return False
        lead.peaks, lead.sealed_us = peaks, sealed_us
        lead.ended = lead.ended or any(row[0][-1] for row in moved)
        return True

    async def _key_is_new(self) -> bool:
        """Whether the key before still has to cosign."""
        try:
            return len((await asyncio.to_thread(self._keys)).signing) > 1
        except KeyFault:
            return False  # told when something is to be signed

    async def _seal_for_a_new_key(self, lead: _Lead) -> int:
        """A new key signs at once, also when nothing moves. A checkpoint is kept once per size, so there must be a new
        one to sign: a block without entries makes it."""
        if not await self._key_is_new():
            return 0
        async with self._engine.begin() as connection:
            await rows(connection, "seal_durably")
            return int(await self._add(connection, lead, []))

    async def _rest(self, lead: _Lead) -> None:
        async with self._engine.begin() as connection:
            [(rested,)] = await rows(connection, "rest_heads", {"limit": self._block_runs_max})
        lead.ended = rested == self._block_runs_max

    async def _sign(self, lead: _Lead) -> str | None:
        """A checkpoint over everything that is committed: signed, published, stored, in this order."""
        size = lead.peaks.size
        if size == lead.signed:
            return None
        if time.monotonic() < self._retry_at:
            return "unsigned"
        checkpoint = Checkpoint(self._origin, size, lead.peaks.root())
        try:
            if self._store.away and not await self._everywhere():
                self.forget()
                return "shut"
            if not await self._copied(lead, size):
                return "unsigned"
            signed, used = await asyncio.to_thread(self._signed, checkpoint)
            await asyncio.to_thread(self._store.publish, size, signed)
        except (OSError, KeyFault, BadNote) as fault:
            # Events stay chained and blocks go on; a later tick signs all of it.
            self._failed(size - lead.signed, fault)
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
        if self.outage is not None:
            logger.info("blocks are signed again", size=size)
            self.outage = None
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

    async def _everywhere(self) -> bool:
        """A place was away when the database was compared. Once it is back it may know more than the others did."""
        await asyncio.to_thread(self._store.latest)
        return bool(self._store.away) or await self._check()

    async def _copied(self, lead: _Lead, size: int) -> bool:
        """Copy blocks outside that are not there yet; False when more are left than one tick copies."""
        if lead.copied is None:
            lead.copied = min(await asyncio.to_thread(self._store.whole_to), size)
        bound = min(size, lead.copied + COPIES_PER_TICK)
        while lead.copied < bound:
            async with self._engine.connect() as connection:
                some = await blocks.page(connection, lead.copied, min(BACKLOG_PAGE, bound - lead.copied))
            if not some or some[0].block_no != lead.copied + 1:
                raise Forked(f"block {lead.copied + 1} is not in the database any more")
            await asyncio.to_thread(self._store.keep_blocks, {each.block_no: each.outside() for each in some})
            lead.copied = some[-1].block_no
        if bound < size:
            logger.info("blocks are being copied outside", copied=bound, of=size)
        return bound == size

    def _failed(self, unsigned: int, fault: Exception) -> None:
        now = time.monotonic()
        self._retry_at = now + self._retry_s
        why = f"{type(fault).__name__}: {fault}"
        logger.error("blocks are not signed", blocks=unsigned, fault=why)
        self.outage = Outage(now if self.outage is None else self.outage.since_s, why)
