"""How a run is handed to the workers: a small dramatiq message that says its id, and a wake-up.

The API writes the message without knowing any worker code: the names below are all that the two sides share. A lost
message is found by the sweep, a doubled one finds the run claimed or ended.
"""

import asyncio
from typing import Final
from uuid import UUID

import dramatiq
import structlog
from dramatiq.brokers.redis import RedisBroker
from redis import ConnectionPool
from redis import Redis as SyncRedis
from redis.asyncio import Redis
from redis.exceptions import RedisError

from eventstore.wakeups import HANDOFF, publish

QUEUE: Final = "runs"
ACTOR: Final = "run_workflow"
NAMESPACE: Final = "runwire"

logger = structlog.get_logger(__name__)


def queue_client(redis_url: str) -> SyncRedis:
    """A client for the queue, every wait bounded and no hidden second try: a retried enqueue is a doubled message."""
    pool = ConnectionPool.from_url(redis_url, socket_connect_timeout=1.0, socket_timeout=3.0)
    return SyncRedis(connection_pool=pool)


class Handoff:
    """Hands runs over. Never raises for Redis being away: the log holds the run, the sweep will find it."""

    def __init__(self, redis_url: str, wakeups: Redis) -> None:
        self._broker = RedisBroker(client=queue_client(redis_url), namespace=NAMESPACE, middleware=[])
        self._wakeups = wakeups

    async def hand_over(self, *run_ids: UUID) -> bool:
        """Queue the runs and wake a worker."""
        try:
            await asyncio.to_thread(self._enqueue, run_ids)
        except (RedisError, OSError) as fault:
            logger.warning("handed over later: the queue is away", runs=len(run_ids), fault=type(fault).__name__)
            return False
        return await publish(self._wakeups, HANDOFF, "")

    def _enqueue(self, run_ids: tuple[UUID, ...]) -> None:
        for run_id in run_ids:
            message: dramatiq.Message[None] = dramatiq.Message(
                queue_name=QUEUE, actor_name=ACTOR, args=(str(run_id),), kwargs={}, options={}
            )
            self._broker.enqueue(message)

    def close(self) -> None:
        """Let go of the queue's connections."""
        self._broker.client.connection_pool.disconnect()  # the client leaves a pool that it was given
