"""The oldest PostgreSQL that Runwire runs on: its migrations, the append protocol and the refusals, once more."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import psycopg
import pytest

from eventstore.database import sync_engine
from migrations import schema
from ops.places import open_own_folder, service_user
from ops.servers import Server, run_once
from tests.integration import test_append_only, test_log

pytestmark = pytest.mark.program("postgresql-15")

PROGRAMS = "initdb", "postgres"


def programs() -> Path | None:
    """The folder of a PostgreSQL 15, from the packages' usual places or the search path."""
    folders = [*Path("/usr/lib/postgresql").glob("15*/bin"), *Path("/usr").glob("pgsql-15/bin")]
    folders += [Path(folder) for folder in os.get_exec_path()]
    for folder in folders:
        if all(os.access(folder / program, os.X_OK) for program in PROGRAMS):
            printed = run_once([str(folder / "postgres"), "--version"], service_user(), Path("/"))
            if " 15." in printed:
                return folder
    return None


@pytest.fixture(scope="module")
def postgres15() -> Iterator[str]:
    """A PostgreSQL 15 of this module's own; answers its URL."""
    found = programs()
    assert found is not None, "no PostgreSQL 15 here: install postgresql-15"
    base = Path(tempfile.mkdtemp(prefix="runwire-pg15-", dir="/tmp"))
    base.chmod(0o755)  # as root the server runs as another user, who must be able to enter
    user = service_user()
    data, sockets = base / "pg", base / "run"
    for folder in (data, sockets):
        open_own_folder(folder, user)
    run_once([str(found / "initdb"), "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "-N"], user, base)
    settings = (
        "listen_addresses=",
        f"unix_socket_directories={sockets}",
        "fsync=off",
        "jit=off",
        "shared_buffers=32MB",
    )
    server = Server(
        "postgres15",
        [str(found / "postgres"), "-D", str(data), *(word for setting in settings for word in ("-c", setting))],
        base / "postgres.log",
        user,
        death_signal=signal.SIGQUIT,
        stops=((signal.SIGINT, 20.0), (signal.SIGQUIT, 5.0)),
        answers=lambda: _answers(sockets),
    )
    try:
        server.start()
        server.wait_until_it_answers()
        yield f"postgresql+psycopg://postgres@/postgres?host={sockets}"
    finally:
        server.stop()
        shutil.rmtree(base, ignore_errors=True)


def _answers(sockets: Path) -> bool:
    with suppress(psycopg.OperationalError):
        psycopg.connect(host=str(sockets), user="postgres", dbname="postgres").close()
        return True
    return False


@pytest.fixture(scope="module")
def database_url(postgres15: str) -> str:
    """Takes the place of the database that all other tests use."""
    engine = sync_engine(postgres15, application="tests")
    assert schema.upgrade(engine) == (None, schema.newest())
    assert schema.upgrade(engine) == (schema.newest(), schema.newest())
    engine.dispose()
    return postgres15


def all_tests_of(*modules: ModuleType) -> Iterator[tuple[str, Any]]:
    """The tests of these modules by name, for another server."""
    for module in modules:
        for name, thing in vars(module).items():
            if name.startswith("test_") and callable(thing):
                yield name, thing


# Their own fixtures come along; `database_url` is the one above.
tenant, run_id = test_log.tenant, test_append_only.run_id
globals().update(all_tests_of(test_log, test_append_only))


def test_this_really_is_postgresql_15(database_url: str) -> None:
    engine = sync_engine(database_url, application="tests")
    with engine.connect() as connection:
        assert connection.dialect.server_version_info is not None
        assert connection.dialect.server_version_info[0] == 15
    engine.dispose()
