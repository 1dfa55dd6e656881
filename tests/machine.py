"""What the tests of real server processes share: an open folder, a word with the database, the end of a process."""

import os
import select
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import redis

from ops.services import Endpoints


@contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that every user of the machine may enter; pytest's own are closed."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name).resolve()
        folder.chmod(0o755)
        yield folder


def connect(endpoints: Endpoints) -> psycopg.Connection:
    return psycopg.connect(endpoints.database_url.replace("+psycopg", ""), autocommit=True)


def answer(endpoints: Endpoints, query: bytes) -> object:
    with connect(endpoints) as connection:
        row = connection.execute(query).fetchone()
        return None if row is None else row[0]


def ends(pid: int, within_s: float = 10) -> bool:
    """Whether a process, of whomever, ends in time."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], within_s)[0])
    finally:
        os.close(handle)


def soon(what: Callable[[], bool], within_s: float = 10) -> None:
    pause = threading.Event()
    deadline = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < deadline, "it did not happen in time"
        pause.wait(0.01)


def remember(endpoints: Endpoints, word: str) -> None:
    with connect(endpoints) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS said (word text)")
        connection.execute("INSERT INTO said VALUES (%s)", (word,))
    with redis.Redis.from_url(endpoints.redis_url) as client:
        client.set(f"said:{word}", "yes")


def remembered(endpoints: Endpoints, word: str) -> tuple[bool, bool]:
    with connect(endpoints) as connection:
        row = connection.execute("SELECT 1 FROM said WHERE word = %s", (word,)).fetchone()
    with redis.Redis.from_url(endpoints.redis_url) as client:
        return row is not None, client.exists(f"said:{word}") == 1
