"""What the API processes tell each other of callers who use much, so that limits count over all of them.

One Redis hash, a field per process, written and read once a second by those processes only that have such a caller;
an idle service asks nothing. A process that has died says the same for ever: its field counts no longer once it has
not changed for a few seconds by our own clock, and the hash goes when nobody writes it. Callers are named by digests.
"""

import asyncio
from contextlib import suppress
from hashlib import sha256
from time import monotonic
from typing import Final
from uuid import uuid4

import orjson
import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from api.limits import Limits, Who

KEY: Final = "runwire:callers"
KEPT_S: Final = 60
SILENT_TELLS: Final = 5  # a process that has said nothing new in so many of our own looks is not there

Others = list[dict[str, tuple[float, int]]]

logger = structlog.get_logger(__name__)


class Neighbours:
    """The other processes, from one process's side."""

    def __init__(self, limits: Limits, redis: "Redis", every_s: float) -> None:
        self._limits = limits
        self._redis = redis
        self._every_s = every_s
        self._own = uuid4().hex
        self._number = 0
        self._told = monotonic()
        self._known: dict[str, tuple[int, int]] = {}  # by process: the number it told last, and our looks since then

    async def run(self) -> None:
        """Tell and hear, for ever."""
        while True:
            await asyncio.sleep(self._every_s)
            await self.tell()

    async def tell(self) -> bool:
        """Tell and hear once; False when Redis is away, and this process counts for itself."""
        now = monotonic()
        much = self._limits.told(max(now - self._told, 0.001))
        self._told = now
        if not much and not self._number:
            return True
        try:
            others: Others | None = await self._exchange({_name(who): use for who, use in much.items()})
        except (RedisError, OSError, TimeoutError) as fault:
            logger.debug("callers are counted here alone", fault=type(fault).__name__)
            others = None
        for who in much:
            name = _name(who)
            self._limits.heard(who, [other[name] for other in others or () if name in other])
        return others is not None

    async def leave(self) -> None:
        """This process gives nothing any more."""
        if self._number:
            with suppress(RedisError, OSError, TimeoutError):
                await self._redis.hdel(KEY, self._own)

    async def _exchange(self, own: dict[str, tuple[float, int]]) -> Others:
        async with self._redis.pipeline(transaction=False) as pipeline:
            if own:
                self._number += 1
                pipeline.hset(KEY, self._own, orjson.dumps([self._number, own]).decode())
                pipeline.expire(KEY, KEPT_S)
            else:
                self._number = 0
                pipeline.hdel(KEY, self._own)
            pipeline.hgetall(KEY)
            *_, found = await pipeline.execute()
        return self._alive({field.decode(): value for field, value in found.items()})

    def _alive(self, found: dict[str, bytes]) -> Others:
        known: dict[str, tuple[int, int]] = {}
        alive: Others = []
        for process, value in found.items():
            if process == self._own:
                continue
            try:
                number, uses = orjson.loads(value)
                read = {str(name): (float(rate), int(streams)) for name, (rate, streams) in uses.items()}
            except (ValueError, TypeError, AttributeError):
                continue  # not of this release
            before, looks = self._known.get(process, (None, 0))
            known[process] = (number, looks + 1 if number == before else 0)
            if known[process][1] < SILENT_TELLS:
                alive.append(read)
        self._known = known
        return alive


def _name(who: Who) -> str:
    return sha256("\0".join(who).encode()).hexdigest()[:32]
