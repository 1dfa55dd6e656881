"""Slow readers: whatever is gathered for them, wherever, they end with what everybody else has."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any
from uuid import UUID

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from api.fronts.feed import OWN_TYPES, Feed, Frame, View
from api.fronts.lagging import DRAFT_TYPES, STRETCH_MIN, Bounds, Lag, conflated
from api.fronts.opening import drafts_of
from api.policies import load
from api.settings import ROOT
from eventstore.domain.disclosure import ROLES
from eventstore.domain.events import BODIES, Finding, Retry, Token
from eventstore.domain.record import Fact, Recorded
from eventstore.domain.run import RunState, fold
from eventstore.tail import Entry
from tests.histories import histories, recorded
from tests.writing import accepted, result, started, token

POLICIES = load(ROOT / "policies")
USER = POLICIES.view("contract_review", "user")
VIEWS = [POLICIES.view("contract_review", role) for role in ROLES]
views = st.sampled_from(VIEWS)
some = settings(max_examples=50, deadline=None)


class Folding:
    """A reader who folds what it is given. It takes a `lagging` frame's pieces for the events that they were."""

    def __init__(self) -> None:
        self.facts: dict[int, Fact] = {}

    def take(self, frames: Iterable[Frame]) -> None:
        for frame in frames:
            told = orjson.loads(frame.data)
            for event in unfolded(told) if frame.type == "lagging" else [told]:
                self.facts.setdefault(event["seq"], fact_of(event))

    def state(self) -> RunState:
        state = fold(self.facts[seq] for seq in sorted(self.facts))
        state.updated_us = None  # of the last event: that is told, but not when those before it were
        return state


def unfolded(told: dict[str, Any]) -> list[dict[str, Any]]:
    """The events that a `lagging` frame stands for, as far as they were said."""
    return [
        {**draft, "seq": seq, "data": {**draft["shared"], "text": text}}
        for draft in told["data"]["drafts"]
        for seq, text in draft["pieces"]
    ]


def fact_of(event: dict[str, Any]) -> Fact:
    return Fact(event["seq"], event["type"], 0, event["attempt"], event["data"])


def pages(history: Sequence[Recorded], cuts: Sequence[int]) -> list[list[Entry]]:
    return [[Entry(event) for event in history[start:stop]] for start, stop in pairwise([0, *cuts, len(history)])]


def drafty(history: list[Recorded], view: View) -> list[Frame]:
    return Feed(view, 0).take([Entry(event) for event in history])


@st.composite
def wordy(draw: st.DrawFn) -> list[Recorded]:
    """A history with long stretches of text, and retries that take back any part of them."""
    bodies: list[Any] = [accepted(), started()]
    for _ in range(draw(st.integers(1, 5))):
        for _ in range(draw(st.integers(0, 8))):
            section, attempt = draw(st.sampled_from("ab")), draw(st.integers(1, 2))
            text = f"«{len(bodies) + 1}»"
            bodies.append(Token(text=text, section=section, step=f"draft#{section}", attempt=attempt))
        seq = len(bodies) + 1
        if draw(st.booleans()):
            bodies.append(Finding(item=draw(st.sampled_from("xy")), value={"n": seq}, key="k", place=1, args="00"))
        else:
            first = draw(st.integers(2, seq - 1))
            taken = [(first, draw(st.integers(first, seq - 1)))]
            bodies.append(Retry(what="model", key="k", reason="r", message="m", superseded=taken, attempt=1))
    return recorded([*bodies, *([result()] if draw(st.booleans()) else [])])


@some
@given(st.one_of(histories(), wordy()), views, st.data())
def test_a_reader_who_lags_anywhere_ends_in_the_state_of_one_who_read_everything(
    history: list[Recorded], view: View, data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(history)), max_size=4)))
    slow, quick, ahead, other = Folding(), Folding(), Feed(view, 0), Feed(view, 0)
    for page in pages(history, cuts):
        given_ = ahead.take(page)
        slow.take(conflated(given_) if data.draw(st.booleans()) else given_)
        quick.take(other.take(page))
        assert slow.state() == quick.state()


