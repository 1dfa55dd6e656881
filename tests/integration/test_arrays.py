"""Packed arrays arrive in Postgres as the values they were made of."""

from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from eventstore.arrays import Byteas, Int2s, Int4s, Int8s, NotPackable, PgArray, Texts, Uuids

A, B = UUID(int=1), UUID(int=2**128 - 1)


@pytest.mark.parametrize(
    ("packed", "type_", "values"),
    [
        (Int2s.of([0, -1, 32_767, -32_768]), "smallint", [0, -1, 32_767, -32_768]),
        (Int4s.of([0, -1, 2**31 - 1]), "integer", [0, -1, 2**31 - 1]),
        (Int8s.of([0, -1, 2**63 - 1]), "bigint", [0, -1, 2**63 - 1]),
        (Uuids.of([A, B]), "uuid", [A, B]),
        (Uuids.none(3), "uuid", [None, None, None]),
        (Texts.of(["", "token", "ключ", 'a"b\\c']), "text", ["", "token", "ключ", 'a"b\\c']),
        (Byteas.of([b"", b"\x00\xff", b"{}"]), "bytea", [b"", b"\x00\xff", b"{}"]),
        (Int4s.of([]), "integer", []),
        (Byteas.of([]), "bytea", []),
        (Uuids.none(0), "uuid", []),
        (Int8s.of(range(5_000)), "bigint", list(range(5_000))),
    ],
)
async def test_a_packed_array_is_the_array(
    owner_engine: AsyncEngine, packed: PgArray, type_: str, values: list[object]
) -> None:
    async with owner_engine.connect() as connection:
        result = await connection.exec_driver_sql(f"SELECT %(packed)s::{type_}[]", {"packed": packed})
        assert result.scalar_one() == values


@pytest.mark.parametrize("wrong", [[2**31], ["1"], [None]])
async def test_a_value_that_does_not_fit_is_refused_before_anything_is_sent(wrong: list[int]) -> None:
    with pytest.raises(NotPackable):
        Int4s.of(wrong)
