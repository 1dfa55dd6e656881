"""How a migration waits for its locks: in short tries with pauses, so that appends go on; and who made it wait.

A migration that waits for a lock on the log makes every append wait behind itself, however short the migration is. So
it waits for a moment only, gives up all that it has, and tries again later. Who was in its way is seen from a second
connection while it waits: afterwards the database does not know any more.
"""

import random
import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from psycopg.errors import DeadlockDetected, LockNotAvailable, QueryCanceled
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from migrations.files import SQL

WAIT_S: Final = 60.0  # for all tries together
# Appends stop for as long as one try waits. Half a second is hardly noticed, and less than the second after which the
# database looks for deadlocks: of a migration and an append that want each other's locks, the migration yields.
LOCK_TIMEOUT_MS: Final = 500
# A migration works on the log's shape, not on its rows. A statement that takes longer would keep appends waiting longer
# than their own time-out.
STATEMENT_TIMEOUT_MS: Final = 5_000
PAUSE_S: Final = (1.0, 3.0)  # between tries; at random, so that two migrators, or a job by the clock, do not keep step
LOOK_S: Final = 0.05
HOLDERS_TOLD: Final = 3


@dataclass(frozen=True, slots=True)
class Holder:
    """A session that holds, or waits ahead of us for, what the migration must lock."""

    pid: int
    user: str | None
    application: str | None
    state: str | None
    age_s: float | None

    def __str__(self) -> str:
        if self.pid == 0:
            return "a prepared transaction"
        told = [f"user {self.user}" if self.user else "", self.application or "", self.state or ""]
        told.append("" if self.age_s is None else f"in a transaction for {self.age_s:.0f} s")
        return f"process {self.pid} ({', '.join(part for part in told if part) or 'unknown'})"

    @property
    def lasting(self) -> bool:
        """Whether it was there before this try: not an append in passing. Who may not be looked into counts."""
        return self.age_s is None or self.age_s * 1000 >= LOCK_TIMEOUT_MS


class Patience:
    """How long is left for all tries, and the pause before the next one."""

    def __init__(self, wait_s: float) -> None:
        self._end = time.monotonic() + wait_s

    @property
    def left_ms(self) -> int:
        """Never nothing, which would mean for ever."""
        return max(1, int((self._end - time.monotonic()) * 1000))

    def pause(self) -> bool:
        """Wait for the next try; False when there is no time for one."""
        pause_s = random.uniform(*PAUSE_S)  # noqa: S311 (a pause, not a secret)
        if time.monotonic() + pause_s >= self._end:
            return False
        time.sleep(pause_s)
        return True


class Watch:
    """Looks, for the length of a block, at who stands in the way of one process."""

    def __init__(self, engine: Engine, pid: int) -> None:
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.seen: list[Holder] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        statement = (SQL / "holders.sql").read_text()
        try:
            with self._engine.connect() as connection:
                while not self._over.wait(LOOK_S):
                    found = [Holder(*row) for row in connection.exec_driver_sql(statement, {"pid": self._pid})]
                    self.seen = [holder for holder in found if holder.lasting] or found or self.seen
        except SQLAlchemyError:
            return  # no second connection: the migration works all the same, and nobody can be named


def waited_in_vain(fault: OperationalError) -> bool:
    """Whether the database says that somebody else held what the migration wanted."""
    return isinstance(fault.orig, LockNotAvailable | DeadlockDetected)


def took_too_long(fault: OperationalError) -> bool:
    """Whether a statement of the migration itself was given up."""
    return isinstance(fault.orig, QueryCanceled)


def told(holders: list[Holder]) -> str:
    """Who was in the way, for the operator."""
    names = [str(holder) for holder in holders[:HOLDERS_TOLD]]
    more = len(holders) - len(names)
    who = " and ".join(names) + (f" and {more} more" if more else "")
    return f"{who} {'hold' if len(holders) > 1 else 'holds'}" if holders else "somebody held"
