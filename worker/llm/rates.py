"""A provider's limits, held by all processes together: each call takes its share first, and waits while there is none.

A call's share is one request and its tokens: the prompt by estimate, and all that it may be answered with. What it
really used is settled when it ends. Who waits in one process is served in turn by tenant. What the provider says of its
own limits holds for all processes as well. While Redis is away, each process keeps to the limit divided by the workers
that live; so nothing is ever without a limit, and nothing stands still.
"""

import asyncio
import math
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Protocol

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from worker.llm.model import ModelFault
from worker.llm.room import hold_in
from worker.llm.settings import ModelSettings
from worker.llm.spending import Amounts, CommonCount, Ledger, Seen, Spent

AWAY: Final = (RedisError, OSError, TimeoutError)
REDIS_S: Final = 0.5  # for each question to Redis
AGAIN_S: Final = 1.0  # after Redis was away, and between two looks at whether it has forgotten
REJOIN_S: Final = 2.5  # in which each process tells a Redis that has forgotten what it had spent
HOLD_S_MAX: Final = 120.0
PAUSE_S_MAX: Final = 1.0

logger = structlog.get_logger(__name__)


def rates_of(
    settings: ModelSettings, redis: Redis, live: Callable[[], Awaitable[int | None]], figures: "Figures"
) -> "Rates":
    """The limits as the settings say."""
    return Rates(
        redis,
        settings.amounts(),
        wait_s=settings.rate_wait_s,
        output_tokens=settings.rate_output_tokens,
        name=settings.rates_name,
        live=live,
        figures=figures,
    )


class Figures(Protocol):
    """What is counted of it."""

    def waiting(self, calls: int) -> None:
        """So many more calls wait."""
        ...

    def waited(self, seconds: float, outcome: str) -> None:
        """One waited: it was served, gave up, or was stopped."""
        ...

    def common(self, *, is_common: bool) -> None:
        """Whether the limits are held by all processes together."""
        ...


@dataclass(eq=False, slots=True)
class Waiter:
    """A call that waits for its share."""

    tokens: int
    served: "asyncio.Future[Spent]"


class Share:
    """What one call has taken."""

    def __init__(self, bucket: "Bucket", spent: Spent) -> None:
        self._bucket = bucket
        self._spent = spent

    async def settle(self, tokens: int) -> None:
        """The call used so many tokens."""
        await self._bucket.settle(self._spent, tokens)


