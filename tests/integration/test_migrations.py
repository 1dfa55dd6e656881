"""A database is brought to the newest version from anywhere, by anyone who may, and never twice."""

import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import psycopg
import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from psycopg import sql
from sqlalchemy import Engine, text
from sqlalchemy.engine import make_url

import migrations
from eventstore.database import SCHEMA_VERSION, sync_engine, version_number
from migrations import schema
from migrations.schema import SchemaError
from ops.exits import Complaint
from ops.services import Endpoints
from ops.up import migrate

_numbers = count()
MIGRATION_LOCK = 0x52554E57
MIGRATOR = """
import sys
from eventstore.database import SCHEMA_VERSION, sync_engine, version_number
from migrations import schema
print(*schema.upgrade(sync_engine(sys.argv[1], application="tests")))
"""
ROLES = ("runwire_owner", "runwire_worker", "runwire_api", "runwire_sealer")


def admin(services: Endpoints) -> psycopg.Connection:
    url = make_url(services.database_url).set(drivername="postgresql").render_as_string(hide_password=False)
    return psycopg.connect(url, autocommit=True)


@pytest.fixture
def empty(services: Endpoints) -> Iterator[Engine]:
    """A database with nothing in it."""
    name = f"runwire_empty_{next(_numbers)}"
    with admin(services) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    url = make_url(services.database_url).set(database=name)
    engine = sync_engine(url.render_as_string(hide_password=False), application="tests")
    yield engine
    engine.dispose()
    with admin(services) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def shape(engine: Engine) -> list[tuple[object, ...]]:
    """Everything that the migrations make, as the database describes it: tables, functions, triggers, rights."""
    statement = """
        SELECT 'column', table_name, column_name, data_type, is_nullable, column_default
        FROM information_schema.columns WHERE table_schema = 'runwire'
        UNION ALL SELECT 'function', proname, pg_get_functiondef(oid), proowner::regrole::text, proacl::text, NULL
        FROM pg_proc WHERE pronamespace = 'runwire'::regnamespace
        UNION ALL SELECT 'table', relname, relkind::text, relowner::regrole::text, relacl::text, reloptions::text
        FROM pg_class WHERE relnamespace = 'runwire'::regnamespace
        UNION ALL SELECT 'trigger', tgrelid::regclass::text, tgname, tgenabled::text, NULL, NULL FROM pg_trigger
        WHERE NOT tgisinternal
        UNION ALL SELECT 'transition', status, type, next, writer, NULL FROM runwire.transition
        ORDER BY 1, 2, 3, 4, 5, 6"""
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(statement))]


def downgrade(engine: Engine) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    config.set_main_option("path_separator", "os")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        config.attributes["wait_ms"] = 60_000
        command.downgrade(config, "base")


def test_an_empty_database_comes_to_the_newest_version_and_twice_is_once(empty: Engine) -> None:
    assert schema.upgrade(empty) == (None, schema.newest())
    before = shape(empty)
    assert len(before) > 100
    assert schema.upgrade(empty) == (schema.newest(), schema.newest())
    assert shape(empty) == before
    with empty.connect() as connection:
        assert schema.current(connection) == schema.newest()


def test_the_statements_need_the_version_that_the_migrations_end_at() -> None:
    assert schema.newest() == SCHEMA_VERSION


def test_down_to_nothing_and_up_again_is_the_same_database(empty: Engine) -> None:
    schema.upgrade(empty)
    before = shape(empty)
    downgrade(empty)
    with empty.connect() as connection:
        assert schema.current(connection) is None
        left = connection.execute(text("SELECT count(*) FROM pg_namespace WHERE nspname = 'runwire'"))
        assert left.scalar_one() == 0
    schema.upgrade(empty)
    assert shape(empty) == before