@some
@given(st.one_of(histories(), wordy()), views, st.data())
def test_a_slow_reader_who_is_cut_off_anywhere_goes_on_from_its_last_id(
    history: list[Recorded], view: View, data: st.DataObject
) -> None:
    given_ = conflated(drafty(history, view))
    came = given_[: data.draw(st.integers(0, len(given_)))]
    cursor = max((frame.seq or 0 for frame in came), default=0)
    rest = Feed(view, cursor).take([Entry(event) for event in history[cursor:]])
    slow, quick = Folding(), Folding()
    slow.take([*came, *rest])
    quick.take(drafty(history, view))
    assert slow.state() == quick.state()


@some
@given(st.one_of(histories(), wordy()), views)
def test_only_draft_text_is_gathered_and_all_else_keeps_its_place_and_its_bytes(
    history: list[Recorded], view: View
) -> None:
    whole = drafty(history, view)
    given_ = conflated(whole)
    assert [frame for frame in given_ if frame.type not in DRAFT_TYPES and frame.seq is not None] == [
        frame for frame in whole if frame.type not in DRAFT_TYPES
    ]
    assert [frame for frame in given_ if frame.seq is not None] == [frame for frame in whole if frame in given_]
    covered = [frame.seq for frame in given_]
    for place, frame in enumerate(given_):
        if frame.seq is None:
            told = orjson.loads(frame.data)
            assert (frame.type, told["type"], told["final"], "seq" in told) == ("lagging", "lagging", False, False)
            following = given_[place + 1].seq
            assert following is not None
            assert told["data"]["last"] < following
            inside = [one for one in whole if told["data"]["first"] <= (one.seq or 0) <= told["data"]["last"]]
            assert told["data"]["count"] == len(inside) >= STRETCH_MIN - 1
            assert {one.type for one in inside} <= DRAFT_TYPES
            assert not {one.seq for one in inside} & set(covered)


@some
@given(st.one_of(histories(), wordy()), st.data())
def test_text_of_a_snapshot_is_taken_back_by_a_later_retry_piece_by_piece(
    history: list[Recorded], data: st.DataObject
) -> None:
    """A reader that begins with the state at a place, drops what retries name and adds what comes, has the draft."""
    facts = [event.fact() for event in history]
    place = data.draw(st.integers(0, len(facts)))
    drafts = drafts_of(fold(facts[:place]))
    pieces = {(draft["type"], draft["shared"].get("section"), *piece) for draft in drafts for piece in draft["pieces"]}
    for fact in facts[place:]:
        if fact.type in DRAFT_TYPES and fact.data.get("shape", "text") == "text":
            pieces.add((fact.type, fact.data.get("section"), fact.seq, fact.data["text"]))
        if fact.type == "retry":
            dead = fact.data["superseded"]
            pieces = {piece for piece in pieces if not any(first <= piece[2] <= last for first, last in dead)}
    whole = drafts_of(fold(facts))
    assert pieces == {
        (draft["type"], draft["shared"].get("section"), *piece) for draft in whole for piece in draft["pieces"]
    }


def test_what_is_gathered_is_much_smaller_and_text_that_is_taken_back_is_not_said() -> None:
    retry = Retry(what="model", key="k", reason="r", message="m", superseded=[(3, 101)], attempt=1)
    history = recorded([accepted(), started(), *[token("dead")] * 100, retry, *[token("word ")] * 300, result()])
    whole = drafty(history, USER)
    given_ = conflated(whole)
    assert [frame.type for frame in given_] == [
        "accepted", "started", "lagging", "token", "retry", "lagging", "token", "result",
    ]  # fmt: skip
    first, second = (orjson.loads(frame.data)["data"] for frame in given_ if frame.type == "lagging")
    assert (first["first"], first["last"], first["count"], first["drafts"]) == (3, 101, 99, [])
    [draft] = second["drafts"]
    assert draft["shared"] == {"section": "comments", "step": "draft#1", "attempt": 1, "shape": "text"}
    assert [text for _, text in draft["pieces"]] == ["word "] * 299
    assert sum(len(frame.data) for frame in given_) * 8 < sum(len(frame.data) for frame in whole)


