"""The evidence format: fixed vectors, a second implementation that agrees, and no change that verify misses."""

from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventstore.domain import chain
from eventstore.domain.record import Recorded
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


@given(ROWS, st.binary(min_size=32, max_size=32))
def test_a_second_implementation_gives_the_same_leaf_and_link(event: Recorded, before: bytes) -> None:
    leaf = second_opinion.leaf(str(event.run_id), header(event), event.body)
    assert chain.leaf(event) == leaf
    assert chain.link(before, event) == second_opinion.link(before, leaf)


@given(st.uuids(), st.uuids())
def test_a_second_implementation_gives_the_same_genesis(run_id: UUID, tenant_id: UUID) -> None:
    assert chain.genesis(run_id, tenant_id) == second_opinion.genesis(str(run_id), str(tenant_id))


def test_the_format_never_changes() -> None:
    """Worked out once and written down: a change of either implementation must not move these."""
    at_us = 1_790_000_000_000_001
    event = Recorded(RUN, 2, 1, "token", 1, at_us, at_us + 1, 0, None, b'{"text":"a"}', b"")
    genesis = chain.genesis(RUN, TENANT)
    assert genesis.hex() == "54653eb0d417cfcf1eec8f07e58293e52f15ad8b0f2614f67abf13641e7382d3"
    assert chain.leaf(event).hex() == "a8dd9748263b2e31abe49fbead45e4ef725fb03059fca39f52627a36ca560586"
    assert (
        chain.leaf(replace(event, key_id=KEY)).hex()
        == "d4591cf63209402e8c8c4d6f02b2d5e123ae9f095a2c1d73a6882ae233706dd7"
    )
    assert chain.link(genesis, event).hex() == "77b2e47715dff536f1459f238100354083e032272e59dbee8f2993da00265d1e"


@given(ROWS, ROWS)
def test_two_different_events_have_different_leaves(one: Recorded, other: Recorded) -> None:
    zeros = UUID(int=0)  # "no key" is written as zeros
    same = replace(one, key_id=one.key_id or zeros) == replace(other, key_id=other.key_id or zeros)
    assert (chain.leaf(one) == chain.leaf(other)) == same


def test_a_name_that_runs_into_the_next_field_gives_another_leaf() -> None:
    event = Recorded(RUN, 2, 1, "token", 1, 1, 2, 0, None, b"", b"")
    assert chain.leaf(event) != chain.leaf(replace(event, type="toke"))
    assert chain.leaf(event) != chain.leaf(replace(event, type="token\x00"))


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
def test_every_edit_of_a_stored_event_is_found_at_its_place(
    edit: str, history: list[Recorded], data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(history) - 1))
    edited = [*history[:place], EDITS[edit](history[place]), *history[place + 1 :]]
    found = check(edited, history[-1])
    assert not found.ok
    assert found.events == place
    assert found.chain == (history[place - 1].chain if place else chain.genesis(RUN, TENANT))
    assert found.fault_seq == edited[place].seq
    assert found.fault


@given(histories(), st.data())
def test_an_edit_with_its_own_hash_made_to_fit_is_found_by_the_next_event_or_the_head(
    history: list[Recorded], data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(history) - 1))
    before = history[place - 1].chain if place else chain.genesis(RUN, TENANT)
    forged = replace(history[place], body=b"{}")
    forged = replace(forged, chain=chain.link(before, forged))
    found = check([*history[:place], forged, *history[place + 1 :]], history[-1])
    assert not found.ok


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
    late = replace(late, chain=chain.link(history[0].chain, late))
    found = check([history[0], late])
    assert (found.ok, found.fault_seq) == (False, 2)
