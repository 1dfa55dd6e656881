"""The seal on the oldest PostgreSQL that Runwire runs on: its tests once more, each on a database of its own."""

import pytest

from eventstore.database import sync_engine
from migrations import schema
from ops.services import Endpoints
from tests.conftest import new_database
from tests.integration import test_incarnation, test_seal, test_seal_backlog
from tests.integration.test_postgres15 import all_tests_of, postgres15

pytestmark = pytest.mark.program("postgresql-15")

__all__ = ["d", "postgres15"]


@pytest.fixture(scope="module")
def template15(postgres15: str) -> str:
    """The name of a migrated database that new ones are copied from."""
    admin = sync_engine(postgres15, application="tests").execution_options(isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.exec_driver_sql("CREATE DATABASE runwire_template")
    admin.dispose()
    engine = sync_engine(postgres15.replace("/postgres?", "/runwire_template?"), application="tests")
    schema.upgrade(engine)
    engine.dispose()
    return "runwire_template"


@pytest.fixture
def database_url(postgres15: str, template15: str) -> str:
    """Takes the place of the database that these tests use."""
    return new_database(Endpoints(postgres15, ""), template15)


# Their desk comes along; the database under it is the one above.
d = test_seal.d
globals().update(all_tests_of(test_seal, test_incarnation, test_seal_backlog))
