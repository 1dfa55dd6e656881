"""Checks the whole database against checkpoints that were kept outside: every block, every sealed run, every event.

Three walks, each in order and page by page. The log of blocks is rebuilt leaf by leaf and compared with each checkpoint
when it has that checkpoint's size, which also shows that the newer ones begin with the older. Each entry of a block
is compared with the event that it seals. Each run's chain is computed anew from genesis to its head. What is held in
memory is a row of tree nodes, a page, and one number for each run that is still open.
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from eventstore import blocks, signing
from eventstore.blocks import StoredBlock
from eventstore.domain import block, chain, merkle
from eventstore.domain.block import BadBlock, Entry, Kind
from eventstore.domain.merkle import Peaks
from eventstore.domain.note import BadNote, Checkpoint, PublicKey
from eventstore.domain.record import Recorded
from eventstore.log import PAGE_BYTES_MAX
from eventstore.sql import rows

BLOCKS_PAGE: Final = 20
ENTRIES_PAGE: Final = 1_000
EVENTS_PAGE: Final = 500
HEADS_PAGE: Final = 1_000
FINDINGS_MAX: Final = 1_000
NIL: Final = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that does not fit, and the layer that shows it: `signature`, `checkpoint`, `log`, `block`, `chain` or
    `head`."""

    layer: str
    where: str
    what: str


@dataclass(slots=True)
class Report:
    """What a verification saw. `ok` says only that nothing contradicts; `unsealed` events rest on their chain alone."""

    size: int = 0
    root: bytes = merkle.EMPTY
    runs: int = 0
    events: int = 0
    sealed: int = 0
    checkpoints: list[int] = field(default_factory=list)
    incarnations: list[bytes] = field(default_factory=list)
    acknowledged: int = 0
    gone: set[UUID] = field(default_factory=set)  # runs of which nothing is left, as an operator has acknowledged
    findings: list[Finding] = field(default_factory=list)
    more: int = 0  # findings that were counted and not kept

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    @property
    def unsealed(self) -> int:
        """How many events no block covers yet."""
        return self.events - self.sealed

    def found(self, layer: str, where: object, what: str) -> None:
        """Note a finding."""
        if len(self.findings) < FINDINGS_MAX:
            self.findings.append(Finding(layer, str(where), what))
        else:
            self.more += 1


class LogWalk:
    """A verifier's state between two blocks: feed them in order, ask for the root at any time, go on later."""

    def __init__(self) -> None:
        self.peaks = Peaks()
        self.sealed = 0  # events that the blocks so far cover
        self._clock = 0
        self._open: dict[UUID, int] = {}

    def add(self, stored: StoredBlock) -> list[str]:
        """What is wrong with the next block."""
        try:
            header = block.decode_header(stored.header)
            entries = list(block.decode_entries(stored.entries))
        except BadBlock as fault:
            self.peaks.append(merkle.leaf_hash(stored.header))
            return [str(fault)]
        self.peaks.append(merkle.leaf_hash(stored.header))
        wrong = []
        if header.block_no != self.peaks.size or stored.block_no != self.peaks.size:
            wrong.append(f"number {header.block_no} stands in place {self.peaks.size}")
        if (fault_ := block.fault_of(header, stored.entries, stored.statement)) is not None:
            wrong.append(fault_)
        if header.sealed_us < self._clock:
            wrong.append("sealed earlier than the block before it")
        self._clock = max(self._clock, header.sealed_us)
        firsts = stored.first_seqs() if len(stored.firsts) == 4 * len(entries) else None
        for place, entry in enumerate(entries):
            first = self._follow(header.kind, entry, wrong)
            if stored.firsts and (firsts is None or firsts[place] != first):
                wrong.append(f"its list of first events is wrong for run {entry.run_id}")
        return wrong

    def _follow(self, kind: Kind, entry: Entry, wrong: list[str]) -> int:
        """Where the entry goes on; a run that is closed is forgotten, it never comes again."""
        before = self._open.pop(entry.run_id, 0)
        first = before + 1
        if kind is Kind.INCARNATION:
            self.sealed += entry.seq - before
            first = 1
        elif entry.seq <= before:
            wrong.append(f"run {entry.run_id} goes from event {before} to {entry.seq}")
        else:
            self.sealed += entry.seq - before
        if not entry.closed and entry.seq:
            self._open[entry.run_id] = entry.seq
        return first


def open_all(notes: Iterable[str], keys: Sequence[PublicKey], report: Report) -> list[Checkpoint]:
    """The checkpoints that one of these keys has signed, smallest first; the others are findings."""
    opened = []
    for signed in notes:
        try:
            opened.append(signing.open_checkpoint(signed, keys))
        except BadNote as fault:
            report.found("signature", signed.partition("\n")[0][:80], str(fault))
    return sorted(opened, key=lambda checkpoint: checkpoint.size)


async def verify_against(
    connection: AsyncConnection, notes: Iterable[str], keys: Sequence[PublicKey], origin: str | None = None
) -> Report:
    """Everything: signatures by keys that the caller holds, the log of blocks, every sealed event, every chain. Run it
    in one REPEATABLE READ transaction when appends go on meanwhile."""
    report = Report()
    await rows(connection, "seal_durably")
    checkpoints = open_all(notes, keys, report)
    for checkpoint in checkpoints:
        if origin is not None and checkpoint.origin != origin:
            report.found("checkpoint", checkpoint.size, f"is of {checkpoint.origin}, this log is {origin}")
    await verify_log(connection, checkpoints, report)
    await verify_events(connection, report)
    return report


