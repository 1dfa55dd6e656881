"""Arrays for Postgres, packed in its binary form.

An append carries thousands of values, and writing each of them as text costs as much as storing them.
"""

import struct
from collections.abc import Iterable, Sequence
from typing import ClassVar, Final
from uuid import UUID

import psycopg
from psycopg.adapt import Dumper
from psycopg.pq import Format


class NotPackable(ValueError):
    """A value is not one of its array's type; nothing was sent."""


_HEAD: Final = struct.Struct(">iiIii")  # dimensions, has nulls, element type, length, lower bound


class PgArray:
    """One array parameter, ready to be sent."""

    __slots__ = ("packed",)
    oid: ClassVar[int]
    element_oid: ClassVar[int]

    def __init__(self, count: int, elements: bytes, *, nulls: bool = False) -> None:
        self.packed = _HEAD.pack(1 if count else 0, nulls, self.element_oid, count, 1)[: 20 if count else 12] + elements


class Int2s(PgArray):
    """For a parameter of type smallint[]."""

    oid, element_oid = 1005, 21

    @classmethod
    def of(cls, values: Sequence[int]) -> "Int2s":
        return cls(len(values), _pairs("ih", 2, values))


class Int4s(PgArray):
    """For a parameter of type integer[]."""

    oid, element_oid = 1007, 23

    @classmethod
    def of(cls, values: Sequence[int]) -> "Int4s":
        return cls(len(values), _pairs("ii", 4, values))


class Int8s(PgArray):
    """For a parameter of type bigint[]."""

    oid, element_oid = 1016, 20

    @classmethod
    def of(cls, values: Sequence[int]) -> "Int8s":
        return cls(len(values), _pairs("iq", 8, values))


class Uuids(PgArray):
    """For a parameter of type uuid[]."""

    oid, element_oid = 2951, 2950

    @classmethod
    def of(cls, values: Sequence[UUID]) -> "Uuids":
        return cls(len(values), _strings([value.bytes for value in values]))

    @classmethod
    def none(cls, count: int) -> "Uuids":
        return cls(count, b"\xff\xff\xff\xff" * count, nulls=True)


class Texts(PgArray):
    """For a parameter of type text[]."""

    oid, element_oid = 1009, 25

    @classmethod
    def of(cls, values: Iterable[str]) -> "Texts":
        encoded = [value.encode() for value in values]
        return cls(len(encoded), _strings(encoded))


class Byteas(PgArray):
    """For a parameter of type bytea[]."""

    oid, element_oid = 1001, 17

    @classmethod
    def of(cls, values: Sequence[bytes]) -> "Byteas":
        return cls(len(values), _strings(values))


def _pairs(pair: str, size: int, values: Sequence[int]) -> bytes:
    """Each value with its length before it, in one call."""
    flat = [size] * (2 * len(values))
    flat[1::2] = values
    try:
        return struct.pack(">" + pair * len(values), *flat)
    except struct.error as fault:
        raise NotPackable(str(fault)) from fault


def _strings(values: Sequence[bytes]) -> bytes:
    parts = [b""] * (2 * len(values))
    parts[0::2] = [len(value).to_bytes(4, "big") for value in values]
    parts[1::2] = values
    return b"".join(parts)


def _dumper(of: type[PgArray]) -> type[Dumper]:
    class PackedDumper(Dumper):
        oid = of.oid
        format = Format.BINARY

        def dump(self, obj: PgArray) -> bytes:
            return obj.packed

    return PackedDumper


for _kind in (Int2s, Int4s, Int8s, Uuids, Texts, Byteas):
    psycopg.adapters.register_dumper(_kind, _dumper(_kind))
