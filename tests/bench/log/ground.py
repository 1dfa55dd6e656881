"""The databases that contestants write into: all on one server, each contestant's own and empty at the start."""

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Final

import psycopg
from psycopg import sql
from sqlalchemy.engine import make_url

from eventstore.database import sync_engine
from migrations import schema
from tests.bench.log.child import Child

TEMPLATE: Final = "runwire_bench"

# The append without its evidence is the same function with these statements changed. Each must be there exactly once
# and no hash may be left, or the comparison is with something else than it says. A writer to such a log lists nothing.
Change = tuple[str, str]
_UNHASHED: Final[Change] = (r"c_chain := sha256\(.*?\);", "c_chain := h.chain;")
_UNKEPT: Final[Change] = (r"v_link\[i\] := c_chain;", "")
UNHASHED: Final = (_UNHASHED,)
UNCHAINED: Final = (_UNHASHED, _UNKEPT)


class AppendChanged(Exception):
    """The append function is no longer written as the benchmark knows it."""


def changed(definition: str, changes: Sequence[Change]) -> str:
    """The function's definition with these statements changed."""
    for statement, instead in changes:
        definition, found = re.subn(statement, instead, definition, flags=re.DOTALL)
        if found != 1:
            raise AppendChanged(f"{statement!r} is there {found} times in the append function; look at ground.py")
    code = re.sub(r"--[^\n]*", "", definition)
    if "sha256" in code:
        raise AppendChanged("the append function hashes where the benchmark does not know of it; look at ground.py")
    return definition


@dataclass(slots=True)
class Ground:
    """One server and a folder on the same disk."""

    database_url: str
    folder: Path
    _numbers: "count[int]" = field(default_factory=count)

    def __post_init__(self) -> None:
        self._make(TEMPLATE, None)
        engine = sync_engine(self._url(TEMPLATE), application="bench")
        schema.upgrade(engine)
        engine.dispose()

    def log(self, changes: Sequence[Change] = ()) -> str:
        """A new empty log, as the migrations make it, or with statements of its append changed; answers its URL."""
        url = self.database(TEMPLATE)
        if changes:
            with self.connect(url) as connection:
                row = connection.execute("SELECT pg_get_functiondef('runwire.append'::regproc)").fetchone()
                assert row is not None
                connection.execute(sql.SQL(changed(row[0], changes)))
                connection.execute("ALTER TABLE runwire.event ALTER chain DROP NOT NULL")
        return url

    def database(self, template: str | None = None) -> str:
        """A new database; answers its URL."""
        name = f"runwire_bench_{next(self._numbers)}"
        self._make(name, template)
        return self._url(name)

    def connect(self, url: str | None = None) -> psycopg.Connection:
        return psycopg.connect(libpq(url or self.database_url), autocommit=True)

    def drop(self, url: str) -> None:
        """Give back the disk that a large database takes."""
        with self.connect() as connection:
            name = sql.Identifier(make_url(url).database or "")
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))

    @asynccontextmanager
    async def children(self, module: str, database_url: str, number: int = 1) -> AsyncIterator[list[Child]]:
        """Writers in processes of their own, one database for all of them."""
        started: list[Child] = []
        try:
            for _ in range(number):
                complaints = self.folder / f"contestant-{next(self._numbers)}.log"
                started.append(await Child.start(module, database_url, complaints))
            yield started
        finally:
            for child in started:
                await child.stop()

    def _make(self, name: str, template: str | None) -> None:
        copied = sql.SQL(" TEMPLATE {}").format(sql.Identifier(template)) if template else sql.SQL("")
        with self.connect() as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)) + copied)

    def _url(self, name: str) -> str:
        return make_url(self.database_url).set(database=name).render_as_string(hide_password=False)


def libpq(url: str) -> str:
    """The URL as psycopg itself takes it, without SQLAlchemy's name for the driver."""
    return url.replace("+psycopg", "", 1)
