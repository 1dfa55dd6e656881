"""The reading of server-sent events, in whatever pieces they come."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops import sse
from ops.sse import Sse, SseError, events

STREAM = (
    'retry: 1000\nid: 1\nevent: token\ndata: {"text":"é – 契"}\n\n:\n'
    "id: 2\r\nevent: result\r\ndata: a\r\ndata: b\r\n\r\n"
).encode()
EXPECTED = [Sse("1", "token", '{"text":"é – 契"}'), Sse("2", "result", "a\nb")]


@given(st.lists(st.integers(0, len(STREAM))))
def test_a_stream_reads_the_same_however_it_is_cut(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[first:last] for first, last in pairwise(places)]
    assert list(events(pieces)) == EXPECTED


@pytest.mark.parametrize("cut", range(1, 40))
def test_an_event_that_was_cut_off_is_left_out(cut: int) -> None:
    assert list(events([STREAM[:-cut]]))[:1] == EXPECTED[:1]
    assert list(events([STREAM[: len(STREAM) - cut]])) in (EXPECTED, EXPECTED[:1])


def test_comments_and_events_without_data_are_no_events() -> None:
    assert list(events([b":\n:\n\nevent: nothing\n\n"])) == []


def test_an_event_without_an_id_has_none() -> None:
    assert list(events([b"id: 7\ndata: a\n\nevent: lagging\ndata: b\n\n"])) == [
        Sse("7", "message", "a"),
        Sse("", "lagging", "b"),
    ]


def test_a_line_without_an_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "LONGEST_LINE_BYTES", 1000)
    with pytest.raises(SseError):
        list(events(b"data: " + b"x" * 100 for _ in range(50)))