def test_a_reader_lags_only_when_it_is_far_behind_and_its_own_socket_is_why() -> None:
    def size(count: int) -> Any:
        return lambda: count

    lag = Lag(Bounds(events=10, bytes=1_000, held_s=2.0))
    assert not lag.lags(5_000, size(1 << 20), held_s=1.9), "far behind, but it takes what it is given"
    assert not lag.lags(9, size(999), held_s=5.0), "held up, but near the end"
    assert not lag.lags(10, size(0), held_s=6.9), "what held it up before it was near is forgotten"
    assert lag.lags(10, size(0), held_s=7.0)
    assert lag.lags(1, size(1_000), held_s=7.0), "few events, and large"
    assert lag.lags(10, size(0), held_s=7.1), "until it is near again"
    assert not lag.lags(2, size(10), held_s=7.2)
    assert not lag.lags(10, size(0), held_s=7.3)
    lag.near(held_s=9.0)
    assert not lag.lags(10, size(0), held_s=10.9)


def test_no_event_is_called_what_streams_say_of_themselves() -> None:
    assert not set(OWN_TYPES) & set(BODIES)


# --- readers of some types only


TYPES = st.frozensets(st.sampled_from(list(BODIES)), min_size=1, max_size=4)


def ends(history: list[Recorded]) -> bool:
    return history[-1].type in {"result", "cancelled", "error"}


@some
@given(histories(), views, TYPES, st.data())
def test_a_reader_of_some_types_gets_their_very_frames_and_always_the_end(
    history: list[Recorded], view: View, types: frozenset[str], data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(history)), max_size=4)))
    feed, taken = Feed(view.only(types), 0), list[Frame]()
    for page in pages(history, cuts):
        taken += feed.take(page)
    always = {"result", "cancelled", "error"} | ({"retry"} if types & {*DRAFT_TYPES, "progress", "finding"} else set())
    whole = drafty(history, view)
    assert [frame for frame in whole if frame.type in types | always] == [
        frame for frame in taken if frame.type in types | always
    ]
    assert {frame.type for frame in taken} <= types | always | {"retry"}
    assert feed.closed is ends(history)
    assert all(frame in whole for frame in taken)


@some
@given(histories(), views, st.sampled_from(["result", "accepted", "step"]), st.integers(1, 5), st.data())
def test_a_reader_who_leaves_most_out_never_falls_far_behind_its_place(
    history: list[Recorded], view: View, type_: str, every: int, data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(history)), max_size=6)))
    feed, told = Feed(view.only([type_]), 0, checkpoint_every=every), 0
    for page in pages(history, cuts):
        for frame in feed.take(page):
            assert frame.seq is not None
            assert frame.seq > told
            told = frame.seq
            if frame.type == "checkpoint":
                assert orjson.loads(frame.data) == {
                    "seq": told, "run_id": str(history[0].run_id), "type": "checkpoint", "final": False, "data": {},
                }  # fmt: skip
        assert feed.closed or feed.cursor - told < every
    assert feed.closed is ends(history)


def test_without_a_filter_there_is_no_checkpoint_and_after_the_end_neither() -> None:
    history = recorded([accepted(), started(), *[token("a")] * 20, result()])
    assert [frame.type for frame in drafty(history, POLICIES.view("contract_review", "operator"))] == [
        "accepted", "started", "result",
    ]  # fmt: skip
    feed = Feed(USER.only(["result"]), 0, checkpoint_every=1)
    assert [frame.type for frame in feed.take([Entry(event) for event in history])] == ["result"]
    assert feed.checkpoint(UUID(int=0)) == []


def test_a_filter_shows_nothing_that_the_role_may_not_see() -> None:
    operator = POLICIES.view("contract_review", "operator")
    history = recorded([accepted(), started(), token("a"), result()])
    assert [frame.type for frame in drafty(history, operator.only(["token"]))] == ["result"]
    assert operator.only(["token"]).only(["result"]).name == operator.only(["result"]).name
