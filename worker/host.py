"""One worker process: takes runs while it has room, carries them on one event loop, tends the queue, goes in order."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final, Protocol
from uuid import UUID

import structlog
from redis.asyncio import Redis
from sqlalchemy.exc import SQLAlchemyError

from eventstore import log, partitions, queue, wakeups
from eventstore.handoff import Handoff
from worker.giving_up import Given
from worker.runner import Bench, carry

PARTITIONS_S: Final = 3_600.0
PARTITIONS_AGAIN_S: Final = 10.0
PARTITIONS_AGAIN_S_MAX: Final = 600.0
# How long a suspect is watched before the next one begins. One that stood three deaths is watched to its end.
TRIAL_S: Final = 3.0
TRIAL_TO_THE_END: Final = 3
TOLD_AGAIN_S: Final = 0.05

logger = structlog.get_logger(__name__)


class Hints(Protocol):
    """The queue's side of a worker: `waiting` lets it fetch at once, and without `room` it fetches nothing."""

    waiting: threading.Event
    room: threading.Event


@dataclass(frozen=True, slots=True)
class Carried:
    """A run under way in this process."""

    task: "asyncio.Task[None]"
    crashes: int
    since: float


class Host:
    """Carries runs. `hint` is called from the queue's threads, everything else on the loop."""

    def __init__(
        self,
        bench: Bench,
        handoff: Handoff,
        redis: Redis,
        *,
        hints: Hints,
        bounds: queue.Bounds,
        sweep_s: float,
        queue_wait_s: float,
    ) -> None:
        self._bench = bench
        self._handoff = handoff
        self._redis = redis
        self._hints = hints
        covers = [(flow.name, version) for flow in bench.workflows.values() for version in flow.covers]
        self._taker = queue.Taker(bench.owner, bench.lease_s, bounds, covers)
        self._sweep_s = sweep_s
        self._queue_wait_s = queue_wait_s
        self._loop = asyncio.get_running_loop()
        self._since = self._loop.time()
        self._away_since: float | None = None
        self._tend_from = 0.0
        self._told_at = 0.0
        self._look = asyncio.Event()
        self._taking = asyncio.Lock()
        self._runs: dict[tuple[UUID, int], Carried] = {}
        self._handover = asyncio.Event()
        bench.metrics.look_at(lambda: len(self._runs), bench.settings.runs_max)

    def hint(self) -> None:
        """There may be something to do."""
        self._loop.call_soon_threadsafe(self._look.set)

    def _room(self) -> int:
        return max(0, self._bench.settings.runs_max - len(self._runs))

    def _suspects(self) -> tuple[int, int]:
        """How many of our runs are under suspicion of killing workers and have not stood their trial, and how many in
        all."""
        since = self._loop.time() - TRIAL_S
        suspects = [run for run in self._runs.values() if run.crashes > 1]
        return sum(run.crashes >= TRIAL_TO_THE_END or run.since > since for run in suspects), len(suspects)

    def _begin(self, run: queue.Taken) -> None:
        task = self._loop.create_task(self._carry(run))
        self._runs[(run.run_id, run.epoch)] = Carried(task, run.crashes, self._loop.time())

    async def _carry(self, run: queue.Taken) -> None:
        try:
            given = Given(run.parked, run.crashes, run.blamed, run.why)
            await carry(self._bench, run.run_id, run.epoch, self._handover, given)
        except (SQLAlchemyError, OSError, TimeoutError) as fault:
            logger.warning(
                "the log is away: this run is left to the sweep", run_id=str(run.run_id), fault=type(fault).__name__
            )
        except Exception:  # the edge of a run: one that breaks must not take the others with it
            logger.exception("a run broke", run_id=str(run.run_id))
        finally:
            del self._runs[(run.run_id, run.epoch)]
            self._hints.room.set()
            self._look.set()  # there is room, and its tenant, caller and workflow have one less

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Everything that goes on beside the runs; on the way out the runs are handed back."""
        async with AsyncExitStack() as stack:
            for work in (self._bench.recorder.run(), self._hear(), self._look_for_runs(), self._make_room()):
                task = self._loop.create_task(work)
                stack.push_async_callback(_end, task)
            try:
                yield
            finally:
                await self._hand_back()

    async def _hand_back(self) -> None:
        self._handover.set()
        async with self._taking:  # what is being taken now is handed back as well
            runs = dict(self._runs)
        if runs:
            await asyncio.wait([run.task for run in runs.values()], timeout=self._bench.settings.drain_s)
            await self._handoff.hand_over(*[run_id for run_id, _ in runs])

    async def _hear(self) -> None:
        """Wake-ups: a message waits in the queue, or the API wrote to a run that may be ours."""
        async for channel, payload in wakeups.listen(self._redis, wakeups.HANDOFF, wakeups.CONTROL):
            if channel == wakeups.HANDOFF:
                self._hints.waiting.set()
                if payload == wakeups.MORE and self._room():
                    self._look.set()
            elif not payload:
                self._bench.recorder.nudge(None)
            elif len(payload) == 32 and payload.isalnum():
                with suppress(ValueError):
                    self._bench.recorder.nudge(UUID(hex=payload))

    async def _look_for_runs(self) -> None:
        """Take what there is when a hint comes, when there is room again, and every `sweep_s` in any case."""
        sweep_at = self._loop.time()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(sweep_at):
                    await self._look.wait()
            self._look.clear()
            sweeping = self._loop.time() >= sweep_at
            try:
                if sweeping:
                    await self._tend()
                    sweep_at = self._loop.time() + self._sweep_s
                while await self._take(sweeping=sweeping):
                    pass
            except (SQLAlchemyError, OSError, TimeoutError) as fault:
                self._bench.metrics.database.met(fault)
                self._away_since = self._away_since if self._away_since is not None else self._loop.time()
                sweep_at = self._loop.time() + self._sweep_s

    async def _tend(self) -> None:
        """Bring back into line what is due, and what workers had that fell silent.

        After the log was out of reach for longer than a lease, this first waits one lease: every healthy worker was cut
        off as well and must have the time to renew before its runs are given away.
        """
        if self._away_since is not None:
            async with self._bench.engine.connect() as connection:
                await log.head(connection, UUID(int=0))
            if self._loop.time() - self._away_since > self._bench.lease_s:
                self._tend_from = self._loop.time() + self._bench.lease_s
            self._away_since = None
        if self._loop.time() < self._tend_from:
            return
        async with self._bench.engine.begin() as connection:
            due, lost = await queue.tend(connection, self._taker)
        self._bench.metrics.database.answered()
        if due or lost:
            self._bench.metrics.offered_again(due + lost)
            logger.info("back in line", due=due, lost=lost)

    async def _take(self, *, sweeping: bool) -> bool:
        """Begin what is ours to begin; whether there is more for us at once. A worker that is full takes no run, and
        still ends what only needs to be ended."""
        room = self._room()
        if self._handover.is_set() or not (room or sweeping):
            return False
        async with self._taking:
            on_trial, suspects = self._suspects()
            async with self._bench.engine.begin() as connection:
                found = await queue.take(
                    connection,
                    self._taker,
                    room,
                    on_trial=on_trial,
                    suspects=suspects,
                    wait_s=self._queue_wait_s if sweeping else None,
                    up_s=self._loop.time() - self._since,
                )
            for run in found.runs:
                self._begin(run)
        if not self._room():
            self._hints.room.clear()
        again = found.more and bool(found.runs) and self._room() > 0
        if found.more and not again and self._loop.time() - self._told_at > TOLD_AGAIN_S:
            self._told_at = self._loop.time()
            await wakeups.publish(self._redis, wakeups.HANDOFF, wakeups.MORE)
        return again

    async def _make_room(self) -> None:
        """Partitions ahead of time. That they cannot be made, or do not reach far, is said loudly and tried again."""
        wait_s = PARTITIONS_AGAIN_S
        while True:
            made = await self._partitions_made()
            enough = await self._runway_told()
            await asyncio.sleep(PARTITIONS_S if made and enough else wait_s)
            wait_s = PARTITIONS_AGAIN_S if made and enough else min(wait_s * 2, PARTITIONS_AGAIN_S_MAX)

    async def _partitions_made(self) -> bool:
        try:
            async with self._bench.engine.begin() as connection:
                if made := await log.ensure_partitions(connection):
                    logger.info("made partitions", count=made)
        except (SQLAlchemyError, OSError, TimeoutError) as fault:
            self._bench.metrics.no_room_made()
            why = str(getattr(fault, "orig", fault)).partition("\n")[0]
            logger.error(
                "could not make partitions", fault=type(fault).__name__, why=why, hint="tried again; " + partitions.HINT
            )
            return False
        return True

    async def _runway_told(self) -> bool:
        """Whether there is room for long enough. While the log cannot be asked, somebody else says so."""
        try:
            async with self._bench.engine.connect() as connection:
                _, runway_s = await partitions.look(connection)
        except (SQLAlchemyError, OSError, TimeoutError):
            return False
        if runway_s >= partitions.RUNWAY_WARN_S:
            return True
        logger.error("partitions run out", runway_days=round(runway_s / partitions.DAY_S, 1), hint=partitions.HINT)
        return False


async def _end(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
