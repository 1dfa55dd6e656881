"""The clock of a replay: the pauses of then, divided by the speed, and none too long."""

import math
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from api.fronts.replay import Pace

gaps = st.lists(st.integers(0, 60_000_000), min_size=1, max_size=20)
speeds = st.floats(0.01, 1_000)


def moments(gaps_us: list[int]) -> list[int]:
    return [1_790_000_000_000_000 + sum(gaps_us[:n]) for n in range(len(gaps_us) + 1)]


@given(gaps, speeds)
def test_each_frame_is_due_as_long_after_the_one_before_as_it_was_then(gaps_us: list[int], speed: float) -> None:
    pace, now, dues = Pace(speed, 10.0), 100.0, list[float]()
    for at_us in moments(gaps_us):
        now = pace.due(at_us, now)  # the reader takes it exactly when it is due
        dues.append(now)
    for (one, other), gap_us in zip(pairwise(dues), gaps_us, strict=True):
        assert math.isclose(other - one, min(gap_us / 1_000_000 / speed, 10.0), abs_tol=1e-6)


@given(gaps)
def test_without_a_pace_everything_is_due_at_once(gaps_us: list[int]) -> None:
    pace = Pace(math.inf, 10.0)
    assert {pace.due(at_us, 5.0) for at_us in moments(gaps_us)} == {5.0}


def test_a_reader_that_was_held_up_catches_up_but_not_all_at_once() -> None:
    pace = Pace(1.0, 10.0)
    first, second, third = moments([1_000_000, 1_000_000])
    assert pace.due(first, 0.0) == 0.0
    assert pace.due(second, 5.0) == 1.0
    assert pace.due(third, 60.0) == 51.0
