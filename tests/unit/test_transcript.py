"""What a reader who does not follow every event is told: never final before the result, milestones in their place."""

from collections.abc import Iterator, Mapping
from typing import Any

import orjson
from hypothesis import given

from eventstore.domain.record import Fact, Recorded
from eventstore.domain.run import RunState, fold
from eventstore.domain.transcript import milestones, partial, public, section_text
from tests.histories import PLAN, facts, histories, superseded


def said_final(value: Any, path: str = "") -> Iterator[str]:
    """Where in this value something calls itself final."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if name == "final" and inner is True:
                yield path
            yield from said_final(inner, f"{path}/{name}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from said_final(inner, f"{path}/{index}")


@given(histories())
def test_nothing_is_final_but_a_stored_result(history: list[Recorded]) -> None:
    log = facts(history)
    for cut in range(len(log) + 1):
        state = fold(log[:cut])
        told = public(state)
        ended_well = cut > 0 and log[cut - 1].type == "result"
        assert list(said_final(told)) == (["/result"] if ended_well else [])
        assert (told["partial"] is None) == ended_well
        assert (told["result"] is None) != ended_well
        assert partial(state)["final"] is False


def test_a_partial_result_that_calls_itself_final_is_put_right() -> None:
    for type_ in ("cancelled", "error"):
        state = fold([Fact(1, type_, 0, 1, {"partial": {"final": True, "text": "half"}})])
        assert public(state)["partial"]["final"] is False
        assert public(state)["partial"]["text"] == "half"


@given(histories())
def test_the_public_state_is_json_and_shares_nothing_that_could_be_changed_through_it(history: list[Recorded]) -> None:
    state = fold(facts(history))
    told = public(state)
    assert orjson.loads(orjson.dumps(told)) == told
    told["milestones"].clear()
    told["findings"].clear()
    told["usage"].clear()
    assert public(state)["seq"] == state.seq
    assert public(state)["milestones"] != [] or state.plan == []


@given(histories())
def test_a_section_is_the_living_text_in_order(history: list[Recorded]) -> None:
    log = facts(history)
    dead = superseded(log)
    for section in ("comments", "summary", "never written"):
        assert section_text(fold(log), section) == "".join(
            fact.data["text"]
            for fact in log
            if fact.type == "token"
            and fact.data["section"] == section
            and fact.data["shape"] == "text"
            and fact.seq not in dead
        )


@given(histories())
def test_milestones_are_the_plan_in_order_with_one_current_at_most(history: list[Recorded]) -> None:
    log = facts(history)
    state = fold(log)
    told = milestones(state)
    assert [(one["state"], one["label"]) for one in told] == [(one.state, one.label) for one in PLAN]
    assert [one["index"] for one in told] == [1, 2, 3, 4]
    places = [one["place"] for one in told]
    assert places == sorted(places, key=["done", "current", "to_come"].index)
    dead = superseded(log)
    reached = [fact.data["index"] for fact in log if fact.type == "progress" and fact.seq not in dead]
    index = reached[-1] if reached else 0
    if log[-1].type == "result":
        assert places == ["done"] * 4
    else:
        assert places.count("current") == (1 if index else 0)
        assert places.count("done") == max(index - 1, 0)


def test_an_empty_state_can_be_told() -> None:
    told = public(RunState())
    assert told["status"] is None
    assert not told["done"]
    assert told["created_at"] is None
    assert told["milestones"] == []


def test_a_cancelled_run_says_who_why_and_what_is_missing() -> None:
    state = fold(
        [
            Fact(1, "cancel_requested", 0, 1, {"by": {"subject": "ada"}, "reason": "enough"}),
            Fact(2, "cancelled", 0, 1, {"reason": "enough", "missing": ["summary"], "partial": {"text": "half"}}),
        ]
    )
    told = public(state)
    assert told["cancel"] == {"by": {"subject": "ada"}, "reason": "enough", "missing": ["summary"]}
    assert told["partial"]["text"] == "half"
