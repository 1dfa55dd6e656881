"""The statements that the application runs, each in a file of its own, said by name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import psycopg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

STATEMENTS: Final[dict[str, str]] = {path.stem: path.read_text() for path in Path(__file__).parent.glob("*.sql")}
_CURSOR: Final = "runwire.cursor"


async def rows(connection: AsyncConnection, name: str, parameters: Mapping[str, Any] | None = None) -> list[Any]:
    """Say one named statement and take all that it answers."""
    result = await connection.exec_driver_sql(STATEMENTS[name], dict(parameters or {}))
    return list(result) if result.returns_rows else []


async def hot_rows(connection: AsyncConnection, name: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """The same as plain tuples, for what is said hundreds of times a second: straight to the driver, prepared at once.

    SQLAlchemy's share of a small statement is three times the driver's. Faults come as SQLAlchemy tells them, so a
    caller need not know which way a statement went.
    """
    try:
        cursor = await _cursor(connection)
        await cursor.execute(STATEMENTS[name], parameters, prepare=True)
        return await cursor.fetchall()
    except psycopg.Error as fault:
        raise DBAPIError.instance(
            STATEMENTS[name], None, fault, psycopg.Error, hide_parameters=True, dialect=connection.dialect
        ) from fault


async def _cursor(connection: AsyncConnection) -> psycopg.AsyncCursor[tuple[Any, ...]]:
    """The driver's cursor that belongs to this connection for as long as it lasts."""
    sync = connection.sync_connection
    # The first is without I/O and fast, but only for a connection that is as it should be.
    fairy = sync.connection if sync and not (sync.closed or sync.invalidated) else await connection.get_raw_connection()
    cursor: psycopg.AsyncCursor[tuple[Any, ...]] | None = fairy.info.get(_CURSOR)
    if cursor is None:
        driver = fairy.driver_connection
        assert isinstance(driver, psycopg.AsyncConnection)
        cursor = fairy.info[_CURSOR] = driver.cursor(binary=True)
    if not (cursor.connection.autocommit or connection.in_transaction()):
        # As any other statement does, or SQLAlchemy would not know that there is something to commit.
        await connection.begin()
    return cursor
