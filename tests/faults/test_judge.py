"""The judge finds each way in which a log can be wrong, and nothing in one that is right."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from eventstore.domain.record import Recorded
from tests.faults.journal import Stretch, Told, digest
from tests.faults.judge import (
    BROKEN,
    CHANGED,
    DOUBLED,
    FLAWS,
    GAP,
    GHOST,
    LOST,
    MISREAD,
    SUPERSEDED,
    UNENDED,
    End,
    Judgement,
    judge,
)
from tests.histories import RUN, START_US, TENANT, chained, recorded
from tests.writing import accepted, result, started, token

# A run that a second worker takes over: seq 1 accepted, 2 to 5 of epoch 1, 6 to 10 of epoch 2, 10 the result.
LOG = recorded(
    [accepted(), started(), *map(token, "abc"), started(2), *(token(letter, 2) for letter in "def"), result()]
)
HEAD = End(TENANT, len(LOG), LOG[-1].chain)


def told(log: Sequence[Recorded]) -> Told:
    """What honest processes note of this log: each event a stretch of its own."""
    each = [Stretch(event.epoch, event.seq, digest(event.body)) for event in log]
    return Told({(event.epoch, digest(event.body)) for event in log}, each, {"one": list(each), "other": list(each)})


def alone(log: Sequence[Recorded]) -> list[Recorded]:
    """Each event by itself, with the chain that it would have: what is wrong with them the chain does not show."""
    return chained([event] for event in log)


def numbered(log: Sequence[Recorded]) -> list[Recorded]:
    """These events in this order, as if they had been stored so."""
    return alone([replace(event, seq=seq, recorded_us=START_US + seq) for seq, event in enumerate(log, 1)])


def judged(log: Sequence[Recorded], notes: Told | None = None) -> Judgement:
    """Of a log whose head fits it, against what was noted of the right one."""
    end = End(TENANT, log[-1].seq, log[-1].chain) if log else HEAD
    return judge(RUN, end, log, notes or told(LOG), readers=2)


def test_a_log_that_is_right_has_no_flaw_and_is_counted() -> None:
    said = judged(LOG)
    assert said.ok, said.examples
    assert (said.runs, said.events, said.acked, said.read, said.taken_over) == (1, 10, 10, 20, 1)


def test_a_stored_event_whose_acknowledgement_was_lost_is_no_flaw() -> None:
    notes = told(LOG)
    del notes.acked[3]
    assert judged(LOG, notes).ok


def test_a_submitted_event_that_was_never_stored_is_no_flaw() -> None:
    notes = told(LOG)
    notes.submitted.add((1, digest(b"never stored")))
    assert judged(LOG, notes).ok


def test_a_run_that_was_submitted_and_never_accepted_is_no_flaw() -> None:
    assert judge(RUN, None, (), Told({(0, digest(b"never accepted"))}), readers=2).ok


def test_a_lost_event_is_found_when_the_others_closed_the_gap() -> None:
    assert LOST in judged(numbered([*LOG[:4], *LOG[5:]])).counts


def test_a_lost_end_is_found() -> None:
    assert {LOST, UNENDED, MISREAD} <= set(judged(LOG[:-1]).counts)


def test_a_lost_run_is_found() -> None:
    said = judge(RUN, None, (), told(LOG), readers=2)
    assert said.counts[LOST] == len(LOG)


def test_a_doubled_event_is_found() -> None:
    assert judged(numbered([*LOG[:5], LOG[4], *LOG[5:]])).counts[DOUBLED] == 1


def test_the_same_row_twice_is_found() -> None:
    assert judged([*LOG[:5], LOG[4], *LOG[5:]]).counts[DOUBLED] == 1


def test_a_gap_is_found_and_so_is_what_was_in_it() -> None:
    said = judged(alone([*LOG[:4], *LOG[5:]]))
    assert (said.counts[GAP], said.counts[LOST]) == (1, 1)


def test_a_ghost_is_found() -> None:
    ghost = replace(LOG[4], body=b'{"text":"nobody said this"}')
    log = numbered([*LOG[:9], ghost, LOG[9]])
    assert judged(log).counts[GHOST] == 1


def test_an_event_without_a_head_is_a_ghost() -> None:
    assert judge(RUN, None, LOG, told(LOG)).counts[GHOST] == 1


def test_a_changed_body_is_found_even_if_the_chain_was_made_to_fit() -> None:
    log = alone([*LOG[:4], replace(LOG[4], body=b'{"text":"changed"}'), *LOG[5:]])
    said = judged(log)
    assert said.counts == {CHANGED: 1, GHOST: 1, MISREAD: 2}
    assert "seq 5" in str(said.examples[0])


def test_an_event_under_another_epoch_than_was_acknowledged_is_found() -> None:
    log = alone([*LOG[:4], replace(LOG[4], epoch=2), *LOG[5:]])
    assert set(judged(log).counts) == {CHANGED, GHOST}


def test_a_broken_chain_is_found_when_nothing_else_is_wrong() -> None:
    log = [*LOG[:4], replace(LOG[4], recorded_us=LOG[4].recorded_us + 1), *LOG[5:]]
    assert judged(log).counts == {BROKEN: 1}


def test_a_head_that_does_not_fit_is_found() -> None:
    assert judge(RUN, HEAD._replace(seq=11), LOG, told(LOG)).counts == {BROKEN: 1}
    assert judge(RUN, HEAD._replace(chain=bytes(32)), LOG, told(LOG)).counts == {BROKEN: 1}


def test_a_run_without_an_end_is_found() -> None:
    assert judged(LOG[:-1], told(LOG[:-1])).counts == {UNENDED: 1}


def test_a_terminal_event_in_the_middle_is_found() -> None:
    log = numbered([*LOG[:5], LOG[-1], *LOG[5:-1]])
    assert judged(log, told(log)).counts == {UNENDED: 1}


def test_two_terminal_events_are_found() -> None:
    again = replace(LOG[-1], body=b'{"output":{}}')
    log = numbered([*LOG, again])
    assert judged(log, told(log)).counts == {UNENDED: 1}


def test_an_event_of_a_superseded_epoch_after_the_takeover_is_found() -> None:
    log = numbered([*LOG[:4], *LOG[5:7], LOG[4], *LOG[7:]])
    assert judged(log, told(log)).counts == {SUPERSEDED: 1}


@pytest.mark.parametrize(
    "misread",
    [
        lambda seen: [*seen[:4], *seen[5:]],
        lambda seen: [*seen[:5], seen[4], *seen[5:]],
        lambda seen: [*seen[:4], seen[5], seen[4], *seen[6:]],
        lambda seen: [*seen[:4], replace(seen[4], digests=digest(b"another")), *seen[5:]],
        lambda seen: seen[:-1],
        lambda seen: [*seen, replace(seen[-1], first=11)],
    ],
    ids=["skipped", "twice", "out of order", "other than stored", "cut off", "past the end"],
)
def test_a_reader_that_was_given_something_else_is_found(misread: Callable[[list[Stretch]], list[Stretch]]) -> None:
    notes = told(LOG)
    seen = {**notes.seen, "one": misread(notes.seen["one"])}
    assert judged(LOG, replace(notes, seen=seen)).counts == {MISREAD: 1}


def test_a_run_that_too_few_have_read_is_found() -> None:
    notes = told(LOG)
    assert judged(LOG, replace(notes, seen={"one": notes.seen["one"]})).counts == {MISREAD: 1}


def test_what_was_found_of_many_runs_adds_up() -> None:
    said = judged(LOG)
    said.take(judged(LOG[:-1], told(LOG[:-1])))
    assert (said.runs, said.events, said.counts.total()) == (2, 19, 1)
    assert set(said.counts) <= set(FLAWS)