@pytest.mark.parametrize(
    ("version", "hint"),
    [
        ("coming_99", "use a newer release"),
        ("0002", "start with an empty data folder .* or use the checkout that made it"),  # as of a state before 0.1.0
        ("block_2", "start with an empty data folder"),  # the number of ours under another word
    ],
)
def test_a_database_of_an_unknown_version_is_left_alone_and_the_way_out_is_told(
    empty: Engine, version: str, hint: str
) -> None:
    schema.upgrade(empty)
    before = shape(empty)
    with empty.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :version"), {"version": version})
    with pytest.raises(
        SchemaError, match=f"version {version}, which this release .{schema.newest()}. does not know"
    ) as refused:
        schema.upgrade(empty)
    assert re.match(hint, refused.value.hint)
    assert shape(empty) == before
    with empty.connect() as connection:
        assert schema.current(connection) == version
    with pytest.raises(Complaint) as complaint:
        migrate(empty.url.render_as_string(hide_password=False))
    assert str(complaint.value) == f"{refused.value} ({refused.value.hint})"


def test_versions_are_words_with_numbers_that_count_up() -> None:
    """Processes tell an older database from a later one by the number alone."""
    scripts = ScriptDirectory(str(Path(migrations.__file__).parent)).walk_revisions()
    assert [version_number(script.revision) for script in reversed(list(scripts))] == [
        *range(1, (version_number(SCHEMA_VERSION) or 0) + 1)
    ]


def test_two_migrators_at_once_make_one_database(empty: Engine) -> None:
    url = empty.url.render_as_string(hide_password=False)
    with empty.connect() as gate:  # both are let go at the same moment
        gate.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        argv = [sys.executable, "-W", "error", "-c", MIGRATOR, url]
        both = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        waiting = text(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database = "
            "(SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        while gate.execute(waiting).scalar_one() < 2:
            assert all(process.poll() is None for process in both)
    told = [process.communicate(timeout=60)[0].split() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert told == [["None", schema.newest()]] * 2  # both came to an empty database
    assert schema.upgrade(empty) == (schema.newest(), schema.newest())


def test_a_migration_that_fails_leaves_nothing_behind(empty: Engine) -> None:
    with empty.begin() as connection:
        connection.execute(text("CREATE SCHEMA runwire"))  # in the way of the first version
    with pytest.raises(Exception, match="already exists"):
        schema.upgrade(empty)
    with empty.begin() as connection:
        assert schema.current(connection) is None
        assert connection.execute(text("SELECT to_regclass('runwire.event')")).scalar_one() is None
        connection.execute(text("DROP SCHEMA runwire"))
    assert schema.upgrade(empty) == (None, schema.newest())


def test_the_databases_owner_can_migrate_without_being_a_superuser(empty: Engine, services: Endpoints) -> None:
    """As on rented servers. Whoever makes a role from PostgreSQL 16 on is its member, but may not take it."""
    name, database = f"migrator_{next(_numbers)}", empty.url.database
    assert database is not None
    with admin(services) as connection:
        schema.upgrade(empty)  # makes the server's roles, if this is the first test
        downgrade(empty)
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN CREATEROLE PASSWORD 'migrator'").format(sql.Identifier(name)))
        connection.execute(
            sql.SQL("ALTER DATABASE {} OWNER TO {}").format(sql.Identifier(database), sql.Identifier(name))
        )
        with psycopg.connect(
            empty.url.set(drivername="postgresql").render_as_string(hide_password=False), autocommit=True
        ) as inside:
            inside.execute("DROP TABLE alembic_version")
        newer = connection.info.server_version >= 160000
        option = sql.SQL("WITH ADMIN TRUE, INHERIT FALSE, SET FALSE" if newer else "WITH ADMIN OPTION")
        for role in ROLES:
            connection.execute(sql.SQL("GRANT {} TO {} {}").format(sql.Identifier(role), sql.Identifier(name), option))
    url = empty.url.set(username=name, password="migrator")
    engine = sync_engine(url.render_as_string(hide_password=False), application="tests")
    try:
        assert schema.upgrade(engine) == (None, schema.newest())
        with engine.begin() as connection_:
            connection_.execute(text("SET ROLE runwire_worker"))
            assert connection_.execute(text("SELECT count(*) FROM runwire.event")).scalar_one() == 0
    finally:
        engine.dispose()
        with psycopg.connect(
            empty.url.set(drivername="postgresql").render_as_string(hide_password=False), autocommit=True
        ) as inside:
            inside.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(sql.Identifier(name)))
            inside.execute(sql.SQL("REASSIGN OWNED BY {} TO CURRENT_USER").format(sql.Identifier(name)))
        with admin(services) as connection:
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))
