"""The newest events at hand: always the log's end as it is now, also after the log was put back and went on."""

from collections.abc import Mapping, Sequence
from typing import cast
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncEngine

from api.newest import ENTRY_BYTES, Newest
from eventstore.catalogue import RunRow
from eventstore.domain.record import Recorded
from eventstore.log import Page
from tests.histories import RUN, TENANT, recorded
from tests.writing import accepted, result, started, token

STRETCH = 8


class Stored:
    """A log in memory that is read in pages of six events."""

    def __init__(self) -> None:
        self.runs: dict[UUID, list[Recorded]] = {}
        self.asked: list[tuple[UUID, int]] = []

    async def ask(self, keys: Sequence[tuple[UUID, int]]) -> Mapping[tuple[UUID, int], Page]:
        self.asked += keys
        found = {}
        for run_id, after in keys:
            rest = self.runs[run_id][after:]
            if rest:
                found[run_id, after] = Page(rest[:6], len(rest) > 6)
        return found


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.newest.STRETCH_EVENTS", STRETCH)
    monkeypatch.setattr("api.newest.BACK_EVENTS", 3)


def newest_of(stored: Stored, bytes_max: int = 1 << 20) -> Newest:
    newest = Newest(cast("AsyncEngine", object()), bytes_max)
    newest._asked._ask = stored.ask
    return newest


def standing(history: Sequence[Recorded]) -> tuple[RunRow, bytes]:
    last = history[-1]
    return RunRow(last.run_id, TENANT, "ada", "w", "t", 0, "running", last.seq), last.chain


def history(length: int, said: str = "a", run_id: UUID = RUN) -> list[Recorded]:
    return recorded([accepted(), started(), *(token(f"{said}{n}") for n in range(length - 2))], run_id)


@given(st.lists(st.tuples(st.integers(2, 40), st.sampled_from("abc")), min_size=1, max_size=12))
async def test_it_is_the_logs_end_however_the_log_came_to_be_what_it_is(logs: list[tuple[int, str]]) -> None:
    stored = Stored()
    newest = newest_of(stored)
    for length, said in logs:
        stored.runs[RUN] = now = history(length, said)
        entries = [entry.recorded for entry in await newest.upto(*standing(now))]
        assert entries == now[len(now) - len(entries) :]
        again = [entry.recorded for entry in await newest.upto(*standing(now))]
        assert again == now[len(now) - len(again) :]
        assert again or not entries


async def test_what_is_at_hand_is_not_read_again_and_of_what_is_new_one_event_more_is() -> None:
    stored = Stored()
    newest = newest_of(stored)
    stored.runs[RUN] = history(10)
    assert [entry.seq for entry in await newest.upto(*standing(history(10)))] == [8, 9, 10]
    assert [entry.seq for entry in await newest.upto(*standing(history(10)))] == [8, 9, 10]
    stored.runs[RUN] = history(12)
    assert [entry.seq for entry in await newest.upto(*standing(history(12)))] == [8, 9, 10, 11, 12]
    assert stored.asked == [(RUN, 7), (RUN, 9)]
    # Somebody whose answer about the run is older than another's gets what is there by now.
    assert [entry.seq for entry in await newest.upto(*standing(history(10)))] == [8, 9, 10, 11, 12]


async def test_more_than_belongs_here_is_left_to_who_reads_page_by_page() -> None:
    stored = Stored()
    newest = newest_of(stored)
    stored.runs[RUN] = history(4)
    await newest.upto(*standing(history(4)))
    stored.runs[RUN] = history(11)  # a page has six
    assert await newest.upto(*standing(history(11))) == []
    stored.runs[RUN] = history(4 + STRETCH + 1)
    assert [entry.seq for entry in await newest.upto(*standing(stored.runs[RUN]))] == [11, 12, 13]


async def test_the_memory_is_bounded_by_run_and_in_all() -> None:
    stored = Stored()
    newest = newest_of(stored, bytes_max=40 * ENTRY_BYTES)
    runs = [UUID(int=number) for number in range(1, 40)]
    for run_id in runs:
        for length in (4, 7, 10, 13, 16):
            stored.runs[run_id] = now = history(length, run_id=run_id)
            await newest.upto(*standing(now))
    assert all(len(kept.entries) <= STRETCH for kept in newest._kept.values())
    assert newest._bytes == sum(kept.size for kept in newest._kept.values()) <= 40 * ENTRY_BYTES
    assert [*newest._kept] == runs[-len(newest._kept) :]
    assert len(newest._kept) > 1


async def test_the_end_of_a_run_is_kept_as_any_other() -> None:
    stored = Stored()
    newest = newest_of(stored)
    stored.runs[RUN] = ended = recorded([accepted(), started(), result()])
    assert [entry.seq for entry in await newest.upto(*standing(ended))] == [1, 2, 3]
