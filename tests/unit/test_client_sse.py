"""The client's reading of server-sent events: the same events from the same bytes, in whatever pieces they come."""

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runwire import sse
from runwire.sse import Parser, Sse, SseError

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), max_size=5)
ENDS = st.sampled_from(["\n", "\r", "\r\n"])


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, list[Sse]]:
    """A stream as some server might write it, and what it says."""
    text, said = draw(st.sampled_from(["", "\ufeff"])), []
    for _ in range(draw(st.integers(0, 5))):
        id_, name, data = draw(NAMES), draw(NAMES), draw(st.lists(NAMES, max_size=3))
        fields = [f"data: {one}" for one in data]
        fields += [f"id:{' ' if id_ else ''}{id_}"] if draw(st.booleans()) or id_ else []
        fields += [f"event: {name}"] if name else []
        fields += draw(st.lists(st.sampled_from([":", ": said into silence", "retry: 7", "else: nothing", "else"])))
        # Fields of one name keep their order; that of different names says nothing.
        places = draw(st.permutations(range(len(fields))))
        mixed = [fields[place] for place in places if not fields[place].startswith("data: ")]
        at = draw(st.integers(0, len(mixed)))
        mixed[at:at] = [field for field in fields if field.startswith("data: ")]
        end = draw(ENDS)  # one for all of an event: a CR and an LF would be one end
        text += "".join(field + end for field in mixed) + end
        if data:
            said.append(Sse(id_, name or "message", "\n".join(data)))
    cut_off = draw(st.sampled_from(["", "data: cut off", "id: 9\ndata: cut off\n", "event: x"]))
    # What ends with a CR may go on with the LF of the same end: two ends there are one.
    return text.encode() + (b"\n" if text.endswith("\r") else b"") + cut_off.encode(), said


def read(stream: bytes, cuts: list[int]) -> list[Sse]:
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    parser = Parser()
    return [event for first, last in pairwise(places) for event in parser.feed(stream[first:last])]


@given(streams(), st.lists(st.integers(0, 300), max_size=8))
@example((b"\xef\xbb\xbfdata: a\r\n\r\n", [Sse("", "message", "a")]), [1, 2, 10, 11, 12])
def test_a_stream_says_the_same_however_it_is_cut(stream: tuple[bytes, list[Sse]], cuts: list[int]) -> None:
    sent, said = stream
    assert read(sent, cuts) == said


@given(streams())
def test_and_so_it_does_byte_by_byte(stream: tuple[bytes, list[Sse]]) -> None:
    sent, said = stream
    assert read(sent, list(range(len(sent)))) == said


@given(st.binary(), st.lists(st.integers(0, 100), max_size=5))
def test_any_bytes_at_all_are_read_without_a_fault_and_alike(sent: bytes, cuts: list[int]) -> None:
    assert read(sent, cuts) == read(sent, [])


@pytest.mark.parametrize("cut", range(1, 24))
def test_an_event_that_was_cut_off_is_left_out(cut: int) -> None:
    sent = b"id: 1\ndata: a\n\nid: 2\nevent: result\ndata: b\n\n"
    assert read(sent[:-cut], []) == [Sse("1", "message", "a")]


def test_an_id_does_not_stand_for_the_events_after_it() -> None:
    assert read(b"id: 7\ndata: a\n\nevent: lagging\ndata: b\n\n", []) == [
        Sse("7", "message", "a"),
        Sse("", "lagging", "b"),
    ]


@pytest.mark.parametrize(("said", "retry_s"), [("1500", 1.5), ("0", 0.0), ("-1", None), ("1e3", None), ("٣", None)])
def test_the_wait_that_the_server_asks_for_is_plain_digits(said: str, retry_s: float | None) -> None:
    parser = Parser()
    parser.feed(f"retry: {said}\nid: 1\ndata: a\n\n".encode())
    assert parser.retry_s == retry_s


@pytest.mark.parametrize("piece", [b"x" * 100, b"data: x\n"], ids=["a line", "an event"])
def test_what_has_no_end_is_given_up(monkeypatch: pytest.MonkeyPatch, piece: bytes) -> None:
    monkeypatch.setattr(sse, "EVENT_BYTES_MAX", 1000)
    parser = Parser()
    with pytest.raises(SseError):
        all(parser.feed(piece) == [] for _ in range(2000))
