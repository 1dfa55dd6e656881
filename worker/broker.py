"""The dramatiq broker as the workers use it: hints about runs, nothing that must not be lost.

dramatiq's own consumer sleeps up to a second when the queue is empty, and a connection error costs it three more. Ours
sleeps until a wake-up says that something waits, looks by itself now and then all the same, and treats Redis being away
as an empty queue. Retries, delays and time limits are left out: the log decides what is still to be done, and the sweep
offers it again.
"""

import threading
import time
from collections.abc import Iterable
from typing import Any, Final

import structlog
from dramatiq import Consumer, Message, MessageProxy
from dramatiq.brokers.redis import RedisBroker
from dramatiq.errors import DramatiqError
from redis.exceptions import RedisError

from eventstore.handoff import NAMESPACE, queue_client

LOOK_S: Final = 1.0
AWAY_S: Final = 0.5

logger = structlog.get_logger(__name__)


class HintConsumer(Consumer):
    """Takes run ids from one queue."""

    def __init__(self, broker: "HintBroker", queue_name: str, prefetch: int) -> None:
        self._broker = broker
        self._queue_name = queue_name
        self._prefetch = prefetch
        self._fetched: list[bytes] = []
        self._delayed = queue_name.endswith(".DQ")

    def __next__(self) -> MessageProxy | None:
        if self._delayed or self._broker.stopping.is_set():
            # Nothing is ever delayed: that queue exists because dramatiq makes one. And what a stopping worker took
            # from the queue now, nobody would carry.
            self._broker.stopping.wait(LOOK_S)
            return None
        if not self._broker.room.wait(LOOK_S):  # a hint that a full worker takes is one that another does not get
            return None
        self._broker.waiting.clear()
        try:
            if not self._fetched:
                self._fetched = list(self._broker.do_fetch(self._queue_name, self._prefetch))
        except (RedisError, OSError):
            time.sleep(AWAY_S)
            return None
        if not self._fetched:
            self._broker.waiting.wait(LOOK_S)
            return None
        data = self._fetched.pop(0)
        try:
            return MessageProxy(Message.decode(data))
        except (DramatiqError, ValueError, TypeError, KeyError):
            logger.error("a message that is not ours was dropped", bytes=len(data))
            return None

    def ack(self, message: MessageProxy) -> None:
        try:
            self._broker.do_ack(self._queue_name, message.options["redis_message_id"])
        except (RedisError, OSError):
            logger.debug("not acknowledged: a second delivery finds the run claimed or ended")

    def nack(self, message: MessageProxy) -> None:
        self.ack(message)

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """At shutdown: what was fetched and not begun goes back, or is found by the sweep."""
        ids = [message.options["redis_message_id"] for message in messages]
        try:
            if ids:
                self._broker.do_requeue(self._queue_name, *ids)
        except (RedisError, OSError):
            logger.debug("not requeued: the sweep will offer these runs again", runs=len(ids))


class HintBroker(RedisBroker):
    """Redis as a queue of hints, with a wake-up instead of a nap."""

    def __init__(self, redis_url: str) -> None:
        # Maintenance on every command and a short heartbeat: messages of a killed worker move back within seconds.
        super().__init__(  # type: ignore[no-untyped-call]
            client=queue_client(redis_url),
            namespace=NAMESPACE,
            middleware=[],
            maintenance_chance=1_000_000,
            heartbeat_timeout=5_000,
        )
        self.waiting = threading.Event()
        self.stopping = threading.Event()
        self.room = threading.Event()
        self.room.set()

    def stop(self) -> None:
        """Take nothing more from the queue, and let whoever waits for it go."""
        self.stopping.set()
        self.waiting.set()
        self.room.set()

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> Any:
        """A consumer that wakes up when it is told to."""
        return HintConsumer(self, queue_name, prefetch)
