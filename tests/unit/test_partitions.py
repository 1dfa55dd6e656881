"""How far ahead the log has room: gaps count, and the bounds are those that the database writes down."""

from uuid import UUID

import pytest

from eventstore import partitions
from eventstore.partitions import DAY_S, runway_s

NOW_US = 1_790_000_000_000_000
WEEK_US = 7 * DAY_S * 1_000_000


def floor(at_us: int) -> UUID:
    """The smallest UUIDv7 of a moment."""
    return UUID(int=at_us // 1_000 << 80)


def weeks(*numbers: int) -> list[str]:
    """The bounds of these weeks, counted from one that began a day ago, as PostgreSQL writes them."""
    first_us = NOW_US - DAY_S * 1_000_000
    starts = [first_us + number * WEEK_US for number in numbers]
    return [f"FOR VALUES FROM ('{floor(start)}') TO ('{floor(start + WEEK_US)}')" for start in starts]


@pytest.mark.parametrize(
    ("bounds", "days"),
    [
        (weeks(-1, 0, 1, 2, 3, 4), 34),
        (weeks(4, 2, 0, 3, 1), 34),
        (weeks(0, 1, 3, 4), 13),
        (weeks(-1, 0), 6),
        (weeks(1, 2, 3), 0),
        (weeks(-1), 0),
        ([], 0),
        (["DEFAULT", *weeks(0)], 6),
    ],
)
def test_the_runway_ends_at_the_first_gap(bounds: list[str], days: int) -> None:
    assert runway_s(bounds, NOW_US) == days * DAY_S


def test_the_bounds_for_alarms_lie_below_how_far_ahead_partitions_are_made() -> None:
    assert 0 < partitions.RUNWAY_PAGE_S < partitions.RUNWAY_WARN_S < partitions.AHEAD_S
