"""A wake-up is a hint: whatever comes over the wire, reading it never fails and never invents a position."""

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from eventstore.wakeups import connect, moved_payload, parse_moved, publish

POSITIONS = st.lists(st.tuples(st.uuids(), st.integers(1, 2**31 - 1)), max_size=5)


@given(POSITIONS)
def test_positions_read_back_as_they_were_sent(positions: list[tuple[UUID, int]]) -> None:
    assert parse_moved(moved_payload(positions)) == positions


@given(st.text())
def test_no_text_breaks_the_reader(payload: str) -> None:
    parse_moved(payload)


@given(POSITIONS, st.sampled_from(["", "x", ":", "z" * 32 + ":1", "0" * 32 + ":", "0" * 32 + ":-1", "0" * 32 + ":²"]))
def test_what_cannot_be_read_is_left_out_and_the_rest_is_kept(positions: list[tuple[UUID, int]], junk: str) -> None:
    assert parse_moved(f"{junk} {moved_payload(positions)} {junk}") == positions


def test_a_position_of_five_thousand_digits_is_left_out() -> None:
    assert parse_moved("0" * 32 + ":" + "9" * 5000) == []


async def test_publishing_without_redis_answers_no_and_raises_nothing() -> None:
    client = connect("redis://127.0.0.1:1/0")
    assert await publish(client, "runwire:moved", "") is False
    await client.aclose()
