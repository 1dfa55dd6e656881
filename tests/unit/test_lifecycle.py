"""The life cycle is one closed table, and everything that lists event types agrees with it."""

from typing import get_args

import pytest

from eventstore.domain.events import BODIES, TYPES
from eventstore.domain.lifecycle import (
    CONTROL_TYPES,
    FINAL_TYPE,
    STATUSES,
    TABLE,
    TERMINAL_STATUSES,
    TERMINAL_TYPES,
    WORK,
    Status,
    diagram,
    next_status,
)

EVERYWHERE = {type_ for row in TABLE.values() for type_ in row}


def test_every_move_ends_in_a_status_that_has_a_row() -> None:
    assert set(TABLE) == set(STATUSES) == set(get_args(Status))
    assert {to for row in TABLE.values() for to in row.values()} <= set(TABLE)


def test_an_ended_run_takes_nothing_more() -> None:
    assert {status for status, row in TABLE.items() if not row} == TERMINAL_STATUSES


def test_terminal_events_and_no_others_end_a_run() -> None:
    ending = {type_ for row in TABLE.values() for type_, to in row.items() if to in TERMINAL_STATUSES}
    assert ending == TERMINAL_TYPES
    for row in TABLE.values():
        assert all(to in TERMINAL_STATUSES for type_, to in row.items() if type_ in TERMINAL_TYPES)


def test_every_open_status_can_be_ended_and_reached() -> None:
    reached: set[Status] = {"queued"}
    while more := {to for status in reached for to in TABLE[status].values()} - reached:
        reached |= more
    assert reached == set(STATUSES)
    for status in set(STATUSES) - TERMINAL_STATUSES:
        assert {"cancelled", "error"} <= set(TABLE[status])


def test_every_event_type_has_a_place_in_the_table_and_no_place_is_for_an_unknown_type() -> None:
    assert EVERYWHERE | {"accepted"} == set(BODIES) == set(TYPES)
    assert set(WORK) < set(BODIES)
    assert set(BODIES) > CONTROL_TYPES


def test_accepted_comes_first_and_only_first() -> None:
    assert [type_ for type_ in TYPES if next_status(None, type_) is not None] == ["accepted"]
    assert next_status(None, "accepted") == "queued"
    assert "accepted" not in EVERYWHERE


def test_only_a_running_run_can_reach_a_result() -> None:
    assert [status for status, row in TABLE.items() if FINAL_TYPE in row] == ["running"]


@pytest.mark.parametrize("type_", [*TYPES, "", "unknown"])
@pytest.mark.parametrize("status", STATUSES)
def test_what_is_not_in_the_table_does_not_happen(status: Status, type_: str) -> None:
    assert next_status(status, type_) == TABLE[status].get(type_)


def test_the_diagram_shows_every_row_of_the_table_and_nothing_else() -> None:
    lines = [line.strip() for line in diagram().splitlines()]
    assert lines[0] == "stateDiagram-v2"
    moves = {line for line in lines if "-->" in line}
    assert moves == (
        {"[*] --> queued: accepted"}
        | {f"{status} --> {to}: {type_}" for status, row in TABLE.items() for type_, to in row.items() if to != status}
        | {f"{status} --> [*]" for status in TERMINAL_STATUSES}
    )
    stays = {}
    for number, line in enumerate(lines):
        if line.startswith("note right of "):
            stays[line.removeprefix("note right of ")] = set(lines[number + 1].removeprefix("stays: ").split(", "))
            assert lines[number + 2] == "end note"
    assert stays == {
        status: {type_ for type_, to in row.items() if to == status}
        for status, row in TABLE.items()
        if status in row.values()
    }
    assert diagram().endswith("\n")
