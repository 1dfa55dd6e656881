"""The state of a run is the fold of its events, however the log is cut; a superseded attempt leaves no trace in it."""

import copy
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore.domain.events import BODIES
from eventstore.domain.lifecycle import TABLE, TERMINAL_STATUSES, TERMINAL_TYPES
from eventstore.domain.record import Fact, Recorded
from eventstore.domain.run import CASES, TAKEN_BACK, RunState, fold
from eventstore.domain.transcript import partial, public
from tests.histories import facts, histories, mark, superseded


@given(histories())
def test_folding_a_log_in_two_parts_gives_the_same_state_for_every_cut(history: list[Recorded]) -> None:
    log = facts(history)
    whole = fold(log)
    for cut in range(len(log) + 1):
        assert fold(log[cut:], fold(log[:cut])) == whole


@given(histories(), st.data())
def test_folding_in_any_number_of_parts_gives_the_same_state(history: list[Recorded], data: st.DataObject) -> None:
    log, state = facts(history), RunState()
    whole = fold(log)
    while log:
        size = data.draw(st.integers(1, len(log)))
        state, log = fold(log[:size], state), log[size:]
    assert state == whole


@given(histories())
def test_fold_changes_neither_its_state_nor_its_facts(history: list[Recorded]) -> None:
    log = facts(history)
    for cut in range(len(log) + 1):
        before, after = log[:cut], log[cut:]
        state = fold(before)
        kept, kept_facts = copy.deepcopy(state), copy.deepcopy(after)
        fold(after, state)
        assert state == kept
        assert after == kept_facts


@given(histories())
def test_text_of_a_superseded_event_appears_in_no_state_partial_or_public(history: list[Recorded]) -> None:
    log = facts(history)
    state = fold(log)
    told = repr(public(state)) + repr(partial(state)) + repr(state)
    dead = superseded(log)
    for fact in log:
        if fact.seq in dead and fact.type in TAKEN_BACK | {"token", "reasoning"}:
            assert mark(fact.seq) not in told


@given(histories())
def test_after_a_retry_the_state_is_as_if_the_superseded_had_never_been_said(history: list[Recorded]) -> None:
    log = facts(history)
    dead = superseded(log)
    living = [fact for fact in log if fact.seq not in dead or fact.type not in TAKEN_BACK | {"token", "reasoning"}]
    last = log[-1]
    expected, found = fold(living), fold(log)
    assert replace(found, sections={}) == replace(expected, sections={}, seq=last.seq, updated_us=last.at_us)
    assert partial(found) == partial(expected)


def test_a_superseded_answer_of_a_tool_leaves_the_living_call_alone() -> None:
    call = Fact(5, "tool_call", 0, 1, {"call_id": "c", "tool": "lookup"})
    answer = Fact(9, "tool_result", 0, 1, {"call_id": "c", "summary": "wrong"})
    retry = Fact(10, "retry", 0, 1, {"superseded": [[8, 9]]})
    assert fold([call, answer, retry]).tools == {"c": (5, call.data)}


def test_a_finding_that_was_replaced_by_a_superseded_one_comes_back() -> None:
    first = Fact(5, "finding", 0, 1, {"item": "a", "value": {"risk": "low"}})
    second = Fact(9, "finding", 0, 1, {"item": "a", "value": {"risk": "high"}})
    retry = Fact(10, "retry", 0, 1, {"superseded": [[8, 9]]})
    assert fold([first, second, retry]).findings == {"a": (5, {"risk": "low"})}


def test_a_question_keeps_its_answer_whatever_is_tried_again() -> None:
    asked = [Fact(3, "escalation", 0, 1, {"question": "Keep?"}), Fact(5, "escalation", 0, 1, {"question": "And now?"})]
    decided = Fact(6, "decision", 0, 1, {"escalation": 3, "choice": "keep"})
    retry = Fact(7, "retry", 0, 1, {"superseded": [[2, 6]]})
    before = fold(asked)
    after = fold([decided, retry, Fact(8, "decision", 0, 1, {"escalation": 99})], before)
    assert public(after)["questions"] == [
        {"seq": 3, "question": "Keep?", "decision": {"seq": 6, "escalation": 3, "choice": "keep"}},
        {"seq": 5, "question": "And now?"},
    ]
    assert [one.get("decision") for one in before.questions.values()] == [None, None]


def test_only_text_that_is_meant_to_be_read_becomes_a_section() -> None:
    told = [Fact(1, "token", 0, 1, {"text": '{"a":', "section": "s", "shape": "json"})]
    assert fold(told).sections == {}


@given(histories())
def test_the_status_is_ended_exactly_when_a_terminal_event_is_there(history: list[Recorded]) -> None:
    log = facts(history)
    state = fold(log)
    assert (state.status in TERMINAL_STATUSES) == (log[-1].type in TERMINAL_TYPES)
    assert (state.result is not None) == (log[-1].type == "result")


@given(histories())
def test_usage_counts_what_was_spent_by_superseded_attempts_too(history: list[Recorded]) -> None:
    log = facts(history)
    spent = sum(f.data["usage"]["input_tokens"] for f in log if f.type in ("model_call", "cancel_observed"))
    assert fold(log).usage.input_tokens == spent


@given(histories(), st.data())
def test_a_fold_takes_what_a_role_may_see_and_insists_on_nothing(history: list[Recorded], data: st.DataObject) -> None:
    log = []
    for fact in facts(history):
        shown = data.draw(st.sets(st.sampled_from(sorted(fact.data))))
        log.append(Fact(fact.seq, fact.type, fact.at_us, fact.attempt, {name: fact.data[name] for name in shown}))
    state = fold(log)
    public(state)
    assert state.status == fold(facts(history)).status


def test_every_event_type_has_a_case() -> None:
    assert set(CASES) == set(BODIES)


@pytest.mark.parametrize("type_", sorted({type_ for row in TABLE.values() for type_ in row} | {"accepted"}))
def test_a_fact_without_any_field_breaks_no_fold(type_: str) -> None:
    assert fold([Fact(1, type_, 0, 1, {})]).seq == 1
