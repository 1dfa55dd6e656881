"""The `eventsourcing` library's PostgreSQL recorders, each given its events in batches for a hundred aggregates."""

import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any, Final

from eventsourcing.dcb.api import DCBEvent
from eventsourcing.dcb.postgres_tt import PostgresDCBRecorderTT
from eventsourcing.persistence import StoredEvent
from eventsourcing.postgres import PostgresAggregateRecorder, PostgresApplicationRecorder, PostgresDatastore
from sqlalchemy.engine import make_url

from tests.bench.log.appending import PIECE
from tests.bench.log.child import serve
from tests.bench.log.report import Tally

AGGREGATES: Final = 100


class Recorders:
    """One of the library's ways to append many events at once."""

    def __init__(self, database_url: str) -> None:
        url = make_url(database_url)
        self._place = {
            "dbname": url.database or "",
            "host": str(url.query.get("host") or url.host),
            "port": url.port or 5432,
            "user": url.username or "",
            "password": url.password or "",
        }
        self._datastore: PostgresDatastore | None = None
        self._store: Callable[[Sequence[Any]], object] = len
        self._make: Callable[[uuid.UUID, int], Any] = _stored
        self._batch = 0
        self._aggregates: list[uuid.UUID] = []
        self._versions: list[int] = []

    def prepare(self, how: dict[str, Any]) -> None:
        self.close()
        way = how["way"]
        self._datastore = PostgresDatastore(**self._place, enable_db_functions=way == "application with functions")
        self._make = _stored
        if way == "dcb without condition":
            dcb = PostgresDCBRecorderTT(self._datastore)
            dcb.create_table()
            self._store, self._make = dcb.append, _dcb
        elif way == "aggregate":
            aggregates = PostgresAggregateRecorder(self._datastore, events_table_name="aggregate_events")
            aggregates.create_table()
            self._store = aggregates.insert_events
        else:
            application = PostgresApplicationRecorder(self._datastore)
            application.create_table()
            self._store = application.insert_events
        self._batch = how["batch"]
        self._aggregates = [uuid.uuid4() for _ in range(AGGREGATES)]
        self._versions = [0] * AGGREGATES

    def go(self, seconds: float) -> Tally:
        took: list[float] = []
        spent, turn = 0.0, 0
        while spent < seconds:
            events, turn = self._events(turn)
            began = time.perf_counter()
            self._store(events)
            took.append(time.perf_counter() - began)
            spent += took[-1]
        return Tally(len(took) * self._batch, spent, tuple(took))

    def close(self) -> None:
        if self._datastore is not None:
            self._datastore.close()

    def _events(self, turn: int) -> tuple[list[Any], int]:
        """The next batch: some events in a row for one aggregate, then for the next. Made off the clock."""
        made: list[Any] = []
        for place in range(self._batch):
            chosen = (turn + place * AGGREGATES // max(self._batch, AGGREGATES)) % AGGREGATES
            self._versions[chosen] += 1
            made.append(self._make(self._aggregates[chosen], self._versions[chosen]))
        return made, (turn + min(self._batch, AGGREGATES)) % AGGREGATES


def _stored(aggregate: uuid.UUID, number: int) -> StoredEvent:
    return StoredEvent(originator_id=aggregate, originator_version=number, topic=PIECE.type, state=PIECE.body)


def _dcb(aggregate: uuid.UUID, number: int) -> DCBEvent:
    return DCBEvent(type=PIECE.type, data=PIECE.body, tags=[f"run:{aggregate}"])


if __name__ == "__main__":
    serve(Recorders)
