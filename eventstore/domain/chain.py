"""The evidence format: how one event hangs on the one before it.

Everything is big-endian, integers are two's complement, times are whole microseconds since 1970 UTC. A first byte keeps
the three kinds of hash apart (0x00 leaf, 0x01 chain, 0x02 genesis), fixed widths keep the fields apart, so no two
different events can give the same input. The database computes the same in `append`; this is the second opinion.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from uuid import UUID

from eventstore.domain.record import Recorded

FORMAT = b"runwire/1"
NO_KEY = bytes(16)


def genesis(run_id: UUID, tenant_id: UUID) -> bytes:
    """The link before the first event: it ties the chain to its run and its tenant."""
    return sha256(b"\x02" + FORMAT + run_id.bytes + tenant_id.bytes).digest()


def leaf(event: Recorded) -> bytes:
    """The digest of one event: header fields at fixed width, then the digest of the stored bytes."""
    name = event.type.encode()
    key = event.key_id.bytes if event.key_id else NO_KEY
    head = event.run_id.bytes + struct.pack(">iihh", event.seq, event.epoch, event.version, len(name)) + name
    times = struct.pack(">qqh", event.occurred_us, event.recorded_us, event.encoding)
    return sha256(b"\x00" + FORMAT + head + times + key + sha256(event.body).digest()).digest()


def link(before: bytes, event: Recorded) -> bytes:
    """chain(n) from chain(n-1) and event n."""
    return sha256(b"\x01" + before + leaf(event)).digest()


@dataclass(frozen=True, slots=True)
class Verification:
    """What a walk over one run's chain found. `fault_seq` is the first event that does not fit."""

    ok: bool
    events: int
    chain: bytes
    fault_seq: int | None = None
    fault: str | None = None


def verify(run_id: UUID, tenant_id: UUID, events: Iterable[Recorded], head_seq: int, head_chain: bytes) -> Verification:
    """Walk from genesis to the head: order, gaps, bytes, clock, and that the log ends where the head says."""
    chain, seq, clock = genesis(run_id, tenant_id), 0, 0
    for event in events:
        try:
            expected = link(chain, event)
        except struct.error:  # only a hand that went past the functions can store such a thing
            return Verification(False, seq, chain, event.seq, "a value of this event does not fit the format")
        fault = (
            f"expected seq {seq + 1}, found {event.seq}"
            if event.seq != seq + 1
            else "this event belongs to another run"
            if event.run_id != run_id
            else "the stored event does not match its chain hash"
            if expected != event.chain
            else "recorded earlier than the event before it"
            if event.recorded_us < clock
            else None
        )
        if fault is not None:
            return Verification(False, seq, chain, event.seq, fault)
        chain, seq, clock = expected, event.seq, event.recorded_us
    if seq != head_seq:
        return Verification(False, seq, chain, seq + 1, f"the log ends at {seq}, its head says {head_seq}")
    if chain != head_chain:
        return Verification(False, seq, chain, seq, "the last chain hash is not the head's")
    return Verification(True, seq, chain)
