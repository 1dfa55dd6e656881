"""What one event takes of the server's write-ahead log and of the disk."""

from typing import Any, Final

import psycopg

from tests.bench.log.appending import PIECE, appender
from tests.bench.log.ground import Ground
from tests.bench.log.report import Report

# (events in a call, calls)
MEASURED: Final = ((50, 1000), (1, 5000))

_HEAP = "SELECT sum(pg_table_size(relid)) FROM pg_partition_tree('runwire.event') WHERE isleaf"
_INDEX = "SELECT sum(pg_indexes_size(relid)) FROM pg_partition_tree('runwire.event') WHERE isleaf"
_WAL = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')"


def _now(connection: psycopg.Connection) -> tuple[int, int, int]:
    heap, index, wal = (_one(connection.execute(query)) for query in (_HEAP, _INDEX, _WAL))
    return heap, index, wal


def _one(cursor: psycopg.Cursor[Any]) -> int:
    row = cursor.fetchone()
    assert row is not None
    return int(row[0])


async def sizes(report: Report, ground: Ground, measured: tuple[tuple[int, int], ...] = MEASURED) -> None:
    report.add("the body of an event", len(PIECE.body), "bytes")
    for events, calls in measured:
        url = ground.log()
        async with appender(url) as writer:
            await writer.open(1)
            await writer.calls(events, number=10)  # the pages' first touch is behind
            with ground.connect(url) as connection:
                before = _now(connection)
                tally = await writer.calls(events, number=calls)
                heap, index, wal = (b - a for a, b in zip(before, _now(connection), strict=True))
        batch = f"batch of {events}"
        report.add(f"write-ahead log per event, {batch}", wal / tally.events, "bytes", events=tally.events)
        report.add(f"table per event, {batch}", heap / tally.events, "bytes")
        report.add(f"index per event, {batch}", index / tally.events, "bytes")
