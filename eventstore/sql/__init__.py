"""The statements that the application runs, each in a file of its own, said by name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

STATEMENTS: Final[dict[str, str]] = {path.stem: path.read_text() for path in Path(__file__).parent.glob("*.sql")}


async def rows(connection: AsyncConnection, name: str, parameters: Mapping[str, Any] | None = None) -> list[Any]:
    """Say one named statement and take all that it answers."""
    result = await connection.exec_driver_sql(STATEMENTS[name], dict(parameters or {}))
    return list(result) if result.returns_rows else []
