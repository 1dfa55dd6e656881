"""The walk over the whole log after a fault run: the tables themselves, as the superuser sees them, run by run.

Reads past the product's own way of reading, which is what the readers' journals are compared for. Streams: what is held
is one run and a number per journal record.
"""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import groupby
from multiprocessing import get_context
from pathlib import Path
from typing import Final
from uuid import UUID

import psycopg

from eventstore.domain.record import Recorded
from tests.faults.journal import Ledger
from tests.faults.judge import LOST, End, Judgement, judge

PAGE_EVENTS: Final = 2_000
ALONE_EVENTS_MAX: Final = 1_000_000  # more are walked by two processes
FIRST, LAST = UUID(int=0), UUID(int=2**128 - 1)

HEADS: Final = "SELECT run_id, tenant_id, seq, chain FROM runwire.head WHERE run_id >= %s AND run_id < %s"
EVENTS: Final = """
    SELECT run_id, seq, epoch, type, version, occurred_us, recorded_us, encoding, key_id, body, chain
    FROM runwire.event WHERE run_id >= %s AND run_id < %s ORDER BY run_id, seq
"""
MIDDLE: Final = "SELECT run_id FROM runwire.head ORDER BY run_id OFFSET (SELECT count(*) / 2 FROM runwire.head) LIMIT 1"


def inspect(database_url: str, journals: Path, readers: int) -> Judgement:
    """Judge every run that is in the log or in a journal."""
    url = database_url.replace("+psycopg", "")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET enable_indexscan = off")  # the walk goes by the index; the table must hold the same
        connection.execute("SET enable_indexonlyscan = off")
        [stored] = connection.execute("SELECT count(*) FROM runwire.event").fetchone() or (0,)
        middle = connection.execute(MIDDLE).fetchone()
    said = Judgement()
    if stored <= ALONE_EVENTS_MAX or middle is None:
        said.take(walk(url, journals, readers, FIRST, LAST))
    else:
        with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
            halves = [(FIRST, middle[0]), (middle[0], LAST)]
            for walked in [pool.submit(walk, url, journals, readers, *half) for half in halves]:
                said.take(walked.result())
    if said.events != stored:
        said.add(LOST, FIRST, 0, f"the table holds {stored} events, its index leads to {said.events}")
    return said


def walk(url: str, journals: Path, readers: int, first: UUID, last: UUID) -> Judgement:
    """Judge the runs from `first` to before `last`."""
    said, ledger = Judgement(), Ledger(journals)
    left = {run_id for run_id in ledger.runs if first <= run_id < last}
    with psycopg.connect(url) as connection:
        ends = {run: End(*end) for run, *end in connection.execute(HEADS, (first, last), binary=True)}
        for run_id, events in groupby(_events(connection, first, last), key=lambda event: event.run_id):
            left.discard(run_id)
            said.take(judge(run_id, ends.pop(run_id, None), events, ledger.of(run_id), readers))
    for run_id in left | set(ends):
        said.take(judge(run_id, ends.get(run_id), (), ledger.of(run_id), readers))
    ledger.close()
    return said


def _events(connection: psycopg.Connection, first: UUID, last: UUID) -> Iterator[Recorded]:
    with connection.cursor("events", binary=True) as cursor:
        cursor.itersize = PAGE_EVENTS
        for row in cursor.execute(EVENTS, (first, last)):
            yield Recorded(*row)
