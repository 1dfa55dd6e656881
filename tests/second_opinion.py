"""The evidence format: once more, from its description alone, sharing nothing with the code that writes it."""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any
from uuid import UUID


def number(value: int, width: int) -> bytes:
    return value.to_bytes(width, "big", signed=True)


def genesis(run_id: str, tenant_id: str) -> bytes:
    return sha256(bytes([2]) + b"runwire/1" + UUID(run_id).bytes + UUID(tenant_id).bytes).digest()


def item(event: Mapping[str, Any], body: bytes) -> bytes:
    """`event`: type, version, occurred_us, encoding and key_id, which may be None."""
    kind = event["type"].encode("utf-8")
    return b"".join(
        [
            number(event["version"], 2),
            number(len(kind), 2),
            kind,
            number(event["encoding"], 2),
            UUID(event["key_id"]).bytes if event["key_id"] else bytes(16),
            number(event["occurred_us"], 8),
            sha256(body).digest(),
        ]
    )


def listing(items: Sequence[bytes]) -> bytes:
    return sha256(bytes([0]) + b"".join(items)).digest()


def link(before: bytes, first: Mapping[str, Any], items: Sequence[bytes]) -> bytes:
    """`first`: seq, epoch and recorded_us of the append's first event."""
    place = number(first["seq"], 4) + number(len(items), 4) + number(first["epoch"], 4)
    return sha256(bytes([1]) + before + place + number(first["recorded_us"], 8) + listing(items)).digest()
