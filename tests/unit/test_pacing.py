"""The gap between two pieces of one text: none while commits are quick, grown while they are slow, bounded."""

from hypothesis import given
from hypothesis import strategies as st

from eventstore.pacing import GAP_S_FIRST, GAP_S_MAX, LOOK_S, QUICK_S, SLOW_S, Pace

COMMITS = st.lists(st.floats(0.0, 2.0), max_size=60)


def after(*commits: float) -> Pace:
    pace = Pace()
    for number, seconds in enumerate(commits):
        pace.took(number * LOOK_S, seconds)
    return pace


def test_quick_commits_leave_no_gap_and_slow_ones_make_one() -> None:
    assert after(*[QUICK_S / 2] * 9).gap_s == 0.0
    assert after(SLOW_S * 2).gap_s == GAP_S_FIRST
    assert after(*[SLOW_S * 2] * 9).gap_s == GAP_S_MAX


@given(COMMITS)
def test_the_gap_is_bounded_stays_between_the_two_and_goes_when_commits_are_quick(commits: list[float]) -> None:
    pace = after(*commits)
    assert pace.gap_s == 0.0 or GAP_S_FIRST * 0.9 <= pace.gap_s <= GAP_S_MAX
    before, now = pace.gap_s, len(commits) * LOOK_S
    pace.took(now, (QUICK_S + SLOW_S) / 2)
    assert pace.gap_s == before
    for number in range(1, 30):
        pace.took(now + number * LOOK_S, 0.0)
    assert pace.gap_s == 0.0


def test_one_slow_commit_among_many_quick_ones_is_no_sign() -> None:
    pace = Pace()
    pace.took(0.0, 0.0)
    for number in range(20):
        pace.took(0.01 * number, SLOW_S * 3 if number == 7 else QUICK_S)
    pace.took(LOOK_S, QUICK_S)
    assert pace.gap_s == 0.0