async def verify_log(connection: AsyncConnection, checkpoints: Sequence[Checkpoint], report: Report) -> LogWalk:
    """The blocks in order, each checkpoint at its size, and every entry against the event that it seals."""
    walk = LogWalk()
    acknowledged = await _incarnations(connection, report)
    waiting = sorted(checkpoints, key=lambda checkpoint: checkpoint.size)
    _compare(walk.peaks, waiting, report)
    after = 0
    while page := await blocks.page(connection, after, BLOCKS_PAGE):
        for stored in page:
            for fault in walk.add(stored):
                report.found("block", f"block {stored.block_no}", fault)
            _compare(walk.peaks, waiting, report)
            await _verify_entries(connection, stored, acknowledged, report)
            after = stored.block_no
    for checkpoint in waiting:
        report.found("checkpoint", f"size {checkpoint.size}", f"the log ends at block {walk.peaks.size}")
    report.size, report.root, report.sealed = walk.peaks.size, walk.peaks.root(), walk.sealed
    await _verify_nodes(connection, walk.peaks, report)
    return walk


async def verify_events(connection: AsyncConnection, report: Report) -> None:
    """Every chain from genesis to its head, and no events without a head."""
    events = _events(connection)
    event = await anext(events, None)
    async for run_id, tenant_id, listed_for, head_seq, head_chain in _heads(connection):
        while event is not None and event.run_id < run_id:
            stray = event.run_id
            report.found("head", f"run {stray}", "has events and no head")
            while event is not None and event.run_id == stray:
                event = await anext(events, None)
        run = chain.Walk(run_id, chain.genesis(run_id, tenant_id))
        while event is not None and event.run_id == run_id:
            run.add(event)  # after a fault the rest only passes: what follows hangs on it
            report.events += 1
            event = await anext(events, None)
        run.end()
        report.runs += 1
        if listed_for != tenant_id:
            report.found("head", f"run {run_id}", f"belongs to {tenant_id}, the catalogue says {listed_for}")
        if run.fault is not None:
            report.found("chain", f"run {run_id}", f"event {run.fault_seq}: {run.fault}")
        elif head_seq is None and run.seq == 0 and run_id in report.gone:
            continue
        elif head_seq is None:
            report.found("head", f"run {run_id}", "is in the catalogue and has no head")
        elif run.seq != head_seq:
            report.found("head", f"run {run_id}", f"the log ends at {run.seq}, its head says {head_seq}")
        elif run.chain != head_chain:
            report.found("head", f"run {run_id}", "the last chain hash is not the head's")
    while event is not None:
        stray = event.run_id
        report.found("head", f"run {stray}", "has events and no head")
        while event is not None and event.run_id == stray:
            event = await anext(events, None)


async def _incarnations(connection: AsyncConnection, report: Report) -> dict[UUID, int]:
    """The last incarnation that names each run that ever lost events."""
    named = dict[UUID, int]()
    for block_no, entries, statement in await rows(connection, "incarnations"):
        report.incarnations.append(bytes(statement or b""))
        for entry in block.decode_entries(bytes(entries)):
            named[entry.run_id] = block_no
            (report.gone.discard if entry.seq else report.gone.add)(entry.run_id)
    return named


def _compare(peaks: Peaks, waiting: list[Checkpoint], report: Report) -> None:
    while waiting and waiting[0].size <= peaks.size:
        checkpoint = waiting.pop(0)
        report.checkpoints.append(checkpoint.size)
        if checkpoint.root != peaks.root():
            report.found(
                "log", f"size {checkpoint.size}", "the blocks are not those that this checkpoint was signed over"
            )


async def _verify_entries(
    connection: AsyncConnection, stored: StoredBlock, acknowledged: Mapping[UUID, int], report: Report
) -> None:
    try:
        entries = list(block.decode_entries(stored.entries))
    except BadBlock:
        return  # told already
    for place in range(0, len(entries), ENTRIES_PAGE):
        some = entries[place : place + ENTRIES_PAGE]
        asked = {"runs": [entry.run_id for entry in some], "seqs": [entry.seq for entry in some]}
        there = {(row[0], row[1]): bytes(row[2]) for row in await rows(connection, "chains_at", asked)}
        for entry in some:
            held = there.get((entry.run_id, entry.seq))
            if held == entry.chain or entry.seq == 0:
                continue
            if acknowledged.get(entry.run_id, 0) > stored.block_no:
                report.acknowledged += 1
                continue
            what = "is gone" if held is None else "is not the one that was sealed"
            report.found(
                "block", f"run {entry.run_id}", f"event {entry.seq}, sealed in block {stored.block_no}, {what}"
            )


async def _verify_nodes(connection: AsyncConnection, peaks: Peaks, report: Report) -> None:
    """The stored nodes are a convenience and wrong ones only break proofs: the row that counts is looked at."""
    try:
        stored = await blocks.peaks_at(connection, peaks.size)
    except LookupError as fault:
        report.found("log", f"size {peaks.size}", str(fault))
    else:
        if stored.hashes != peaks.hashes:
            report.found("log", f"size {peaks.size}", "the stored nodes of the tree are not those of its leaves")


async def _events(connection: AsyncConnection) -> AsyncIterator[Recorded]:
    run, seq = NIL, 0
    bounds = {"limit": EVENTS_PAGE, "bytes": PAGE_BYTES_MAX}
    while page := await rows(connection, "verify_events", {"run": run, "seq": seq, **bounds}):
        for row in page:
            event = Recorded(*row)
            yield event
        run, seq = event.run_id, event.seq


async def _heads(connection: AsyncConnection) -> AsyncIterator[Any]:
    run = NIL
    while page := await rows(connection, "verify_heads", {"run": run, "limit": HEADS_PAGE}):
        for row in page:
            yield row
        run = page[-1][0]
