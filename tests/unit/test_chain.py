"""The evidence format: fixed vectors, a second implementation that agrees, and no change that verify misses."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventstore.domain import chain
from eventstore.domain.record import NewEvent, Recorded
from tests import second_opinion
from tests.histories import RUN, TENANT, histories, recorded
from tests.writing import accepted, result, started, token

OTHER_RUN = UUID("01928f3a-0000-7000-8000-0000000000cc")
KEY = UUID("11111111-2222-3333-4444-555555555555")

INT2 = st.integers(-(2**15), 2**15 - 1)
INT4 = st.integers(-(2**31), 2**31 - 1)
INT8 = st.integers(-(2**63), 2**63 - 1)
ROWS = st.builds(
    Recorded,
    run_id=st.uuids(),
    seq=INT4,
    epoch=INT4,
    type=st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    version=INT2,
    occurred_us=INT8,
    recorded_us=INT8,
    encoding=INT2,
    key_id=st.none() | st.uuids(),
    body=st.binary(max_size=50),
    chain=st.just(b""),
)


def header(event: Recorded) -> dict[str, object]:
    return {
        "seq": event.seq,
        "epoch": event.epoch,
        "type": event.type,
        "version": event.version,
        "occurred_us": event.occurred_us,
        "recorded_us": event.recorded_us,
        "encoding": event.encoding,
        "key_id": str(event.key_id) if event.key_id else None,
    }


@given(st.lists(ROWS, min_size=1, max_size=4), st.binary(min_size=32, max_size=32))
def test_a_second_implementation_gives_the_same_items_and_link(batch: list[Recorded], before: bytes) -> None:
    items = [second_opinion.item(header(event), event.body) for event in batch]
    assert [chain.item(event) for event in batch] == items
    assert chain.link(before, batch) == second_opinion.link(before, header(batch[0]), items)


@given(st.lists(ROWS, max_size=4))
def test_a_writer_lists_its_events_as_the_walk_reads_them(batch: list[Recorded]) -> None:
    plain = [replace(event, encoding=0, key_id=None) for event in batch]
    new = [NewEvent(event.type, event.version, event.occurred_us, event.body) for event in plain]
    assert chain.listing(new) == second_opinion.listing([chain.item(event) for event in plain])


@given(st.uuids(), st.uuids())
def test_a_second_implementation_gives_the_same_genesis(run_id: UUID, tenant_id: UUID) -> None:
    assert chain.genesis(run_id, tenant_id) == second_opinion.genesis(str(run_id), str(tenant_id))


def test_the_format_never_changes() -> None:
    """Worked out once and written down: a change of either implementation must not move these."""
    at_us = 1_790_000_000_000_001
    event = Recorded(RUN, 2, 1, "token", 1, at_us, at_us + 1, 0, None, b'{"text":"a"}', b"")
    genesis = chain.genesis(RUN, TENANT)
    assert genesis.hex() == "54653eb0d417cfcf1eec8f07e58293e52f15ad8b0f2614f67abf13641e7382d3"
    other = replace(event, seq=3, type="reasoning", key_id=KEY)
    assert chain.item(event).hex() == (
        "00010005746f6b656e00000000000000000000000000000000000000065bfeda25e0016193c97585a0f731ce7b"
        "500bb69d2476816afb14c8d95ac8e6e865f680e9e438"
    )
    assert chain.item(other).hex() == (
        "00010009726561736f6e696e6700001111111122223333444455555555555500065bfeda25e0016193c97585a0"
        "f731ce7b500bb69d2476816afb14c8d95ac8e6e865f680e9e438"
    )
    assert chain.link(genesis, [event]).hex() == "0c4807f836c4ea30ccdb642ed1d1cb98b01408104ab1f718a942c20e8511b122"
    assert (
        chain.link(genesis, [event, other]).hex() == "adc37ab246e210e79e0948a27e70d7c488cb0b6c4e318b9a50f49153eb3e34fe"
    )


@given(ROWS, ROWS)
def test_two_different_events_have_different_links(one: Recorded, other: Recorded) -> None:
    def covered(event: Recorded) -> Recorded:  # the run is tied in by genesis, "no key" is written as zeros
        return replace(event, run_id=RUN, key_id=event.key_id or UUID(int=0))

    same = covered(one) == covered(other)
    assert (chain.link(b"", [one]) == chain.link(b"", [other])) == same


@given(st.lists(ROWS, min_size=2, max_size=6), st.data())
def test_the_same_events_in_other_appends_have_another_chain(events: list[Recorded], data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, len(events) - 1))
    whole = chain.link(b"", events)
    assert chain.link(chain.link(b"", events[:cut]), events[cut:]) != whole


def test_a_name_that_runs_into_the_next_field_gives_another_item() -> None:
    event = Recorded(RUN, 2, 1, "token", 1, 1, 2, 0, None, b"", b"")
    assert chain.item(event) != chain.item(replace(event, type="toke"))
    assert chain.item(event) != chain.item(replace(event, type="token\x00"))


def check(events: list[Recorded], head: Recorded | None = None, tenant: UUID = TENANT) -> chain.Verification:
    """Verify against the head that an honest log would have."""
    told = head or events[-1]
    return chain.verify(RUN, tenant, events, told.seq, told.chain)


@given(histories())
def test_an_untouched_log_verifies_as_a_whole(history: list[Recorded]) -> None:
    assert check(history) == chain.Verification(True, len(history), history[-1].chain)


EDITS: dict[str, Callable[[Recorded], Recorded]] = {
    "body": lambda event: replace(event, body=event.body + b" "),
    "type": lambda event: replace(event, type="reasoning" if event.type != "reasoning" else "token"),
    "version": lambda event: replace(event, version=event.version + 1),
    "negative version": lambda event: replace(event, version=-1),
    "epoch": lambda event: replace(event, epoch=event.epoch + 1),
    "negative epoch": lambda event: replace(event, epoch=-event.epoch - 1),
    "seq": lambda event: replace(event, seq=event.seq + 1),
    "zero seq": lambda event: replace(event, seq=0),
    "occurred": lambda event: replace(event, occurred_us=event.occurred_us - 1),
    "negative occurred": lambda event: replace(event, occurred_us=-1),
    "recorded": lambda event: replace(event, recorded_us=event.recorded_us + 1),
    "encoding": lambda event: replace(event, encoding=1),
    "key": lambda event: replace(event, key_id=KEY),
    "run": lambda event: replace(event, run_id=OTHER_RUN),
    "chain": lambda event: replace(event, chain=bytes(32)),
    "a type too long for the format": lambda event: replace(event, type="x" * 70_000),
    "a version too large for the format": lambda event: replace(event, version=2**20),
}


@pytest.mark.parametrize("edit", EDITS)
@settings(max_examples=25)
@given(history=histories(), data=st.data())
def test_every_edit_of_a_stored_event_is_found_at_its_append(
    edit: str, history: list[Recorded], data: st.DataObject
) -> None:
    """The append that the event came with does not fit, or already the event in its place."""
    place = data.draw(st.integers(0, len(history) - 1))
    edited = [*history[:place], EDITS[edit](history[place]), *history[place + 1 :]]
    found = check(edited, history[-1])
    batch = [event for event in history if event.chain == history[place].chain]
    assert not found.ok
    assert found.events == batch[0].seq - 1
    assert found.chain == (history[batch[0].seq - 2].chain if batch[0].seq > 1 else chain.genesis(RUN, TENANT))
    assert found.fault_seq in {*(event.seq for event in batch), edited[place].seq}
    assert found.fault


@given(histories(), st.data())
def test_an_edit_with_its_own_hash_made_to_fit_is_found_by_the_next_append_or_the_head(
    history: list[Recorded], data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(history) - 1))
    forged = [replace(event, body=b"{}") if n == place else event for n, event in enumerate(history)]
    batch = [event for event in forged if event.chain == history[place].chain]
    before = history[batch[0].seq - 2].chain if batch[0].seq > 1 else chain.genesis(RUN, TENANT)
    fits = chain.link(before, batch)
    forged = [replace(event, chain=fits) if event.chain == history[place].chain else event for event in forged]
    assert not check(forged, history[-1]).ok


@given(histories(), st.data())
def test_removing_inserting_repeating_or_swapping_events_is_found(history: list[Recorded], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(history) - 1))
    changed = {
        "removed": [*history[:place], *history[place + 1 :]],
        "repeated": [*history[: place + 1], *history[place:]],
        "tail cut": history[:place],
        "nothing left": [],
    }
    if place > 0:
        changed["prefix cut"] = history[place:]
        changed["prefix cut and renumbered"] = [
            replace(event, seq=seq) for seq, event in enumerate(history[place:], start=1)
        ]
        changed["swapped"] = [*history[: place - 1], history[place], history[place - 1], *history[place + 1 :]]
        one, two = history[place - 1], history[place]
        if one.body != two.body:
            bodies = [replace(one, body=two.body), replace(two, body=one.body)]
            changed["bodies swapped"] = [*history[: place - 1], *bodies, *history[place + 1 :]]
    for what, events in changed.items():
        assert not check(events, history[-1]).ok, what


def test_a_log_that_was_cut_together_with_its_head_still_fits_itself() -> None:
    """The chain alone cannot tell: the signed checkpoints are there for this one."""
    history = recorded([accepted(), started(), token("a")])
    assert check(history[:2]).ok


def test_two_runs_that_changed_places_are_found() -> None:
    bodies = [accepted(), started(), token("a"), result()]
    mine, other = recorded(bodies), recorded(bodies, run_id=OTHER_RUN)
    assert not check(other, mine[-1]).ok
    renamed = [replace(event, run_id=RUN) for event in other]
    assert not check(renamed).ok
    assert not check([*mine[:2], *other[2:]]).ok


def test_a_run_that_was_moved_to_another_tenant_is_found() -> None:
    history = recorded([accepted(), started()])
    found = check(history, tenant=UUID(int=TENANT.int + 1))
    assert (found.ok, found.fault_seq) == (False, 1)


def test_a_head_that_says_another_seq_or_hash_is_found() -> None:
    history = recorded([accepted(), started(), token("a")])
    assert chain.verify(RUN, TENANT, history, 4, history[-1].chain).fault_seq == 4
    assert not chain.verify(RUN, TENANT, history, 2, history[1].chain).ok
    assert not chain.verify(RUN, TENANT, history, 3, history[1].chain).ok


def test_a_clock_that_ran_backwards_is_found_though_the_chain_fits() -> None:
    history = recorded([accepted(), started()])
    late = replace(history[1], recorded_us=history[0].recorded_us - 1)
    late = replace(late, chain=chain.link(history[0].chain, [late]))
    found = check([history[0], late])
    assert (found.ok, found.fault_seq) == (False, 2)


def test_events_of_one_append_have_one_time_and_one_owner_though_the_chain_fits() -> None:
    """The link holds only the first one's; the others' must be the same, or they could be changed unseen."""
    history = recorded([accepted(), started(), token("a"), token("b")], joined={3, 4})
    assert len({event.chain for event in history}) == 2
    for other in (replace(history[3], epoch=9), replace(history[3], recorded_us=history[3].recorded_us + 1)):
        found = check([*history[:3], other])
        assert (found.ok, found.events, found.fault_seq) == (False, 1, 4)


@given(histories(), st.data())
def test_a_walk_can_go_on_from_any_link(history: list[Recorded], data: st.DataObject) -> None:
    ends = [one for one, after in pairwise(history) if one.chain != after.chain] or history[-1:]
    start = data.draw(st.sampled_from(ends))
    walk = chain.Walk(RUN, start.chain, start.seq, start.recorded_us)
    assert all(walk.add(event) for event in history[start.seq :])
    assert walk.end()
    assert (walk.seq, walk.chain) == (len(history), history[-1].chain)
