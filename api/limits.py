"""What one caller may have and ask for at once: open streams, and requests in a time.

A caller is a person of a tenant, whatever key they show. A request is counted by one number per caller: the time at
which everything asked so far would be paid for at the allowed rate (GCRA). So a check costs a look-up and a few
additions, on the path of every poll, and tells exactly when to come back.

Every process counts by itself, and takes off what the others say of the same caller (api/neighbours.py). What they say
is a second old, or missing when Redis is away: then a caller may have the whole of a limit from each process, and no
one is refused for it.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from time import monotonic
from typing import Final, TypeVar

from api.callers import Caller
from api.errors import TooManyRequests, TooManyStreams
from api.figures import Refusals
from api.settings import ApiSettings

STREAMS_RETRY_S: Final = 5
ROUNDING_S: Final = 1e-6
TELLING_SHARE: Final = 20  # a caller is told of to the others from a twentieth of a limit on

T = TypeVar("T")
Who = tuple[str, str]


class Use:
    """What one caller uses here, and what the other processes leave of the limits."""

    __slots__ = ("interval_s", "paid_at", "requests", "streams", "streams_elsewhere")

    def __init__(self, interval_s: float) -> None:
        self.interval_s = interval_s  # between two requests, at the rate that this process may give
        self.paid_at = 0.0
        self.requests = 0  # since the others were last told
        self.streams = 0
        self.streams_elsewhere = 0


class Limits:
    """The callers of one process."""

    def __init__(self, settings: ApiSettings, refusals: Refusals) -> None:
        self._rate = settings.caller_requests_per_s
        self._window_s = settings.caller_requests_window_s
        self._streams_max = settings.caller_streams_max
        self._refusals = refusals
        self._uses: dict[Who, Use] = {}

    def use(self, caller: Caller) -> Use:
        """What this caller uses here."""
        who = (caller.tenant, caller.subject)
        use = self._uses.get(who)
        if use is None:
            use = self._uses[who] = Use(1.0 / self._rate)
        return use

    def request(self, caller: Caller) -> None:
        """One more request; TooManyRequests when it is one too many."""
        use, now = self.use(caller), monotonic()
        ahead_s = max(use.paid_at - now, 0.0)
        over_s = ahead_s + use.interval_s - self._window_s
        if over_s > ROUNDING_S:
            self._refusals.refused("requests")
            raise TooManyRequests(self._rate, self._window_s, over_s)
        use.paid_at = now + ahead_s + use.interval_s
        use.requests += 1

    def stream(self, caller: Caller) -> "Place":
        """Room for one more stream, or request that waits; TooManyStreams when there is none."""
        use = self.use(caller)
        if use.streams + use.streams_elsewhere >= self._streams_max:
            self._refusals.refused("streams")
            raise TooManyStreams(self._streams_max, STREAMS_RETRY_S)
        return Place(self, caller)

    def told(self, elapsed_s: float) -> dict[Who, tuple[float, int]]:
        """The callers who use much here: requests a second since this was last asked, and open streams. Forgets those
        who use nothing any more."""
        much, now = dict[Who, tuple[float, int]](), monotonic()
        for who, use in list(self._uses.items()):
            rate, use.requests = use.requests / elapsed_s, 0
            if rate * TELLING_SHARE >= self._rate or use.streams * TELLING_SHARE >= self._streams_max:
                much[who] = (rate, use.streams)
                continue
            use.interval_s, use.streams_elsewhere = 1.0 / self._rate, 0
            if not use.streams and use.paid_at <= now:
                del self._uses[who]
        return much

    def heard(self, who: Who, others: Sequence[tuple[float, int]]) -> None:
        """What each of the other processes gives to this caller. What they leave of the rate is ours, and our share at
        least: so all together give what is allowed, however the requests are spread. Half the way at a time, or two
        processes would take turns to give all and nothing."""
        use = self._uses.get(who)
        if use is not None:
            left = self._rate - sum(rate for rate, _ in others)
            share = max(left, self._rate / (len(others) + 1))
            use.interval_s = 2.0 / (1.0 / use.interval_s + share)
            use.streams_elsewhere = sum(streams for _, streams in others)


class Place:
    """Room for one stream. It is taken when the stream opens, so one that is never opened leaves nothing behind."""

    __slots__ = ("_caller", "_limits")

    def __init__(self, limits: Limits, caller: Caller) -> None:
        self._limits = limits
        self._caller = caller

    @contextmanager
    def __call__(self, inner: AbstractContextManager[T]) -> Iterator[T]:
        """What the stream works with, counted for as long as it is open."""
        use = self._limits.use(self._caller)
        use.streams += 1
        try:
            with inner as given:
                yield given
        finally:
            use.streams -= 1