class Bucket:
    """The limits of one provider, model and key."""

    def __init__(
        self,
        redis: Redis,
        name: str,
        amounts: Amounts,
        live: Callable[[], Awaitable[int | None]],
        figures: Figures,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._common = CommonCount(redis, name, amounts)
        self._amounts = amounts
        self._live = live
        self._figures = figures
        self._clock = clock
        self._ledger = Ledger(amounts.window_s, clock)
        self._queues: dict[str, deque[Waiter]] = {}
        self.pump: asyncio.Task[None] | None = None  # serves who waits
        self._memory: bytes | None = None
        self._lost = False  # we saw it forget
        self._turn = asyncio.Lock()
        self._looked_at = -math.inf
        self._away_until = 0.0
        self._alone_since: float | None = None  # while the common count cannot be used
        self._hold_until = 0.0
        self._hold_told = True

    # --- taking a share

    async def take(self, tenant: str, tokens: int, wait_s: float) -> Share:
        """A share of the limits, waited for in turn. Raises ModelFault when it does not come in time."""
        if self._amounts.tokens is not None:
            tokens = min(tokens, self._amounts.tokens)  # a larger call has to have a window of its own
        if self._hold_until - self._clock() > wait_s:
            raise ModelFault("provider_busy", "The model provider asks for a long pause.", retryable=False)
        if not self._queues and (spent := await self._try(tokens)) is not None:
            return Share(self, spent)
        began, outcome = self._clock(), "stopped"
        waiter = Waiter(tokens, asyncio.get_running_loop().create_future())
        self._queues.setdefault(tenant, deque()).append(waiter)
        if self.pump is None or self.pump.done():
            self.pump = asyncio.create_task(self._serve(), name="model limits")
        self._figures.waiting(1)
        try:
            async with asyncio.timeout(wait_s):
                spent = await waiter.served
            outcome = "served"
            return Share(self, spent)
        except TimeoutError:
            outcome = "gave_up"
            raise ModelFault(
                "provider_busy",
                f"The model provider's limits left no room for this call for {wait_s:g} s.",
                retryable=False,
            ) from None
        finally:
            self._figures.waiting(-1)
            self._figures.waited(self._clock() - began, outcome)
            if outcome != "served":
                await self._leave(tenant, waiter)

    async def _leave(self, tenant: str, waiter: Waiter) -> None:
        queue = self._queues.get(tenant)
        if queue is not None and waiter in queue:
            queue.remove(waiter)
            if not queue:
                del self._queues[tenant]
        if waiter.served.done() and not waiter.served.cancelled():
            await self._give_back(waiter.served.result(), None)

    async def _serve(self) -> None:
        """Serve who waits, tenant after tenant. Who is next stays next until there is room: a large call comes too."""
        while self._queues:
            tenant, queue = next(iter(self._queues.items()))
            waiter = queue[0]
            spent = await self._try(waiter.tokens)
            if spent is None:
                await asyncio.sleep(self._pause_s())
            elif waiter.served.done():  # it has left meanwhile
                await self._give_back(spent, None)
            else:
                waiter.served.set_result(spent)
                queue.popleft()
                del self._queues[tenant]
                if queue:
                    self._queues[tenant] = queue

    def _pause_s(self) -> float:
        """Until the next try: not in step with other processes, and not before the provider wants to hear of us."""
        pause_s = min(PAUSE_S_MAX, self._amounts.window_s / 20)
        return max(0.0, self._hold_until - self._clock()) + pause_s * random.uniform(0.5, 1.0)  # noqa: S311

    async def _try(self, tokens: int) -> Spent | None:
        """The call's share, if there is one now."""
        if self._clock() < self._hold_until:
            return None
        if not self._amounts.bounded and self._clock() < self._looked_at + AGAIN_S:
            return Spent(self._clock(), tokens, shared=False)
        async with self._turn:  # hundreds of calls that begin together would each want a connection
            if self._clock() >= self._away_until:
                try:
                    async with asyncio.timeout(REDIS_S):
                        return await self._try_common(tokens)
                except AWAY as fault:
                    self._went_away(fault)
            return await self._try_alone(tokens)

    async def _try_common(self, tokens: int) -> Spent | None:
        seen = await self._join()
        self._looked_at = self._clock()
        if seen.hold_s > 0:
            self._hold_until = max(self._hold_until, self._clock() + seen.hold_s)
            return None
        if not self._amounts.bounded:
            return Spent(self._clock(), tokens, shared=False)
        # Not everybody has told a young count yet what was spent: until then it would give the same room out twice.
        if seen.age_s < REJOIN_S and (self._lost or not await self._has_part(tokens)):
            return None
        self._alone_since = None
        self._figures.common(is_common=True)
        return self._ledger.add(tokens, shared=True) if await self._common.take(tokens) else None

    async def _join(self) -> Seen:
        """Look at the common count, and tell it what it does not know."""
        seen = await self._common.look()
        if seen.memory != self._memory:
            self._lost = self._memory is not None
            for spent in self._ledger.lately():
                spent.shared = False
            self._memory = seen.memory
        await self._tell()
        if not self._hold_told:
            await self._common.hold(self._hold_until - self._clock())
            self._hold_told = True
        return seen

    async def _tell(self) -> None:
        for spent in self._ledger.lately():
            if not spent.shared:
                spent.shared = True  # before it is known to have arrived: counted once at most, as others do theirs
                await self._common.add(1, spent.tokens)

    async def _try_alone(self, tokens: int) -> Spent | None:
        """A share of this process's part of the limits."""
        self._figures.common(is_common=False)
        if not self._amounts.bounded:
            return Spent(self._clock(), tokens, shared=False)
        return self._ledger.add(tokens, shared=False) if await self._has_part(tokens) else None

    async def _has_part(self, tokens: int) -> bool:
        """Whether a call keeps to this process's part: what all may spend, divided by the workers that live."""
        if self._alone_since is None:
            self._alone_since = self._clock()
        live = await self._live()
        if live is None:
            return False  # nobody knows how many: the log is away too, and whoever asks again will know
        lately = self._ledger.lately()
        spent_tokens = sum(spent.tokens for spent in lately)
        parts = ((self._amounts.requests, len(lately), 1), (self._amounts.tokens, spent_tokens, tokens))
        return all(limit is None or self._fits(limit / live, spent, cost) for limit, spent, cost in parts)

    def _fits(self, part: float, spent: int, cost: int) -> bool:
        """Whether a call of this cost keeps to this part. One that is larger than all of it comes once in so many
        windows as it is larger."""
        if cost <= part:
            return spent + cost <= part
        assert self._alone_since is not None
        since = max(self._alone_since, self._ledger.last_at or 0.0)
        return self._clock() - since >= cost / part * self._amounts.window_s

    def _went_away(self, fault: BaseException) -> None:
        if self._alone_since is None:
            logger.warning("the limits of models are divided: Redis is away", fault=type(fault).__name__)
        self._away_until = self._clock() + AGAIN_S

    # --- what a call came to

    async def settle(self, spent: Spent, tokens: int) -> None:
        """Count what it used in place of what it might have used."""
        more = tokens - spent.tokens
        if self._amounts.tokens is None or more == 0:
            return
        if more < 0:
            await self._give_back(spent, tokens)
            return
        spent.tokens = tokens
        if spent.shared:
            await self._quietly(self._common.add(0, more))

    async def _give_back(self, spent: Spent, tokens: int | None) -> None:
        """It used fewer tokens, or with None was never made."""
        requests, unused = (0, spent.tokens - tokens) if tokens is not None else (1, spent.tokens)
        if tokens is None:
            self._ledger.take_back(spent)
        else:
            spent.tokens = tokens
        if spent.shared:
            await self._quietly(self._common.give_back(requests, unused, self._clock() - spent.at))

    async def _quietly(self, told: Awaitable[None]) -> None:
        """Say it if Redis is there. What is lost was counted as spent."""
        try:
            async with asyncio.timeout(REDIS_S):
                await told
        except AWAY as fault:
            self._went_away(fault)

    def hold(self, seconds: float) -> None:
        """The provider wants to hear nothing for so long, from nobody. Told to the others with the next look."""
        until = self._clock() + min(seconds, HOLD_S_MAX)
        if until > self._hold_until:
            self._hold_until, self._hold_told = until, False

    async def keep(self) -> None:
        """Tell what the others must know, also while no call asks."""
        if self._clock() < self._away_until or (self._hold_told and not self._ledger.lately()):
            return
        try:
            async with asyncio.timeout(REDIS_S):
                await self._join()
        except AWAY as fault:
            self._went_away(fault)


class Rates:
    """The limits of one provider and key, by model."""

    def __init__(
        self,
        redis: Redis,
        amounts: Amounts,
        *,
        wait_s: float,
        output_tokens: int,
        name: Callable[[str], str],
        live: Callable[[], Awaitable[int | None]],
        figures: Figures,
    ) -> None:
        self._redis = redis
        self._amounts = amounts
        self._wait_s = wait_s
        self.output_tokens = output_tokens  # taken for the longest answer where a call does not say
        self._name = name
        self._live = live
        self._figures = figures
        self._buckets: dict[str, Bucket] = {}

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Keep what is common common, for as long as the block lasts."""
        task = asyncio.create_task(self._keep(), name="common limits")
        try:
            yield
        finally:
            tasks = [task, *(bucket.pump for bucket in self._buckets.values() if bucket.pump is not None)]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(AGAIN_S)
            for bucket in list(self._buckets.values()):
                await bucket.keep()

    async def take(self, model: str, tenant: str, tokens: int) -> Share:
        """A share of a model's limits. Raises ModelFault when it does not come in time."""
        return await self._bucket(model).take(tenant, tokens, self._wait_s)

    def hold(self, model: str, seconds: float) -> None:
        """The provider wants to hear nothing of this model for so long."""
        self._bucket(model).hold(seconds)

    def heard(self, model: str, headers: Mapping[str, str]) -> None:
        """The head of an answer says how much room is left."""
        if (seconds := hold_in(headers)) is not None:
            self.hold(model, seconds)

    def _bucket(self, model: str) -> Bucket:
        if model not in self._buckets:
            self._buckets[model] = Bucket(self._redis, self._name(model), self._amounts, self._live, self._figures)
        return self._buckets[model]
