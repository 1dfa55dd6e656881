"""Runs the SQL files of a version."""

from pathlib import Path

from alembic import op

SQL = Path(__file__).parent / "sql"


def run(*names: str) -> None:
    """Execute whole files, in this order, as they stand: no parameters, no templates."""
    connection = op.get_bind()
    for name in names:
        connection.exec_driver_sql((SQL / name).read_text(), execution_options={"no_parameters": True})
