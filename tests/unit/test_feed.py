"""The feed: whatever way the log is cut into pages, a reader gets the same frames, and none after the end."""

from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.fronts.feed import Feed, Frame, Gap, View
from api.policies import load
from api.settings import ROOT
from eventstore.domain.disclosure import ROLES, Role
from eventstore.domain.events import Reasoning
from eventstore.domain.lifecycle import FINAL_TYPE, TERMINAL_TYPES
from eventstore.domain.record import Recorded
from eventstore.tail import Entry
from tests.histories import RUN, histories, recorded
from tests.writing import accepted, result, started, token

POLICIES = load(ROOT / "policies")
VIEWS: dict[Role, View] = {role: POLICIES.view("contract_review", role) for role in ROLES}
views = st.sampled_from(list(VIEWS.values()))


def entries(history: list[Recorded]) -> list[Entry]:
    return [Entry(event) for event in history]


def all_frames(history: list[Recorded], view: View) -> list[Frame]:
    return Feed(view, 0).take(entries(history))


@given(histories(), views, st.data())
def test_any_cutting_of_a_history_into_pages_gives_the_same_frames(
    history: list[Recorded], view: View, data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(history)), max_size=5)))
    overlap = data.draw(st.integers(0, 3))
    feed, taken = Feed(view, 0), list[Frame]()
    for start, stop in pairwise([0, *cuts, len(history)]):
        taken += feed.take(entries(history[max(0, start - overlap) : stop]))
    assert taken == all_frames(history, view)
    assert feed.cursor == len(history)


@given(histories(), views, st.data())
def test_a_reader_that_returns_at_any_cursor_gets_exactly_the_rest(
    history: list[Recorded], view: View, data: st.DataObject
) -> None:
    after = data.draw(st.integers(0, len(history)))
    rest = Feed(view, after).take(entries(history[after:]))
    assert rest == [frame for frame in all_frames(history, view) if (frame.seq or 0) > after]


@given(histories())
def test_an_entry_keeps_the_frames_of_its_views_and_not_what_they_were_made_of(history: list[Recorded]) -> None:
    stored = entries(history)
    for view in VIEWS.values():
        for entry in stored:
            assert view.data(entry) is view.data(entry)
    assert all(entry._fact is None and len(entry.frames) == len(VIEWS) for entry in stored)


@given(histories(), views, st.integers(1, 4))
def test_small_answers_one_after_the_other_give_the_same_frames(
    history: list[Recorded], view: View, limit: int
) -> None:
    feed, taken = Feed(view, 0), list[Frame]()
    while feed.cursor < len(history):
        page = feed.take(entries(history[feed.cursor :]), limit)
        assert len(page) <= limit
        taken += page
    assert taken == all_frames(history, view)


@given(histories(), views)
def test_nothing_follows_the_terminal_event(history: list[Recorded], view: View) -> None:
    if history[-1].type not in TERMINAL_TYPES:
        return
    feed = Feed(view, 0)
    frames = feed.take(entries(history))
    assert feed.closed
    assert frames[-1].type in TERMINAL_TYPES
    assert [frame.type for frame in frames if frame.type in TERMINAL_TYPES] == [frames[-1].type]
    after_the_end = [Entry(event) for event in recorded([accepted()] * (len(history) + 2))]
    assert feed.take(after_the_end) == []


@given(histories(), views)
def test_only_a_result_is_ever_marked_final(history: list[Recorded], view: View) -> None:
    for frame in all_frames(history, view):
        assert orjson.loads(frame.data)["final"] is (frame.type == FINAL_TYPE)


def test_the_cursor_moves_over_what_the_view_withholds() -> None:
    history = recorded([accepted(), started(), Reasoning(text="hm", step="draft#1", attempt=1)])
    feed = Feed(VIEWS["user"], 2)
    assert feed.take(entries(history)) == []
    assert feed.cursor == 3


def test_a_hole_in_the_log_is_never_jumped_over() -> None:
    history = recorded([accepted(), started(), token("a"), token("b")])
    feed = Feed(VIEWS["user"], 0)
    with pytest.raises(Gap):
        feed.take(entries([history[0], history[1], history[3]]))
    assert feed.cursor == 2


def test_a_feed_with_an_end_closes_there() -> None:
    history = recorded([accepted(), started(), token("a"), result()])
    feed = Feed(VIEWS["user"], 0, upto=2)
    assert [frame.seq for frame in feed.take(entries(history))] == [1, 2]
    assert feed.closed
    assert Feed(VIEWS["user"], 2, upto=2).closed


def test_an_event_is_encoded_once_for_all_readers_of_a_view() -> None:
    [entry] = entries(recorded([accepted()]))
    first, second = (Feed(VIEWS["user"], 0).take([entry])[0].data for _ in range(2))
    assert first is second
    assert Feed(VIEWS["officer"], 0).take([entry])[0].data != first


def test_the_envelope_says_where_the_event_stands_and_what_the_role_may_see() -> None:
    history = recorded([accepted(), started(), token("Clause 4.1")])
    told: dict[str, Any] = orjson.loads(all_frames(history, VIEWS["user"])[2].data)
    assert list(told) == ["seq", "run_id", "type", "at", "attempt", "final", "data"]
    assert (told["seq"], told["run_id"], told["type"], told["attempt"]) == (3, str(RUN), "token", 1)
    assert told["at"] == "2026-09-21T14:13:20.003007Z"
    assert told["data"]["text"] == "Clause 4.1"
