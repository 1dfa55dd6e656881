"""DBOS streams: workflows that write to a stream of their own, several at once."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final
from uuid import uuid4

from dbos import DBOS

from tests.bench.log.appending import PIECE
from tests.bench.log.child import serve
from tests.bench.log.ground import libpq
from tests.bench.log.report import Tally

VALUE: Final = PIECE.body.decode()
KEY: Final = "events"
POOL: Final = 50


class Clock:
    """When the workflows of one measurement are to stop, and when they wrote."""

    ends = 0.0


def _write() -> tuple[int, float, float]:
    """Writes until the time is up: how many, the first write's beginning, the last one's end."""
    count, began = 0, time.perf_counter()
    while time.perf_counter() < Clock.ends:
        DBOS.write_stream(KEY, VALUE)
        count += 1
    return count, began, time.perf_counter()


_write_in_step = DBOS.step(name="write_in_step")(_write)


def _from_workflow() -> list[float]:
    return list(_write())


def _from_step() -> list[float]:
    return list(_write_in_step())


WAYS: Final = {
    "workflow": DBOS.workflow(name="from_workflow")(_from_workflow),
    "step": DBOS.workflow(name="from_step")(_from_step),
}


class Streams:
    """So many workflows at once, each writing one value after the other."""

    def __init__(self, database_url: str) -> None:
        url = libpq(database_url)
        DBOS(
            config={
                "name": "bench",
                "system_database_url": url,
                "sys_db_pool_size": POOL,
                "executor_id": uuid4().hex,
                "console_log_level": "ERROR",
                "log_level": "ERROR",
            }
        )
        DBOS.launch()
        self._workflows = 1
        self._way = "workflow"

    def prepare(self, how: dict[str, Any]) -> None:
        self._workflows, self._way = how["workflows"], how["way"]

    def go(self, seconds: float) -> Tally:
        with ThreadPoolExecutor(self._workflows) as starters:
            # The clock is of the writes: what it takes to start and to end a workflow is not held against the streams.
            Clock.ends = time.perf_counter() + seconds
            handles = list(starters.map(lambda _: DBOS.start_workflow(WAYS[self._way]), range(self._workflows)))
            told = [handle.get_result() for handle in handles]
        events = sum(int(count) for count, _, _ in told)
        return Tally(events, max(end for _, _, end in told) - min(began for _, began, _ in told))

    def close(self) -> None:
        DBOS.destroy()


if __name__ == "__main__":
    serve(Streams)
