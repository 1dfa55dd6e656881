"""Limits as they are declared: whole, checked against each other, and under the ceilings of a deployment."""

import pytest
from pydantic import ValidationError

from eventstore.domain.events import RunLimits
from worker.limits import LIMITS, Limits, declared_limits, limits_of, under
from worker.settings import WorkerSettings


def test_the_event_and_the_runner_know_the_same_limits() -> None:
    assert tuple(RunLimits.model_fields) == LIMITS


def test_what_a_workflow_does_not_say_has_its_default() -> None:
    told = declared_limits("w", RunLimits(run_s=300, attempts_max=2, turns_max=5))
    assert (told.run_s, told.attempts_max, told.turns_max, told.step_s) == (300, 2, 5, 60)
    assert (told.tokens_max, told.cost_micro_usd) == (None, None)
    assert limits_of(told.model_dump(exclude_none=True)) == Limits(run_s=300, attempts_max=2, turns_max=5)


def test_a_run_from_before_a_limit_existed_has_its_default() -> None:
    assert limits_of({"run_s": 5.0, "attempts_max": 1}) == Limits(run_s=5.0, attempts_max=1)


def test_no_default_is_longer_than_the_run() -> None:
    told = declared_limits("w", RunLimits(run_s=1.5, attempts_max=1, tool_calls_max=2))
    assert (told.step_s, told.first_byte_s, told.between_pieces_s, told.on_end_s) == (1.5, 1.5, 1.5, 1.5)
    assert told.tool_failures_max == 2


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"step_s": 11}, "step_s (11) is more than run_s (10)"),
        ({"first_byte_s": 11}, "first_byte_s"),
        ({"between_pieces_s": 11}, "between_pieces_s"),
        ({"on_end_s": 11}, "on_end_s"),
        ({"tool_calls_max": 2, "tool_failures_max": 3}, "tool_failures_max is more than tool_calls_max"),
        ({"turns_max": 0}, "more than 0: turns_max"),
        ({"cost_micro_usd": -1}, "more than 0: cost_micro_usd"),
        ({"hold_chars_max": 100}, "hold_chars_max must be more than 120"),
    ],
)
def test_limits_that_do_not_fit_each_other_are_refused_where_they_are_declared(said: dict[str, int], why: str) -> None:
    with pytest.raises(ValueError, match=r"^w: ") as caught:
        declared_limits("w", RunLimits.model_validate({"run_s": 10, "attempts_max": 3, **said}))
    assert why in str(caught.value)


def test_a_ceiling_bounds_what_is_more_and_what_has_no_bound() -> None:
    declared = declared_limits("w", RunLimits(run_s=100, attempts_max=3, turns_max=4))
    told = under({"run_s": 50.0, "turns_max": 8.0, "tokens_max": 1000.0}, declared)
    assert (told.run_s, told.step_s, told.turns_max, told.tokens_max) == (50, 50, 4, 1000)
    assert under({}, declared) == declared


def test_a_ceiling_of_an_unknown_limit_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNWIRE_CEILINGS", '{"run_s": 600, "tokens": 5}')
    with pytest.raises(ValidationError, match="there is no limit tokens; there are run_s"):
        WorkerSettings()
    monkeypatch.setenv("RUNWIRE_CEILINGS", '{"run_s": 600}')
    assert WorkerSettings().ceilings == {"run_s": 600}
