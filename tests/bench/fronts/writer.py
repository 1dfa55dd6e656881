"""The writing process: many runs through one recorder, as fast as it goes or each piece at its own moment."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final
from uuid import UUID

from eventstore import catalogue, wakeups
from eventstore.database import async_engine
from eventstore.domain.events import Body, new_event
from eventstore.recorder import Recorder
from eventstore.run_writer import RunWriter
from tests.bench.fronts.child import Orders, obey
from tests.writing import accepted, claim, result, started, submission, token
from worker.__main__ import clock_us

WORKFLOW: Final = "drill"
OPENERS: Final = 8  # at the same time
LEASE_S: Final = 3_600.0
PIECE_BYTES: Final = 24
BURST: Final = 500  # events of one run between two waits


def piece(number: int, length: int = PIECE_BYTES) -> str:
    """A piece of text that says its place."""
    return f"{number:07d}".ljust(length - 1, "x") + " "


class Writing:
    """The runs that were opened so far, and how many pieces each was given."""

    def __init__(self, given: dict[str, Any]) -> None:
        self._engine = async_engine(
            given["database_url"], application="bench-writer", role="runwire_worker", pool_size=OPENERS + 2
        )
        self._api = async_engine(
            given["database_url"], application="bench-writer", role="runwire_api", pool_size=OPENERS
        )
        self._redis = wakeups.connect(given["redis_url"])
        self._tenant = given["tenant"]
        self._recorder = Recorder(
            self._engine, self._redis, lease_s=LEASE_S, heartbeat_s=LEASE_S / 3, clock_us=clock_us
        )
        self._work = asyncio.create_task(self._recorder.run())
        self._runs: dict[str, RunWriter] = {}
        self._said: dict[str, int] = {}

    async def open(self, runs: int) -> list[str]:
        """New runs, each with its first two events; what was opened before is no longer written to."""
        for writer in self._runs.values():
            self._recorder.close(writer)
        gate = asyncio.Semaphore(OPENERS)
        self._runs = dict(await asyncio.gather(*(self._open(gate) for _ in range(runs))))
        self._said = dict.fromkeys(self._runs, 0)
        return [*self._runs]

    async def store(self, events: int, text_bytes: int = PIECE_BYTES) -> dict[str, int]:
        """So many events more in every run, none joined with another; the last seq of each."""
        return dict(zip(self._runs, await asyncio.gather(
            *(self._store(run, events, text_bytes) for run in self._runs)
        ), strict=True))  # fmt: skip

    async def pace(self, rate: float, seconds: float, *, apart: bool = False) -> dict[str, Any]:
        """So many pieces a second in every run, each due at its own moment, the runs' beats spread evenly.

        Pieces that wait for the same commit are joined, as those of a model are, or kept `apart`.
        """
        loop, writers = asyncio.get_running_loop(), [*self._runs.values()]
        beat, beats = 1 / (rate * len(writers)), round(rate * seconds) * len(writers)
        began, wall, number, late = loop.time(), time.time(), 0, 0.0
        while number < beats:
            due = began + number * beat
            if (wait := due - loop.time()) > 0:
                await asyncio.sleep(wait)
            else:
                late = max(late, -wait)
                if number % len(writers) == 0:
                    await asyncio.sleep(0)  # never so late that the recorder has no turn
            said = piece(number // len(writers))
            if apart:
                writers[number % len(writers)].push(token(said))
            else:
                await writers[number % len(writers)].push_piece(("token",), said, token)
            number += 1
        for run in self._said:
            self._said[run] += beats // len(writers)
        await asyncio.gather(*(writer.flush() for writer in writers))
        return {"began": wall, "beat": beat, "late_s": late, "flushed": time.time()}

    async def end(self) -> dict[str, int]:
        """The last event of every run; its seq."""
        return await self._each(result)

    async def mark(self) -> dict[str, int]:
        """One event more in every run; its seq."""
        return await self._each(lambda: token("mark "))

    async def close(self) -> None:
        self._work.cancel()
        await asyncio.wait([self._work])
        await self._redis.aclose()
        await self._engine.dispose()
        await self._api.dispose()

    async def _open(self, gate: asyncio.Semaphore) -> tuple[str, RunWriter]:
        async with gate:
            asked = submission(UUID(self._tenant))
            first = new_event(accepted(workflow=WORKFLOW), clock_us())
            async with self._api.begin() as connection:
                opened = await catalogue.open_run(connection, replace(asked, workflow=WORKFLOW, accepted=first))
            taken = await claim(self._engine, opened.run_id, LEASE_S)
        assert taken.epoch is not None
        writer = self._recorder.open(opened.run_id, taken.epoch)
        await writer.record(started())
        return str(opened.run_id), writer

    async def _store(self, run: str, events: int, text_bytes: int) -> int:
        writer, first = self._runs[run], self._said[run]
        self._said[run] += events
        last = None
        for number in range(first, first + events):
            last = writer.push(token(piece(number, text_bytes)))
            if number % BURST == BURST - 1:
                await writer.flush()
        assert last is not None
        return (await writer.stored(last)).seq or 0

    async def _each(self, make: Callable[[], Body]) -> dict[str, int]:
        entries = await asyncio.gather(*(writer.record(make()) for writer in self._runs.values()))
        return {run: entry.seq or 0 for run, entry in zip(self._runs, entries, strict=True)}


def orders(given: dict[str, Any]) -> Orders:
    """What this process does when it is told to."""
    writing = Writing(given)
    names = ("open", "store", "pace", "end", "mark", "close")
    return {name: getattr(writing, name) for name in names}


if __name__ == "__main__":
    obey(orders)
