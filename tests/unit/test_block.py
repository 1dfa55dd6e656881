"""A block's bytes say one thing each, and nothing else passes for a block."""

from hashlib import sha256
from struct import pack
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore.domain import block, merkle
from eventstore.domain.block import BadBlock, Entry, Header, Kind, fault_of

UUIDS = st.integers(0, 2**128 - 1).map(lambda number: UUID(int=number))
HASHES = st.binary(min_size=32, max_size=32)
ENTRIES = st.builds(Entry, UUIDS, UUIDS, st.integers(0, 2**31 - 1), HASHES, st.booleans())
LISTS = st.lists(ENTRIES, max_size=9, unique_by=lambda entry: entry.run_id).map(
    lambda entries: b"".join(entry.encode() for entry in sorted(entries, key=lambda entry: entry.run_id))
)


@given(ENTRIES)
def test_an_entry_is_its_five_fields_at_fixed_width(entry: Entry) -> None:
    raw = entry.encode()
    assert raw == (
        entry.run_id.bytes + entry.tenant_id.bytes + entry.seq.to_bytes(4, "big") + entry.chain + bytes([entry.closed])
    )
    assert len(raw) == block.ENTRY_BYTES == 69
    assert list(block.decode_entries(raw)) == [entry]


@given(st.integers(1, 2**63 - 1), st.integers(0, 2**62), LISTS, st.none() | st.binary(max_size=50))
def test_a_header_comes_back_from_its_bytes_and_fits_its_entries(
    block_no: int, sealed_us: int, entries: bytes, statement: bytes | None
) -> None:
    header = (
        block.new_block(block_no, sealed_us, entries)
        if statement is None
        else block.new_incarnation(block_no, sealed_us, entries, statement)
    )
    raw, count = header.encode(), len(entries) // 69
    leaves = [merkle.leaf_hash(entries[n * 69 : n * 69 + 69]) for n in range(count)]
    told = pack(">qqi", block_no, sealed_us, count) + merkle.tree_root(leaves)
    end = b"" if statement is None else sha256(statement).digest()
    assert raw == bytes([3 if statement is None else 4]) + b"runwire/1" + told + end
    assert block.decode_header(raw) == header
    assert fault_of(header, entries, statement) is None
    for length in range(len(raw)):
        if length != 62:
            with pytest.raises(BadBlock):
                block.decode_header(raw[:length])


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        bytes(62),
        b"\x05runwire/1" + pack(">qqi", 1, 0, 0) + bytes(32),
        b"\x03runwire/2" + pack(">qqi", 1, 0, 0) + bytes(32),
        b"\x03runwire/1" + pack(">qqi", 0, 0, 0) + bytes(32),
        b"\x03runwire/1" + pack(">qqi", 1, 0, -1) + bytes(32),
        b"\x03runwire/1" + pack(">qqi", 1, 0, 0) + bytes(64),
        b"\x04runwire/1" + pack(">qqi", 1, 0, 0) + bytes(32),
    ],
)
def test_bytes_that_are_no_header_are_none(raw: bytes) -> None:
    with pytest.raises(BadBlock):
        block.decode_header(raw)


@pytest.mark.parametrize("raw", [bytes(68), bytes(68) + b"\x02", bytes(32) + b"\xff" * 4 + bytes(33)])
def test_bytes_that_are_no_entries_are_none(raw: bytes) -> None:
    with pytest.raises(BadBlock):
        list(block.decode_entries(raw))


def test_what_does_not_fit_between_a_header_and_its_entries_is_said() -> None:
    first, second = (Entry(UUID(int=n), UUID(int=9), n, bytes(32), False).encode() for n in (1, 2))
    header = block.new_block(1, 0, first + second)
    assert "counts 2 entries, 1 are there" in (fault_of(header, first, None) or "")
    assert "not those" in (fault_of(header, second + first, None) or "")
    assert "order" in (fault_of(block.new_block(1, 0, second + first), second + first, None) or "")
    assert "order" in (fault_of(block.new_block(1, 0, first + first), first + first, None) or "")
    assert "statement" in (fault_of(header, first + second, b"x") or "")
    told = block.new_incarnation(1, 0, first, b"why")
    assert "statement" in (fault_of(told, first, b"another why") or "")
    assert "statement" in (fault_of(told, first, None) or "")
    assert fault_of(Header(Kind.BLOCK, 1, 0, 0, merkle.EMPTY), b"", None) is None
