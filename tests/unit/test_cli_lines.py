"""A place in line in words."""

from typing import Any

import pytest

from ops.lines import in_line, ordinal


@pytest.mark.parametrize(
    ("number", "word"), [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (12, "12th"), (13, "13th"),
                         (21, "21st"), (102, "102nd"), (111, "111th"), (1_000, "1000th")],
)  # fmt: skip
def test_places_are_counted_as_people_count(number: int, word: str) -> None:
    assert ordinal(number) == word


@pytest.mark.parametrize(
    ("queue", "said"),
    [
        (None, ""),
        ({"position": 3, "exact": True, "reason": "turn"}, "queued, 3rd in line"),
        ({"position": 2001, "exact": False, "reason": "turn"}, "queued, at least 2001st in line"),
        (
            {"position": 1, "exact": True, "reason": "tenant"},
            "queued, 1st in line (as many of your tenant's runs as may are under way)",
        ),
        (
            {"position": None, "exact": False, "reason": "no_worker"},
            "queued (no worker that is there can carry this version)",
        ),
    ],
)
def test_a_place_is_told_with_its_reason_if_there_is_more_to_it_than_others_before(
    queue: dict[str, Any] | None, said: str
) -> None:
    assert in_line(queue) == said
