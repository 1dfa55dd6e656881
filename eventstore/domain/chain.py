"""The evidence format: how the events of one append hang on those before them.

Everything is big-endian, integers are two's complement, times are whole microseconds since 1970 UTC. A first byte keeps
the kinds of hash apart (0x00 listing, 0x01 link, 0x02 genesis), fixed widths and lengths keep the fields apart, so no
two different histories can give the same input.

One append to a run is one link. Its events are listed, one item each: the event's header and the digest of its body.
The writer hashes the list and the database ties that hash to what only the database decides (place, clock, owner),
because hashing each body under the head's lock would cost a third of what the log can take. A row keeps the link of its
append, so equal neighbours are one append. A writer whose listing is not of what it stored is found by whoever walks
the chain, and the sealer's own walk follows the log at some seconds' distance.
"""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Final
from uuid import UUID

from eventstore.domain.record import PLAIN_JSON, NewEvent, Recorded

FORMAT: Final = b"runwire/1"
NO_KEY: Final = bytes(16)


def genesis(run_id: UUID, tenant_id: UUID) -> bytes:
    """The link before the first event: it ties the chain to its run and its tenant."""
    return sha256(b"\x02" + FORMAT + run_id.bytes + tenant_id.bytes).digest()


@lru_cache(maxsize=1024)
def _opening(version: int, kind: str, encoding: int, key: bytes) -> bytes:
    """The part of an item that many events have in common."""
    name = kind.encode()
    return struct.pack(">hh", version, len(name)) + name + struct.pack(">h", encoding) + key


def item(event: Recorded) -> bytes:
    """What a listing says of one event: its header, then the digest of the stored bytes."""
    key = event.key_id.bytes if event.key_id else NO_KEY
    opening = _opening(event.version, event.type, event.encoding, key)
    return opening + struct.pack(">q", event.occurred_us) + sha256(event.body).digest()


def listing(events: Sequence[NewEvent]) -> bytes:
    """The hash over an append's items, as its writer makes it; column by column, for that is done for every event."""
    parts = [b""] * (3 * len(events))
    parts[0::3] = [_opening(event.version, event.type, PLAIN_JSON, NO_KEY) for event in events]
    parts[1::3] = [event.occurred_us.to_bytes(8, "big", signed=True) for event in events]
    parts[2::3] = [sha256(event.body).digest() for event in events]
    return _listed(parts)


def _listed(items: Sequence[bytes]) -> bytes:
    return sha256(b"\x00" + b"".join(items)).digest()


def link(before: bytes, batch: Sequence[Recorded]) -> bytes:
    """The chain after an append, from the chain before it and the append's events."""
    return _linked(before, batch[0], [item(event) for event in batch])


def _linked(before: bytes, first: Recorded, items: Sequence[bytes]) -> bytes:
    place = struct.pack(">iiiq", first.seq, len(items), first.epoch, first.recorded_us)
    return sha256(b"\x01" + before + place + _listed(items)).digest()


class Walk:
    """The check of one run from some link on, event by event. It stops at the first fault and says where that is: the
    event itself, or the first one of the append whose link is wrong. `seq` and `chain` are as far as all is well."""

    def __init__(self, run_id: UUID, chain: bytes, seq: int = 0, clock_us: int = 0) -> None:
        self.run_id = run_id
        self.seq = seq
        self.chain = chain
        self.fault: str | None = None
        self.fault_seq: int | None = None
        self._clock_us = clock_us
        self._first: Recorded | None = None  # of the append whose events are passing
        self._items: list[bytes] = []

    def add(self, event: Recorded) -> bool:
        """Take the next event; False when nothing more is worth taking."""
        if self.fault is None and self._first is not None and event.chain != self._first.chain:
            self._close()
        if self.fault is not None:
            return False
        try:
            listed = item(event)
        except struct.error:  # only a hand that went past the functions can store such a thing
            return self._found(event.seq, "a value of this event does not fit the format")
        expected = self.seq + len(self._items) + 1
        if event.seq != expected:
            return self._found(event.seq, f"expected seq {expected}, found {event.seq}")
        if event.run_id != self.run_id:
            return self._found(event.seq, "this event belongs to another run")
        if event.recorded_us < self._clock_us:
            return self._found(event.seq, "recorded earlier than the event before it")
        first = self._first
        if first is None:
            self._first = event
        elif (event.epoch, event.recorded_us) != (first.epoch, first.recorded_us):
            return self._found(event.seq, "its epoch or its time is not that of its append")
        self._items.append(listed)
        self._clock_us = event.recorded_us
        return True

    def end(self) -> bool:
        """No more events come; whether all is well."""
        if self.fault is None and self._first is not None:
            self._close()
        return self.fault is None

    def _close(self) -> None:
        first = self._first
        assert first is not None
        try:
            expected = _linked(self.chain, first, self._items)
        except struct.error:
            self._found(first.seq, "a value of this event does not fit the format")
            return
        if expected != first.chain:
            several = f"events {first.seq} to {first.seq + len(self._items) - 1} do not match their chain hash"
            one = "the stored event does not match its chain hash"
            self._found(first.seq, several if len(self._items) > 1 else one)
            return
        self.seq += len(self._items)
        self.chain = expected
        self._first, self._items = None, []

    def refuse(self, seq: int, fault: str) -> None:
        """Note a fault that only the caller can see; the first one counts."""
        if self.fault is None:
            self.fault, self.fault_seq = fault, seq

    def _found(self, seq: int, fault: str) -> bool:
        self.refuse(seq, fault)
        return False


@dataclass(frozen=True, slots=True)
class Verification:
    """What a walk over one run's chain found: how many events are well, and the first one that is not."""

    ok: bool
    events: int
    chain: bytes
    fault_seq: int | None = None
    fault: str | None = None


def verify(run_id: UUID, tenant_id: UUID, events: Iterable[Recorded], head_seq: int, head_chain: bytes) -> Verification:
    """Walk from genesis to the head: order, gaps, bytes, clock, and that the log ends where the head says."""
    walk = Walk(run_id, genesis(run_id, tenant_id))
    for event in events:
        if not walk.add(event):
            break
    if not walk.end():
        return Verification(False, walk.seq, walk.chain, walk.fault_seq, walk.fault)
    if walk.seq != head_seq:
        fault = f"the log ends at {walk.seq}, its head says {head_seq}"
        return Verification(False, walk.seq, walk.chain, walk.seq + 1, fault)
    if walk.chain != head_chain:
        return Verification(False, walk.seq, walk.chain, walk.seq, "the last chain hash is not the head's")
    return Verification(True, walk.seq, walk.chain)
