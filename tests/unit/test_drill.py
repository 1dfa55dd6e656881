"""The drill's beat: with phases, many drills together make an even load."""

from hypothesis import given
from hypothesis import strategies as st

from worker.workflows.drill.workflow import Order, first_beat


@given(st.floats(0, 1e6), st.floats(0.1, 10_000), st.floats(0, 0.999))
def test_the_first_piece_comes_at_the_next_moment_of_the_ordered_phase(now: float, rate: float, phase: float) -> None:
    due, period = first_beat(Order(rate_per_s=rate, phase=phase), now), 1 / rate
    assert now <= due <= now + period
    beats = (due - phase * period) / period
    assert abs(beats - round(beats)) < 0.001 + 1e-9 * rate * max(now, 1)


def test_without_a_phase_or_a_pace_a_drill_begins_at_once() -> None:
    assert first_beat(Order(), 12.345) == 12.345
    assert first_beat(Order(rate_per_s=0, phase=0.5), 12.345) == 12.345
