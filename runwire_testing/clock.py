"""The clock of the kit's own database, which a test may set forward: what waits is decided by that clock and no other.

The functions of the log ask `clock_timestamp()` by its bare name. Those of this database look for it in a schema of the
kit first, which adds what the test has asked for; nothing that was stored is changed.
"""

from typing import Final
from uuid import UUID

import uuid_utils.compat
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from eventstore import log

_SET_UP: Final = (
    "CREATE SCHEMA IF NOT EXISTS kit",
    "CREATE TABLE IF NOT EXISTS kit.clock (ahead interval NOT NULL)",
    "INSERT INTO kit.clock SELECT '0' WHERE NOT EXISTS (SELECT FROM kit.clock)",
    """CREATE OR REPLACE FUNCTION kit.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE SECURITY DEFINER
       AS 'SELECT pg_catalog.clock_timestamp() + ahead FROM kit.clock'""",
    "GRANT USAGE ON SCHEMA kit TO PUBLIC",
    """DO $$
       DECLARE
           one record;
       BEGIN
           FOR one IN SELECT p.oid::regprocedure AS name FROM pg_proc p
                      WHERE p.pronamespace = 'runwire'::regnamespace AND strpos(p.prosrc, 'clock_timestamp()') > 0 LOOP
               EXECUTE 'ALTER FUNCTION ' || one.name || ' SET search_path = kit, pg_catalog, pg_temp';
           END LOOP;
       END;
       $$""",
)


class Clock:
    """Time moves by order, and only forward until the test is over."""

    def __init__(self, owner: AsyncEngine) -> None:
        self._owner = owner
        self._ahead_s = 0.0
        self._is_set_up = False

    async def forward(self, *, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0) -> None:
        """Let so much time pass at once, for sleeps, questions, leases and the runs' own limits alike."""
        passed_s = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
        assert passed_s > 0, "time moves forward only"
        await self._set(self._ahead_s + passed_s)

    async def to(self, due_us: int) -> None:
        """Let it be this time, if it is earlier."""
        async with self._owner.connect() as connection:
            now_us = (await connection.execute(text("SELECT runwire.clock_us()"))).scalar_one()
        if due_us > now_us:
            await self.forward(seconds=(due_us - now_us) / 1e6)

    async def back(self) -> None:
        """The test is over."""
        if self._ahead_s:
            await self._set(0.0)

    def run_id(self) -> UUID:
        """A name for a run that is accepted now: the log takes none of another hour."""
        own = uuid_utils.compat.uuid7().int  # its first 48 bits are milliseconds
        return UUID(int=own + (round(self._ahead_s * 1_000) << 80))

    async def _set(self, ahead_s: float) -> None:
        async with self._owner.begin() as connection:
            if not self._is_set_up:
                for statement in _SET_UP:
                    await connection.exec_driver_sql(statement)
            self._is_set_up = True
            await connection.execute(text("UPDATE kit.clock SET ahead = make_interval(secs => :s)"), {"s": ahead_s})
            await log.ensure_partitions(connection)
        self._ahead_s = ahead_s
