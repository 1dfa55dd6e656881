"""Folded states: a poll that goes on from where it was tells what one from the start would, in bounded memory."""

import asyncio
from typing import cast
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncEngine

from api.policies import load
from api.settings import ROOT
from api.states import TEXT_BYTES, Pages, States, Stretch
from eventstore.domain.events import BODIES, Reasoning
from eventstore.domain.record import Recorded
from eventstore.domain.run import FOLD_VERSION, RunState, fold
from eventstore.log import Page
from eventstore.tail import Entry
from tests.histories import RUN, TENANT, facts, histories, recorded
from tests.writing import accepted, started, token

POLICIES = load(ROOT / "policies")
OFFICER = POLICIES.view("contract_review", "officer")
USER = POLICIES.view("contract_review", "user")
PAGE = 3
MUCH = 1 << 30


class Stored:
    """A log in memory, as far as it has come."""

    def __init__(self, history: list[Recorded], run_id: UUID = RUN) -> None:
        self.history = history
        self.run_id = run_id
        self.asked: list[int] = []

    async def after(self, seq: int) -> Stretch:
        self.asked.append(seq)
        page = self.history[seq : seq + PAGE]
        return Stretch([Entry(event) for event in page], len(self.history) > seq + len(page))

    anew = after

    async def read(self, seq: int) -> Page:
        self.asked.append(seq)
        return Page(self.history[seq : seq + PAGE], len(self.history) > seq + PAGE)


class Slow(Stored):
    """A log that lets others have a turn at each page."""

    async def after(self, seq: int) -> Stretch:
        await asyncio.sleep(0)
        return await super().after(seq)

    anew = after


def pages(stored: Stored) -> Pages:
    return cast("Pages", stored)


@given(histories(), st.data())
async def test_a_state_folded_bit_by_bit_is_the_state_folded_at_once(
    history: list[Recorded], data: st.DataObject
) -> None:
    states = States(8, MUCH)
    for cut in sorted(data.draw(st.lists(st.integers(1, len(history)), max_size=4))):
        known = await states.at_end(pages(Stored(history[:cut])), OFFICER)
        assert known.state == fold(facts(history[:cut]))
    stored = Stored(history)
    known = await states.at_end(pages(stored), OFFICER)
    assert (known.seq, known.state) == (len(history), fold(facts(history)))
    again = Stored(history)
    assert await states.at_end(pages(again), OFFICER) == known
    assert again.asked == [len(history) - 1, len(history)]


@given(histories(), st.data())
async def test_a_state_at_a_place_is_the_fold_up_to_there(history: list[Recorded], data: st.DataObject) -> None:
    """Asked in any order, so from any place that is known already."""
    states = States(8, MUCH)
    for seq in data.draw(st.lists(st.integers(1, len(history)), min_size=1, max_size=6)):
        expected = fold(facts(history[:seq]))
        known = await states.at(pages(Stored(history)), OFFICER, seq=seq)
        assert (known.seq, known.chain, known.state) == (seq, history[seq - 1].chain, expected)
        moment = history[seq - 1].recorded_us
        then = [event for event in history if event.recorded_us <= moment]  # of one append all or none
        assert (await states.at(pages(Stored(history)), OFFICER, at_us=moment)).state == fold(facts(then))
        if data.draw(st.booleans()):
            assert (await states.at_end(pages(Stored(history)), OFFICER)).state == fold(facts(history))


async def test_a_state_at_a_place_goes_on_from_the_nearest_place_before_it() -> None:
    history = recorded([accepted(), started(), *[Reasoning(text="hm", step="d", attempt=1)] * 18])
    states = States(8, MUCH)
    await states.at_end(pages(Stored(history)), OFFICER)
    for seq, asked in ((5, [0, 3]), (12, [4, 5, 8, 11]), (13, [11, 12]), (11, [4, 5, 8]), (20, [19, 20])):
        stored = Stored(history)
        assert (await states.at(pages(stored), OFFICER, seq=seq)).seq == seq
        assert stored.asked == asked
        stored = Stored(history)
        moment = history[seq - 1].recorded_us
        assert (await states.at(pages(stored), OFFICER, at_us=moment)).seq >= seq
        assert stored.asked[0] == seq - 1


