"""The evidence format: once more, from its description alone, sharing nothing with the code that writes it."""

from collections.abc import Mapping
from hashlib import sha256
from typing import Any
from uuid import UUID


def number(value: int, width: int) -> bytes:
    return value.to_bytes(width, "big", signed=True)


def genesis(run_id: str, tenant_id: str) -> bytes:
    return sha256(bytes([2]) + b"runwire/1" + UUID(run_id).bytes + UUID(tenant_id).bytes).digest()


def leaf(run_id: str, event: Mapping[str, Any], body: bytes) -> bytes:
    """`event`: seq, epoch, type, version, occurred_us, recorded_us, encoding and key_id, which may be None."""
    kind = event["type"].encode("utf-8")
    parts = [
        bytes([0]),
        b"runwire/1",
        UUID(run_id).bytes,
        number(event["seq"], 4),
        number(event["epoch"], 4),
        number(event["version"], 2),
        number(len(kind), 2),
        kind,
        number(event["occurred_us"], 8),
        number(event["recorded_us"], 8),
        number(event["encoding"], 2),
        UUID(event["key_id"]).bytes if event["key_id"] else bytes(16),
        sha256(body).digest(),
    ]
    return sha256(b"".join(parts)).digest()


def link(before: bytes, leaf_: bytes) -> bytes:
    return sha256(bytes([1]) + before + leaf_).digest()
