"""The rows of a whole log as lines of JSON, out of a database and into another one, to the byte."""

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

LEFT_OUT = {"transition", "api_key"}  # what the migration itself fills; what is secret
WEEK = timedelta(weeks=1)


async def dump(connection: AsyncConnection) -> dict[str, str]:
    """Every table that holds something: its name, and a line for each row."""
    found = await connection.execute(
        text(
            "SELECT relname FROM pg_class WHERE relnamespace = 'runwire'::regnamespace AND relkind IN ('r', 'p') "
            "AND NOT relispartition ORDER BY relname"
        )
    )
    tables = {}
    for table in [name for (name,) in found if name not in LEFT_OUT]:
        lines = [
            line
            for (line,) in await connection.execute(text(f"SELECT to_json(t) ::text FROM runwire.{table} t ORDER BY t"))
        ]
        if lines:
            tables[table] = "".join(f"{line}\n" for line in lines)
    return tables


async def load(connection: AsyncConnection, tables: dict[str, str]) -> None:
    """These rows instead of what a new database holds; needs a superuser."""
    await make_room(connection, [UUID(json.loads(line)["run_id"]) for line in rows_of(tables["event"])])
    await connection.execute(text("SET LOCAL session_replication_role = replica"))  # tables come in any order
    for table, lines in tables.items():
        await _empty(connection, table)
        row = f"json_populate_record(CAST(NULL AS runwire.{table}), CAST(:line AS json))"
        put = text(f"INSERT INTO runwire.{table} SELECT * FROM {row}")
        await connection.execute(put, [{"line": line} for line in rows_of(lines)])


def rows_of(lines: str) -> list[str]:
    return lines.removesuffix("\n").split("\n")  # and at nothing else that ends a line somewhere


def read_rows(folder: Path) -> dict[str, str]:
    return {path.stem: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.jsonl"))}


def write_rows(folder: Path, tables: dict[str, str]) -> None:
    folder.mkdir(parents=True)
    for table, lines in tables.items():
        (folder / f"{table}.jsonl").write_text(lines, encoding="utf-8")


async def make_room(connection: AsyncConnection, runs: Iterable[UUID]) -> None:
    """The partitions of these runs' weeks, as the database makes its own; theirs may be long past."""
    await connection.execute(text("SELECT runwire.ensure_partitions()"))
    await connection.execute(text("SET LOCAL ROLE runwire_owner"))
    for week in sorted({_week(run_id) for run_id in runs}):
        table = f"runwire.event_{week:%Y%m%d}"
        there = await connection.execute(text("SELECT to_regclass(:table)"), {"table": table})
        if there.scalar_one() is not None:
            continue
        bounds = {"first": week, "end": week + WEEK}
        asked = await connection.execute(text("SELECT runwire.uuid_floor(:first), runwire.uuid_floor(:end)"), bounds)
        first, end = asked.one()
        await connection.execute(text(f"CREATE TABLE {table} (LIKE runwire.event INCLUDING ALL)"))
        await connection.execute(
            text(f"ALTER TABLE runwire.event ATTACH PARTITION {table} FOR VALUES FROM ('{first}') TO ('{end}')")
        )
        await connection.execute(text(f"SELECT runwire.make_append_only('{table}')"))
    await connection.execute(text("RESET ROLE"))


def _week(run_id: UUID) -> datetime:
    day = datetime.fromtimestamp((run_id.int >> 80) / 1000, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return day - timedelta(days=day.weekday())


async def _empty(connection: AsyncConnection, table: str) -> None:
    """Take out what the migration put there, also where nothing may ever be taken out."""
    held = await connection.execute(text(f"SELECT count(*) FROM runwire.{table}"))
    if held.scalar_one() == 0:
        return
    named = text("SELECT tgname FROM pg_trigger WHERE tgrelid = CAST(:table AS regclass) AND tgenabled = 'A'")
    guards = [name for (name,) in await connection.execute(named, {"table": f"runwire.{table}"})]
    for guard in guards:
        await connection.execute(text(f"ALTER TABLE runwire.{table} DISABLE TRIGGER {guard}"))
    await connection.execute(text(f"DELETE FROM runwire.{table}"))
    for guard in guards:
        await connection.execute(text(f"ALTER TABLE runwire.{table} ENABLE ALWAYS TRIGGER {guard}"))
