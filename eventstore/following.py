"""Walks whatever was sealed, event by event, some seconds behind the log: a run that does not fit its chain is told.

`append` takes the writer's word for what it lists (eventstore/domain/chain.py). Here that word is checked, while
whoever wrote can still be asked: block by block in the order of the feed, each run from the chain that it had before
the block to the one that the block says. The walk keeps its place in the database, so every sealed event is walked
once, whatever process does it, and two that do it at the same time only do it twice. It goes at a bounded pace: under a
load that it cannot follow it falls behind, its lag is there to be seen, and it catches up.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from eventstore import blocks
from eventstore.arrays import Int4s, Uuids
from eventstore.blocks import Range, Step
from eventstore.domain import block, chain
from eventstore.domain.record import Recorded
from eventstore.sql import rows

STRETCH_RUNS_MAX: Final = 500
STRETCH_EVENTS_MAX: Final = 1_000
STRETCH_BYTES_MAX: Final = 4_194_304

logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Followed:
    """What one step did: how many events it walked, and how many runs did not fit. None was left when `events` and
    `runs` are 0."""

    runs: int = 0
    events: int = 0
    mismatches: int = 0


class Follower:
    """The walk. `step` takes the next stretch of the feed; nothing is kept that cannot be read again."""

    def __init__(
        self,
        engine: AsyncEngine,
        *,
        runs_max: int = STRETCH_RUNS_MAX,
        events_max: int = STRETCH_EVENTS_MAX,
        bytes_max: int = STRETCH_BYTES_MAX,
    ) -> None:
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._runs_max = runs_max
        self._events_max = events_max
        self._bytes_max = bytes_max
        self._step: Step | None = None  # the block that is being walked

    async def step(self) -> Followed:
        """Walk some runs of the next block, if there is one, and keep the mark."""
        async with self._engine.connect() as connection:
            [(done, place)] = await rows(connection, "followed")
            if place == 0 or self._step is None or self._step.block_no != done + 1:
                found = await blocks.blocks_after(connection, done, 1)
                self._step = found[0] if found else None
            step = self._step
            if step is None:
                return Followed()
            some = step.ranges[place : place + self._runs_max]
            walks, events = await self._walk(connection, [each for each in some if not each.again])
            told = 0
            for walk in walks:
                told += walk.fault is not None and await _tell(connection, step.block_no, walk)
            last = place + len(some) >= len(step.ranges)
            to = {"to_no": step.block_no if last else done, "to_place": 0 if last else place + len(some)}
            await rows(connection, "follow_on", {"no": done, "place": place, **to})
        return Followed(len(some), events, told)

    async def _walk(self, connection: AsyncConnection, ranges: Sequence[Range]) -> tuple[list[chain.Walk], int]:
        """Each of these runs from the chain before the block to the chain that the block says."""
        walks = await _starts(connection, ranges)
        at, after, events = 0, 0, 0
        while at < len(ranges):
            asked, to = _plan(ranges, at, after, self._events_max)
            found = await rows(connection, "follow", {**asked, "bytes": self._bytes_max})
            size = 0
            for row in found:
                event = Recorded(*row[1:])
                size += len(event.body)
                walks[at + row[0] - 1].add(event)
            if size >= self._bytes_max:  # cut; it goes on after the last one
                to = _after(ranges, at + found[-1][0] - 1, event.seq)
            at, after = to
            events += len(found)
        for walk, each in zip(walks, ranges, strict=True):
            _close(walk, each)
        return walks, events


async def _tell(connection: AsyncConnection, block_no: int, walk: chain.Walk) -> bool:
    """Keep and log a mismatch; none if an operator has acknowledged, after this block, that the run lost events."""
    for acknowledged, entries, _ in await rows(connection, "incarnations"):
        named = (entry.run_id for entry in block.decode_entries(bytes(entries)))
        if acknowledged > block_no and walk.run_id in named:
            return False
    asked = {"run": walk.run_id, "no": block_no, "seq": walk.fault_seq, "fault": walk.fault}
    await rows(connection, "mismatched", asked)
    logger.error("a run does not fit its chain", run_id=str(walk.run_id), seq=walk.fault_seq, fault=walk.fault)
    return True


def _plan(ranges: Sequence[Range], at: int, after: int, events_max: int) -> tuple[dict[str, object], tuple[int, int]]:
    """So many of these stretches, the first from after this event, as have at most `events_max` events together; and
    where it goes on from there."""
    runs, afters, lasts = [], [], []
    while at < len(ranges) and events_max > 0:
        each = ranges[at]
        after = max(after, each.first_seq - 1)
        last = min(each.last_seq, after + events_max)
        runs.append(each.run_id)
        afters.append(after)
        lasts.append(last)
        events_max -= last - after
        at, after = _after(ranges, at, last)
    return {"runs": Uuids.of(runs), "afters": Int4s.of(afters), "lasts": Int4s.of(lasts)}, (at, after)


def _after(ranges: Sequence[Range], at: int, seq: int) -> tuple[int, int]:
    return (at + 1, 0) if seq >= ranges[at].last_seq else (at, seq)


async def _starts(connection: AsyncConnection, ranges: Sequence[Range]) -> list[chain.Walk]:
    """A walk for each run, from the event before its stretch; that event was walked with an earlier block."""
    later = [each for each in ranges if each.first_seq > 1]
    asked = {"runs": [each.run_id for each in later], "seqs": [each.first_seq - 1 for each in later]}
    before = {row[0]: bytes(row[2]) for row in await rows(connection, "chains_at", asked)} if later else {}
    walks = []
    for each in ranges:
        genesis = chain.genesis(each.run_id, each.tenant_id) if each.first_seq == 1 else b""
        walk = chain.Walk(each.run_id, before.get(each.run_id, genesis), each.first_seq - 1)
        if each.first_seq > 1 and each.run_id not in before:
            walk.refuse(each.first_seq - 1, "this event is gone")
        walks.append(walk)
    return walks


def _close(walk: chain.Walk, sealed: Range) -> None:
    if not walk.end():
        return
    if walk.seq != sealed.last_seq:
        walk.refuse(walk.seq + 1, "this event is gone")
    elif walk.chain != sealed.chain:
        walk.refuse(walk.seq, "the chain hash is not the one that was sealed")


async def follow(engine: AsyncEngine, events_per_s: float, idle_s: float, stop: asyncio.Event) -> None:
    """Walk until told to stop, at most so many events a second; looks again after `idle_s` when there is nothing."""
    follower, told = Follower(engine), False
    while not stop.is_set():
        pause_s = idle_s
        try:
            step = await follower.step()
        except (SQLAlchemyError, OSError) as fault:
            if not told:
                logger.warning("what was sealed is not walked: the database is away", fault=type(fault).__name__)
            told = True
        else:
            told = False
            if step.runs:
                pause_s = step.events / events_per_s
        try:
            async with asyncio.timeout(pause_s):
                await stop.wait()
        except TimeoutError:
            continue
