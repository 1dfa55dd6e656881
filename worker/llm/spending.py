"""What model calls have spent of a provider's limits: in Redis for all processes, in memory for this one."""

import secrets
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple, cast

from limits import RateLimitItem, RateLimitItemPerSecond
from limits.aio.storage import RedisStorage
from limits.aio.storage.base import SlidingWindowCounterSupport
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from redis.asyncio import Redis

PREFIX: Final = "runwire:rates"
MEMORY_MS: Final = 86_400_000
ANYTHING: Final = 2**52  # a limit that is none, for what was spent already and must be counted


class Amounts(NamedTuple):
    """What may be spent within a window; None is any number."""

    requests: int | None
    tokens: int | None
    window_s: int

    @property
    def bounded(self) -> bool:
        """Whether there is a limit at all."""
        return self.requests is not None or self.tokens is not None


@dataclass(eq=False, slots=True)
class Spent:
    """One call's share of the limits, and whether the processes' common count has it."""

    at: float
    tokens: int
    shared: bool


class Ledger:
    """What this process alone has spent within the last window, call by call."""

    def __init__(self, window_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._window_s = window_s
        self._clock = clock
        self._spent: deque[Spent] = deque()
        self.last_at: float | None = None

    def add(self, tokens: int, *, shared: bool) -> Spent:
        """One more call."""
        spent = Spent(self._clock(), tokens, shared)
        self._spent.append(spent)
        self.last_at = spent.at
        return spent

    def take_back(self, spent: Spent) -> None:
        """A call that was not made after all."""
        if spent in self._spent:
            self._spent.remove(spent)

    def lately(self) -> list[Spent]:
        """The calls of the last window."""
        limit = self._clock() - self._window_s
        while self._spent and self._spent[0].at <= limit:
            self._spent.popleft()
        return list(self._spent)


class Seen(NamedTuple):
    """How the common count stands: which memory it is, how old, and how long nobody may call."""

    memory: bytes
    age_s: float
    hold_s: float


class CommonCount:
    """The count of one provider, model and key that all processes share. Every method may raise for Redis being away.

    The sliding window counter needs two numbers per limit, however large a call is. Its keys hold a digest only.
    """

    def __init__(self, redis: Redis, name: str, amounts: Amounts) -> None:
        self._redis = redis
        self._name = name
        self._storage = RedisStorage(
            "async+redis://",
            implementation="redispy",
            key_prefix=PREFIX,
            connection_pool=redis.connection_pool,  # type: ignore[arg-type]
        )
        self._limiter = SlidingWindowCounterRateLimiter(self._storage)
        self._window_s = amounts.window_s
        self._requests = _item(amounts.requests, amounts.window_s, "requests")
        self._tokens = _item(amounts.tokens, amounts.window_s, "tokens")

    async def look(self) -> Seen:
        """Look at it before anything is taken. A memory that was lost has another name."""
        memory, hold = f"{PREFIX}:memory", f"{PREFIX}:hold:{self._name}"
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.set(memory, secrets.token_hex(8), nx=True, px=MEMORY_MS)
            pipe.get(memory)
            pipe.pttl(memory)
            pipe.pttl(hold)
            _, name, left_ms, hold_ms = await pipe.execute()
        return Seen(name or b"", (MEMORY_MS - max(0, left_ms)) / 1000, max(0, hold_ms) / 1000)

    async def hold(self, seconds: float) -> None:
        """Nobody calls this model for so long. A longer hold that is there stays."""
        key, hold_ms = f"{PREFIX}:hold:{self._name}", max(1, round(seconds * 1000))
        if await self._redis.pttl(key) < hold_ms:
            await self._redis.set(key, b"", px=hold_ms)

    async def take(self, tokens: int) -> bool:
        """Count one call of so many tokens, if the limits have room for it."""
        if self._tokens is not None and not await self._limiter.test(self._tokens, self._name, cost=tokens):
            return False
        if self._requests is not None and not await self._limiter.hit(self._requests, self._name):
            return False
        # Another process may have been quicker: then the request is lost, and what is lost is never too much spent.
        return self._tokens is None or await self._limiter.hit(self._tokens, self._name, cost=tokens)

    async def add(self, requests: int, tokens: int) -> None:
        """Count what was spent already, room or no room."""
        for item, amount in ((self._requests, requests), (self._tokens, tokens)):
            if item is not None and amount > 0:
                await self._counter.acquire_sliding_window_entry(
                    item.key_for(self._name), ANYTHING, item.get_expiry(), amount
                )

    async def give_back(self, requests: int, tokens: int, ago_s: float) -> None:
        """What was counted `ago_s` ago was not spent. Only the newer window takes it back; the older fades anyway."""
        for item, amount in ((self._requests, requests), (self._tokens, tokens)):
            if item is None or amount <= 0:
                continue
            key = item.key_for(self._name)
            _, _, count, left_s = await self._counter.get_sliding_window(key, item.get_expiry())
            if 2 * self._window_s - left_s > ago_s:
                await self._counter.acquire_sliding_window_entry(key, ANYTHING, item.get_expiry(), -min(amount, count))

    @property
    def _counter(self) -> SlidingWindowCounterSupport:
        return cast("SlidingWindowCounterSupport", self._storage)


def _item(amount: int | None, window_s: int, what: str) -> RateLimitItem | None:
    return None if amount is None else RateLimitItemPerSecond(amount, window_s, what)
