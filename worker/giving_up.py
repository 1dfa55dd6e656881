"""Which runs are not begun again: those that kill their workers, waited too long, or whose code is gone."""

from dataclasses import dataclass
from typing import Final

from worker.history import History


@dataclass(frozen=True, slots=True)
class Given:
    """What a worker is told with a run. parked: how often the run was given back because all of it waited. crashes: how
    often it may have been what its owners died of, None for a worker that asked for this very run and knows only its
    epochs. blamed: the last time nothing else aboard can have been. why: empty, or why it only needs to be ended."""

    parked: int = 0
    crashes: int | None = None
    blamed: bool = True
    why: str = ""


@dataclass(frozen=True, slots=True)
class GivenUp:
    """How such a run ends."""

    code: str
    message: str
    retryable: bool = False


EXHAUSTED: Final = GivenUp("attempts_exhausted", "The run failed too often and was given up.")
GONE: Final = GivenUp("version_gone", "No worker can go on with this version of the workflow any more.", retryable=True)
REASONS: Final = {
    "queue_wait": GivenUp("limit_queue_wait", "The run waited too long for its turn.", retryable=True),
    "version_gone": GONE,
}


def given_up(given: Given, history: History, attempt: int) -> GivenUp | None:
    """Why this run is not begun again.

    A run may die of its neighbours as often as they please. It is given up when it has met its bound and the last death
    can have been nobody else's; a run that is meant to be tried once only is not tried twice, whoever it was.
    """
    attempts_max = int(history.accepted.data["limits"]["attempts_max"])
    crashes = attempt - 1 if given.crashes is None else given.crashes
    if crashes >= attempts_max and (given.blamed or attempts_max == 1):
        return EXHAUSTED
    return REASONS.get(given.why)
