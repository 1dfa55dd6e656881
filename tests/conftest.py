"""Real servers for all tests: one PostgreSQL, one Valkey, a fresh database wherever one is asked for."""

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path

import pytest
import pytest_asyncio
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from eventstore import wakeups
from eventstore.database import async_engine, sync_engine
from migrations import schema
from ops.services import Endpoints, external_or_embedded
from tests.programs import PROGRAMS

_numbers = count()
_left_out: list[tuple[str, str]] = []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out, by name, the tests whose program is missing; in CI that is an error."""
    for item in list(items):
        for marker in item.iter_markers("program"):
            [name] = marker.args
            if not PROGRAMS[name].is_here():
                _left_out.append((item.nodeid, name))
                items.remove(item)
                break
    if _left_out and os.environ.get("RUNWIRE_TEST_PROGRAMS") == "required":
        missing = ", ".join(sorted({name for _, name in _left_out}))
        raise pytest.UsageError(f"programs are missing that these tests need: {missing}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name what was left out and how to get it."""
    for nodeid, name in _left_out:
        terminalreporter.write_line(f"LEFT OUT {nodeid}: needs {name}; get it with: {PROGRAMS[name].get}")


@pytest.fixture(scope="session")
def services() -> Iterator[Endpoints]:
    """PostgreSQL and Valkey: embedded, or those that RUNWIRE_DATABASE_URL and RUNWIRE_REDIS_URL name."""
    base = Path(tempfile.mkdtemp(prefix="runwire-tests-"))
    base.chmod(0o755)  # as root the servers run as another user, who must be able to enter
    try:
        with external_or_embedded(base / "data", os.environ) as endpoints:
            yield endpoints
    finally:
        shutil.rmtree(base, ignore_errors=True)


@pytest.fixture(scope="session")
def template(services: Endpoints) -> str:
    """The name of a migrated database that new ones are copied from."""
    name = "runwire_template"
    admin = sync_engine(services.database_url, application="tests").execution_options(isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE IF EXISTS {name}"))
        connection.execute(text(f"CREATE DATABASE {name}"))
    admin.dispose()
    engine = sync_engine(_url(services, name), application="tests")
    schema.upgrade(engine)
    engine.dispose()
    return name


def _url(services: Endpoints, database: str) -> str:
    return make_url(services.database_url).set(database=database).render_as_string(hide_password=False)


def new_database(services: Endpoints, template: str) -> str:
    """A fresh migrated database; answers its URL."""
    name = f"runwire_{next(_numbers)}"
    admin = sync_engine(services.database_url, application="tests").execution_options(isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {template}"))
    admin.dispose()
    return _url(services, name)


@pytest.fixture(scope="module")
def database_url(services: Endpoints, template: str) -> str:
    """A migrated database of this module's own."""
    return new_database(services, template)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def worker_engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    """The database as a worker may use it."""
    engine = async_engine(database_url, application="tests-worker", role="runwire_worker", pool_size=10)
    yield engine
    await engine.dispose()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def api_engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    """The database as the API may use it."""
    engine = async_engine(database_url, application="tests-api", role="runwire_api", pool_size=10)
    yield engine
    await engine.dispose()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def owner_engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    """The database as its superuser sees it."""
    engine = async_engine(database_url, application="tests-owner", role=None, pool_size=3)
    yield engine
    await engine.dispose()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def redis(services: Endpoints) -> AsyncIterator[Redis]:
    """The wake-up channel."""
    client = wakeups.connect(services.redis_url)
    yield client
    await client.aclose()
