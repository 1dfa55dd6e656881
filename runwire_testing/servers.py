"""PostgreSQL and Valkey for one session of tests: embedded, migrated, thrown away. Never the servers of a user."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eventstore.database import sync_engine
from migrations import schema
from ops.services import Endpoints, Services


@contextmanager
def servers_of_our_own() -> Iterator[Endpoints]:
    """Both servers with an empty log, for the length of a block."""
    base = Path(tempfile.mkdtemp(prefix="runwire-author-"))
    base.chmod(0o755)  # as root the servers run as another user, who must be able to enter
    try:
        with Services(base / "data") as services:
            engine = sync_engine(services.endpoints.database_url, application="author-tests")
            try:
                schema.upgrade(engine)
            finally:
                engine.dispose()
            yield services.endpoints
    finally:
        shutil.rmtree(base, ignore_errors=True)
