"""What a database administrator can do to the log: the triggers off, the chain computed anew, heads set as wanted."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from tests.sealing import Desk

GUARDED = ("event", "block", "checkpoint", "input")

RECHAIN = """
DO $$
DECLARE
    e record;
    v_run uuid := '{run}';
    v_chain bytea := runwire.genesis(v_run, (SELECT tenant_id FROM runwire.head WHERE run_id = v_run));
    v_seq integer := 0;
    v_at bigint := 0;
BEGIN
    FOR e IN SELECT * FROM runwire.event WHERE run_id = v_run ORDER BY seq LOOP
        v_seq := v_seq + 1;
        v_chain := runwire.link(v_chain, v_seq, 1, e.epoch, e.recorded_us,
                                runwire.listing(e.version, e.type, e.encoding, e.key_id, e.occurred_us, e.body));
        UPDATE runwire.event SET seq = v_seq, chain = v_chain WHERE run_id = v_run AND seq = e.seq;
        v_at := e.recorded_us;
    END LOOP;
    UPDATE runwire.head SET seq = v_seq, chain = v_chain, recorded_us = v_at WHERE run_id = v_run;
END;
$$
"""


BACKED_UP = ("event", "head", "run", "input", "block", "checkpoint", "sealed")


@asynccontextmanager
async def past_the_triggers(d: Desk) -> AsyncIterator[AsyncConnection]:
    """A superuser's transaction in which nothing is append-only; what is done in it stays."""
    async with d.owner.begin() as connection:
        await _switch(connection, "DISABLE")
        yield connection
        await _switch(connection, "ENABLE ALWAYS")


@asynccontextmanager
async def for_a_while(d: Desk) -> AsyncIterator[AsyncConnection]:
    """The same, and at the end nothing has happened."""
    async with d.owner.connect() as connection:
        await _switch(connection, "DISABLE")
        yield connection
        await connection.rollback()


async def _switch(connection: AsyncConnection, how: str) -> None:
    for table in GUARDED:
        for name in ("refuse_change", "refuse_truncate"):
            await connection.execute(text(f"ALTER TABLE runwire.{table} {how} TRIGGER {name}"))


async def rechain(connection: AsyncConnection, run: UUID) -> None:
    """Number the run's events from 1 and make the chain and the head fit them: what a careful forger does."""
    await connection.exec_driver_sql(RECHAIN.format(run=run))


async def backup(d: Desk) -> str:
    """A copy of every table, inside the database; where it lies does not matter."""
    async with d.owner.begin() as connection:
        await connection.exec_driver_sql("CREATE SCHEMA backup")
        for table in BACKED_UP:
            await connection.execute(text(f"CREATE TABLE backup.{table} AS SELECT * FROM runwire.{table}"))
    return "backup"


async def restore(d: Desk, backup: str) -> None:
    async with past_the_triggers(d) as connection:
        for table in BACKED_UP:
            await connection.execute(text(f"DELETE FROM runwire.{table}"))
            await connection.execute(text(f"INSERT INTO runwire.{table} SELECT * FROM {backup}.{table}"))
