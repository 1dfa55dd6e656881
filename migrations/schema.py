"""Brings a database to the newest version, and says which version it is at."""

import os
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError

from eventstore.database import version_number
from migrations.waiting import (
    STATEMENT_TIMEOUT_MS,
    WAIT_S,
    Holder,
    Patience,
    Watch,
    told,
    took_too_long,
    waited_in_vain,
)

HERE: Final = Path(__file__).parent
VERSIONS: tuple[Path, ...] = (HERE / "versions",)


class SchemaError(Exception):
    """The database cannot be brought to this release's version; `hint` says what to do about it."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(HERE))
    config.set_main_option("version_locations", os.pathsep.join(map(str, VERSIONS)))
    config.set_main_option("path_separator", "os")
    return config


def newest() -> str:
    """The version that this release needs."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None
    return head


def current(connection: Connection) -> str | None:
    """The version that this database is at; None for an empty one."""
    return MigrationContext.configure(connection).get_current_revision()


def upgrade(engine: Engine, *, to: str | None = None, wait_s: float = WAIT_S) -> tuple[str | None, str]:
    """Migrate to the newest version, or to an older one; returns (before, after). All of it happens or nothing. A
    database from a later release is left alone, and so is one that somebody keeps locked for longer than `wait_s`."""
    target, patience = to or newest(), Patience(wait_s)
    with engine.begin() as connection:
        before = _known(connection)
    while before != target:
        holders: list[Holder] = []
        try:
            _try(engine, target, patience, holders)
        except OperationalError as fault:
            if took_too_long(fault):
                raise SchemaError(
                    f"The database is as it was: a statement took longer than {STATEMENT_TIMEOUT_MS / 1000:g} s, and "
                    "appends may have waited for it.",
                    "migrate again when less goes on",
                ) from fault
            if not waited_in_vain(fault):
                raise
            if not patience.pause():
                raise _locked(wait_s, holders) from fault
        else:
            break
    return before, target


def _try(engine: Engine, target: str, patience: Patience, holders: list[Holder]) -> None:
    """One transaction; who kept it waiting is noted in `holders`."""
    config = _config()
    with engine.begin() as connection:
        _known(connection)  # another migrator may have been here meanwhile, of another release
        pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
        config.attributes["connection"] = connection
        config.attributes["wait_ms"] = patience.left_ms
        with Watch(engine, pid) as watch:
            try:
                command.upgrade(config, target)
            finally:
                holders[:] = watch.seen or holders


def _known(connection: Connection) -> str | None:
    version = current(connection)
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if version is None or version in known:
        return version
    number, ours = version_number(version), version_number(newest())
    said = f"The database is at version {version}, which this release ({newest()}) does not know."
    if number is not None and ours is not None and number > ours:
        raise SchemaError(said, "use a newer release, or another database")
    raise SchemaError(
        f"{said} A state before the first release made it.",
        "start with an empty data folder or database, or use the checkout that made it",
    )


def _locked(wait_s: float, holders: list[Holder]) -> SchemaError:
    pids = [holder.pid for holder in holders if holder.pid]
    end = f", or end it with SELECT pg_terminate_backend({pids[0]})" if pids else ""
    return SchemaError(
        f"The database is as it was: in {wait_s:g} s {told(holders)} what the migration must lock.",
        f"let it end{end}, then migrate again",
    )