@given(histories(), histories(), st.data())
async def test_no_state_of_another_chain_is_served(
    before: list[Recorded], after: list[Recorded], data: st.DataObject
) -> None:
    """The log was put back to a backup, and went on differently."""
    states = States(8, MUCH)
    tenants = data.draw(st.permutations([TENANT, UUID(int=1)]))
    before, after = (
        recorded([BODIES[event.type].model_validate_json(event.body) for event in history], RUN, tenant)
        for history, tenant in zip((before, after), tenants, strict=True)
    )
    seq = data.draw(st.integers(1, len(before)))
    await states.at(pages(Stored(before)), OFFICER, seq=seq)
    await states.at_end(pages(Stored(before)), OFFICER)
    at = data.draw(st.integers(1, len(after)))
    assert (await states.at(pages(Stored(after)), OFFICER, seq=at)).state == fold(facts(after[:at]))
    assert (await states.at_end(pages(Stored(after)), OFFICER)).state == fold(facts(after))
    assert {known.chain for known in states._known.values()} <= {event.chain for event in after} | {
        event.chain for event in before if event.seq > at
    }


async def test_no_state_of_another_fold_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    history = recorded([accepted(), started()])
    states = States(8, MUCH)
    await states.at_end(pages(Stored(history)), OFFICER)
    monkeypatch.setattr("api.states.FOLD_VERSION", FOLD_VERSION + 1)
    stored = Stored(history)
    await states.at_end(pages(stored), OFFICER)
    assert stored.asked == [0]


async def test_a_state_that_is_served_never_changes_again() -> None:
    history = recorded([accepted(), started(), *[Reasoning(text="hm", step="d", attempt=1)] * 9])
    states = States(8, MUCH)
    known = [await states.at_end(pages(Stored(history[:end])), OFFICER) for end in range(1, len(history) + 1)]
    for seq, then in enumerate(known, start=1):
        assert then.state == fold(facts(history[:seq]))


SIZE = 2 * len(recorded([accepted()])[0].body) + TEXT_BYTES


@pytest.mark.parametrize(("states_max", "bytes_max", "kept"), [(3, MUCH, 3), (100, 7 * SIZE + SIZE // 2, 7), (9, 1, 1)])
async def test_only_the_states_used_last_are_kept(states_max: int, bytes_max: int, kept: int) -> None:
    history = recorded([accepted()])
    states = States(states_max, bytes_max)
    runs = [uuid4() for _ in range(20)]
    for run_id in runs:
        await states.at_end(pages(Stored(history, run_id)), OFFICER)
        assert states._bytes == sum(known.size for known in states._known.values())
    assert [place.run_id for place in states._known] == runs[-kept:]
    assert {place for places in states._places.values() for place in places} == set(states._known)
    assert set(states._ends.values()) == set(states._known)
    for place, run_id in enumerate(reversed(runs)):
        stored = Stored(history, run_id)
        await states.at_end(pages(stored), OFFICER)
        assert stored.asked == ([0, 1] if place < kept else [0])  # the event that it ended with is read again
        if place >= kept:
            break


async def test_a_run_that_grows_keeps_one_state_of_its_end() -> None:
    history = recorded([accepted(), started(), *[Reasoning(text="hm", step="d", attempt=1)] * 9])
    states = States(8, MUCH)
    await states.at(pages(Stored(history)), OFFICER, seq=4)
    for end in range(5, len(history) + 1):
        await states.at_end(pages(Stored(history[:end])), OFFICER)
    assert sorted(place.seq for place in states._known) == [4, len(history)]


async def test_a_run_without_events_has_an_empty_state() -> None:
    assert (await States(1, 1).at_end(pages(Stored([])), USER)).state == RunState()


async def test_each_view_has_a_state_of_its_own() -> None:
    history = recorded([accepted(), started(), Reasoning(text="hm", step="draft#1", attempt=1)])
    states = States(8, MUCH)
    assert (await states.at_end(pages(Stored(history)), OFFICER)).state.reasoning
    assert not (await states.at_end(pages(Stored(history)), USER)).state.reasoning


async def test_many_who_come_for_a_run_that_nobody_knows_fold_it_once() -> None:
    history = recorded([accepted(), started(), *(token(str(n)) for n in range(28))])
    states, logs = States(8, MUCH), [Slow(history) for _ in range(10)]
    known = await asyncio.gather(*(states.at_end(pages(one), OFFICER) for one in logs))
    assert {one.seq for one in known} == {30}
    assert sorted(len(one.asked) for one in logs)[:-1] == [2] * 9
    assert not states._turns


async def test_a_request_that_knows_less_than_a_state_forgets_nothing() -> None:
    history = recorded([accepted(), started(), *(token(str(n)) for n in range(28))])
    states, stored = States(8, MUCH), Stored(history)
    known = await states.at_end(pages(stored), OFFICER)
    behind = Pages(cast("AsyncEngine", object()), RUN, [Entry(event) for event in history[20:29]])
    behind._read = stored.read  # type: ignore[method-assign]
    stored.asked.clear()
    assert await states.at_end(behind, OFFICER) is known
    assert stored.asked == [29]
