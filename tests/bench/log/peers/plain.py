"""The floor and the ceiling: a plain table of the same columns, one row per commit, or COPY of whole groups.

No fence, no batch number, no chain, no life cycle: what is left is what the server itself can store.
"""

import struct
import time
import uuid
from typing import Any

import psycopg

from tests.bench.log.appending import PIECE
from tests.bench.log.child import serve
from tests.bench.log.ground import libpq
from tests.bench.log.report import Tally

COLUMNS = "run_id, seq, epoch, version, encoding, type, occurred_us, recorded_us, key_id, chain, body"
COPY = f"COPY plain ({COLUMNS}) FROM STDIN (FORMAT BINARY)"
INSERT = f"INSERT INTO plain ({COLUMNS}) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
CHAIN = bytes(32)
_OPENING = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_ROW = struct.Struct(f">hi16siiiiihih i{len(PIECE.type)}s iqiq i i32s i{len(PIECE.body)}s".replace(" ", ""))


def packed(run_id: bytes, seq: int) -> bytes:
    """One row as COPY takes it: before each value its length, -1 for none."""
    return _ROW.pack(
        11, 16, run_id, 4, seq, 4, 1, 2, PIECE.version, 2, 0, len(PIECE.type), PIECE.type.encode(),
        8, PIECE.occurred_us, 8, PIECE.occurred_us, -1, 32, CHAIN, len(PIECE.body), PIECE.body,
    )  # fmt: skip


class Plain:
    """Stores the same rows without any of the log's promises but durability."""

    def __init__(self, database_url: str) -> None:
        self._connection = psycopg.connect(libpq(database_url), autocommit=True)
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS plain (LIKE runwire.event INCLUDING DEFAULTS INCLUDING INDEXES)"
        )
        self._runs: list[uuid.UUID] = []
        self._events = 0
        self._way = ""
        self._seq = 0

    def prepare(self, how: dict[str, Any]) -> None:
        self._way, self._events, self._seq = how["way"], how["events"], 0
        self._runs = [uuid.uuid4() for _ in range(how["runs"])]

    def go(self, seconds: float) -> Tally:
        store = {"row": self._row, "copy": self._copy}[self._way]
        stored, took = 0, list[float]()
        spent = 0.0
        while spent < seconds:
            count, call = store()
            stored += count
            took.append(call)
            spent += call
        return Tally(stored, spent, tuple(took))

    def close(self) -> None:
        self._connection.close()

    def _row(self) -> tuple[int, float]:
        self._seq += 1
        at = PIECE.occurred_us
        row = (self._runs[0], self._seq, 1, PIECE.version, 0, PIECE.type, at, at, None, CHAIN, PIECE.body)
        began = time.perf_counter()
        self._connection.execute(INSERT, row, prepare=True)
        return 1, time.perf_counter() - began

    def _copy(self) -> tuple[int, float]:
        seqs = range(self._seq + 1, self._seq + 1 + self._events)
        self._seq += self._events
        block = _OPENING + b"".join(packed(run.bytes, seq) for run in self._runs for seq in seqs) + b"\xff\xff"
        began = time.perf_counter()
        with self._connection.cursor() as cursor, cursor.copy(COPY) as copy:
            copy.write(block)
        return len(self._runs) * self._events, time.perf_counter() - began


if __name__ == "__main__":
    serve(Plain)
