"""Folded states: a poll that goes on from where it was tells what one from the start would, in bounded memory."""

from typing import cast
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.policies import load
from api.settings import ROOT
from api.states import Pages, States, state_at
from eventstore.domain.events import Reasoning
from eventstore.domain.record import Recorded
from eventstore.domain.run import RunState, fold
from eventstore.tail import PAGE_EVENTS_MAX, Entry
from tests.histories import RUN, facts, histories, recorded
from tests.writing import accepted, started

POLICIES = load(ROOT / "policies")
OFFICER = POLICIES.view("contract_review", "officer")
USER = POLICIES.view("contract_review", "user")


class Stored:
    """A log in memory, as far as it has come."""

    def __init__(self, history: list[Recorded], run_id: UUID = RUN) -> None:
        self.history = history
        self.run_id = run_id
        self.asked: list[int] = []

    async def after(self, seq: int) -> list[Entry]:
        self.asked.append(seq)
        return [Entry(event) for event in self.history[seq : seq + PAGE_EVENTS_MAX]]


def pages(stored: Stored) -> Pages:
    return cast("Pages", stored)


@given(histories(), st.data())
async def test_a_state_folded_bit_by_bit_is_the_state_folded_at_once(
    history: list[Recorded], data: st.DataObject
) -> None:
    states = States(8, 1_000)
    for cut in sorted(data.draw(st.lists(st.integers(1, len(history)), max_size=4))):
        known = await states.at_end(pages(Stored(history[:cut])), OFFICER)
        assert known.state == fold(facts(history[:cut]))
    stored = Stored(history)
    known = await states.at_end(pages(stored), OFFICER)
    assert (known.seq, known.state) == (len(history), fold(facts(history)))
    again = Stored(history)
    assert await states.at_end(pages(again), OFFICER) == known
    assert again.asked == [len(history)]


@given(histories(), st.data())
async def test_a_state_at_a_place_is_the_fold_up_to_there(history: list[Recorded], data: st.DataObject) -> None:
    seq = data.draw(st.integers(1, len(history)))
    known = await state_at(pages(Stored(history)), OFFICER, seq=seq)
    assert known.state == fold(facts(history[:seq]))
    moment = history[seq - 1].recorded_us
    then = [event for event in history if event.recorded_us <= moment]  # of one append all or none
    assert (await state_at(pages(Stored(history)), OFFICER, at_us=moment)).state == fold(facts(then))


@pytest.mark.parametrize(("states_max", "events_max", "kept"), [(3, 1_000, 3), (100, 7, 7)])
@given(history=histories(events_max=0).filter(lambda history: len(history) == 1))
async def test_only_the_states_used_last_are_kept(
    history: list[Recorded], states_max: int, events_max: int, kept: int
) -> None:
    states = States(states_max, events_max)
    runs = [uuid4() for _ in range(20)]
    for run_id in runs:
        await states.at_end(pages(Stored(history, run_id)), USER)
    for place, run_id in enumerate(reversed(runs)):
        stored = Stored(history, run_id)
        await states.at_end(pages(stored), USER)
        assert stored.asked[0] == (1 if place < kept else 0)
        if place >= kept:
            break


async def test_a_run_without_events_has_an_empty_state() -> None:
    assert (await States(1, 1).at_end(pages(Stored([])), USER)).state == RunState()


async def test_each_view_has_a_state_of_its_own() -> None:
    history = recorded([accepted(), started(), Reasoning(text="hm", step="draft#1", attempt=1)])
    states = States(8, 1_000)
    assert (await states.at_end(pages(Stored(history)), OFFICER)).state.reasoning
    assert not (await states.at_end(pages(Stored(history)), USER)).state.reasoning
