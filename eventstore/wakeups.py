"""Wake-ups over Redis pub/sub: hints that something is in the log, never what.

Three channels. `moved`: runs have new events, as `<run id>:<last seq>` separated by blanks; APIs listen. `control`: the
API wrote to a run that somebody owns; workers listen. `handoff`: a message waits in the queue, or a worker
left runs for others; workers listen. A
wake-up may be lost, doubled or late, and Redis may be away: every listener also asks the log on a timer, so only
latency changes. Publishing therefore never fails its caller.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Final
from uuid import UUID

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

MOVED: Final = "runwire:moved"
CONTROL: Final = "runwire:control"
HANDOFF: Final = "runwire:handoff"
MORE: Final = "more"  # on the channel `handoff`: a worker left runs that it has no room or no code for
RETRY_S: Final = 0.5

logger = structlog.get_logger(__name__)


def connect(redis_url: str) -> "Redis":
    """A client whose every wait is bounded. Nothing connects before the first command."""
    return Redis.from_url(redis_url, socket_connect_timeout=1.0, socket_timeout=2.0, health_check_interval=15)


def moved_payload(positions: Iterable[tuple[UUID, int]]) -> str:
    """Positions as one message."""
    return " ".join(f"{run_id.hex}:{seq}" for run_id, seq in positions)


def parse_moved(payload: str) -> list[tuple[UUID, int]]:
    """The positions in a message; what cannot be read is left out, for a hint is only a hint."""
    positions = []
    for part in payload.split():
        run_hex, _, seq = part.partition(":")
        if len(run_hex) == 32 and seq.isascii() and seq.isdigit():
            try:
                positions.append((UUID(hex=run_hex), int(seq)))
            except ValueError:
                continue
    return positions


async def publish(redis: "Redis", channel: str, payload: str) -> bool:
    """Send a hint. False when Redis is away; the log's readers find out by themselves."""
    before = _cancellations()
    try:
        await redis.publish(channel, payload)
    except (RedisError, OSError, TimeoutError) as fault:
        logger.debug("wake-up not sent", channel=channel, fault=type(fault).__name__)
        return False
    finally:
        _heed(before)
    return True


def _cancellations() -> int:
    task = asyncio.current_task()
    return task.cancelling() if task is not None else 0


def _heed(before: int) -> None:
    """Be cancelled after all. The client bounds each send by `wait_for`, and that of Python 3.11 loses a cancellation
    that comes together with the answer: whoever calls us in a loop would then never end."""
    if _cancellations() > before:
        raise asyncio.CancelledError


async def listen(redis: "Redis", *channels: str) -> AsyncIterator[tuple[str, str]]:
    """Hints as (channel, payload), for ever. After each (re)connection one empty hint per channel is given, because
    whatever was sent while we were away is lost: the listener should then look for itself."""
    away, before = False, _cancellations()
    while True:
        pubsub = redis.pubsub(ignore_subscribe_messages=True)
        try:
            await pubsub.subscribe(*channels)
            _heed(before)
            if away:
                logger.info("wake-ups are back")
            away = False
            for channel in channels:
                yield channel, ""
            while True:
                message = await pubsub.get_message(timeout=1.0)
                _heed(before)
                if message is not None:
                    yield message["channel"].decode(), message["data"].decode(errors="replace")
        except (RedisError, OSError, TimeoutError) as fault:
            if not away:
                logger.warning("no wake-ups: asking the log on a timer", fault=type(fault).__name__)
            away = True
        finally:
            await pubsub.aclose()  # type: ignore[no-untyped-call]
        await asyncio.sleep(RETRY_S)
