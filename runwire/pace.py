"""How long a client waits for what, how often it tries, and when it has waited long enough."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from runwire.problems import Problem, RunwireError

Roll = Callable[[float, float], float]
ASKED_AGAIN_S_MAX: Final = 60.0  # a stream's own `retry:` is not believed beyond this


@dataclass(frozen=True, slots=True)
class Pace:
    """Every wait of a client, in seconds."""

    connect_s: float = 10.0  # until a connection stands
    first_byte_s: float = 8.0  # until a stream that has something to say says it: else something on the way holds it
    silence_s: float = 35.0  # between two bytes of a stream: the server says something every 15
    answer_s: float = 30.0  # until an answer that is no stream, over and above what it was asked to wait
    poll_wait_s: int = 10  # what a short request asks the server to wait for news; 0 where only short ones get through
    stream_again_s: float = 60.0  # until a stream is tried again after it did not get through; doubles each time
    stream_again_s_max: float = 960.0
    patience_s: float = 60.0  # how long the server may be away
    first_patience_s: float = 10.0  # the same, for one that never answered
    waits_s: tuple[float, ...] = (0.2, 0.5, 1.0, 2.0, 4.0)  # between tries


DEFAULT: Final = Pace()


class Acquaintance:
    """What a client knows of its server: whether it is there, and whether it has ever taken the key."""

    __slots__ = ("answered", "trusted")

    def __init__(self) -> None:
        self.answered = False
        self.trusted = False


class Outage:
    """The tries of one call since it last went well."""

    __slots__ = ("_pace", "_roll", "_since", "_with", "failures")

    def __init__(self, pace: Pace, acquaintance: Acquaintance, roll: Roll = random.uniform) -> None:
        self.failures = 0
        self._pace = pace
        self._with = acquaintance
        self._roll = roll
        self._since: float | None = None

    @property
    def trusted(self) -> bool:
        """Whether the key was ever good."""
        return self._with.trusted

    def over(self) -> None:
        """It went well."""
        self._with.answered = self._with.trusted = True
        self._since = None

    def moved_on(self) -> None:
        """Not only did it go well: there was news."""
        self.failures = 0

    def wait_s(self, now: float, error: RunwireError, asked_s: float | None = None, least_s: float = 0.0) -> float:
        """How long to wait before the next try. Raises the error when there is no patience left for it.

        What the server asks for is held to, and never shortened: whoever asks for more than there is patience for is
        taken at his word at once.
        """
        if isinstance(error, Problem):
            self._with.answered = True  # it is there, and may come round
        limit = self._pace.patience_s if self._with.answered else self._pace.first_patience_s
        self._since = now if self._since is None else self._since
        if now - self._since >= limit or (asked_s or 0.0) > limit:
            raise error
        return self.pause_s(asked_s, least_s)

    def pause_s(self, asked_s: float | None = None, least_s: float = 0.0) -> float:
        """The next wait, without asking whether there is patience for it."""
        steps = self._pace.waits_s
        own_s = steps[min(self.failures, len(steps) - 1)] * self._roll(0.7, 1.3)
        self.failures += 1
        if asked_s is not None:
            return self.spread_s(asked_s)
        return max(own_s, least_s * self._roll(1.0, 1.3))

    def spread_s(self, asked_s: float) -> float:
        """Not less than was asked for, and not all readers at the same moment."""
        return asked_s * self._roll(1.0, 1.2)
