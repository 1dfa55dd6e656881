"""The two servers that Runwire needs, PostgreSQL and Valkey: embedded, started and stopped here, or the user's own."""

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from ops.places import (
    ServiceError,
    ServiceUser,
    check_disk,
    default_data_dir,
    disk_full,
    lock_data_dir,
    open_data_dir,
    service_user,
    socket_dir,
)
from ops.postgres import DATABASE, SUPERUSER, make_database, postgres_server
from ops.servers import Server
from ops.valkey import valkey_server, valkey_socket

__all__ = ["DISK_FREE_MIN_BYTES", "Endpoints", "ServiceError", "Services", "default_data_dir", "external_or_embedded"]

DISK_FREE_MIN_BYTES = 256 * 2**20


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where the two servers answer."""

    database_url: str
    redis_url: str


class Services:
    """Runs embedded servers in one data folder; a server whose URL is given is not started, but used as it is.

    Servers end with the thread that starts them, so that a kill -9 of it leaves nothing behind: only the main thread
    may call `start` and `tend`.
    """

    def __init__(
        self,
        data: Path,
        *,
        disk_free_min_bytes: int = DISK_FREE_MIN_BYTES,
        database_url: str | None = None,
        redis_url: str | None = None,
    ) -> None:
        self.data = data.resolve()
        self._disk_free_min_bytes = disk_free_min_bytes
        self._database_url = database_url
        self._redis_url = redis_url
        self._servers: list[Server] = []
        self._lock: int | None = None
        self._sockets: Path | None = None
        self._endpoints: Endpoints | None = None

    @classmethod
    def configured(cls, data: Path, environ: Mapping[str, str]) -> Self:
        """Services as RUNWIRE_DATABASE_URL, RUNWIRE_REDIS_URL and RUNWIRE_DISK_FREE_MIN_BYTES say."""
        return cls(
            data,
            disk_free_min_bytes=_disk_free_min_bytes(environ),
            database_url=_with_driver(environ.get("RUNWIRE_DATABASE_URL")),
            redis_url=environ.get("RUNWIRE_REDIS_URL") or None,
        )

    @property
    def endpoints(self) -> Endpoints:
        if self._endpoints is None:
            raise RuntimeError("the services are not running: call start first")
        return self._endpoints

    @property
    def processes(self) -> dict[str, int]:
        """The pids of the running servers by name."""
        return {server.name: server.pid for server in self._servers if server.pid is not None}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def start(self) -> Endpoints:
        """Starts what is to be embedded and returns when it answers. What is wrong comes as a ServiceError."""
        try:
            self._endpoints = self._start()
            return self._endpoints
        except OSError as error:
            self.stop()
            if error.errno == errno.ENOSPC:
                raise disk_full(self.data) from error
            raise ServiceError(f"cannot start the servers in {self.data}: {error}") from error
        except BaseException:
            self.stop()
            raise

    def tend(self) -> list[str]:
        """Starts and names the servers that ended by themselves (killed, out of memory); to be called now and then."""
        died = [server for server in self._servers if server.died]
        for server in died:
            server.stop()
            server.start()
            server.wait_until_it_answers()
        return [server.name for server in died]

    def stop(self) -> None:
        """Stops the servers in order, each within a bounded time, and gives the data folder free."""
        for server in self._servers:
            server.signal_stop()
        for server in reversed(self._servers):
            server.stop()
        self._servers = []
        self._endpoints = None
        if self._sockets is not None:
            with suppress(OSError):  # not empty: a server was killed before it could remove its socket
                self._sockets.rmdir()
            self._sockets = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _start(self) -> Endpoints:
        database_url, redis_url = self._database_url, self._redis_url
        if database_url is None or redis_url is None:
            user = service_user()
            sockets = self._prepare(user)
            if database_url is None:
                self._servers.append(postgres_server(self.data, user, sockets))
            if redis_url is None:
                self._servers.append(valkey_server(self.data, user, sockets))
            for server in self._servers:
                server.start()
            for server in self._servers:
                server.wait_until_it_answers()
            if database_url is None:
                make_database(sockets)
            # Nothing in a socket folder's path needs quoting: see places.socket_dir.
            database_url = database_url or f"postgresql+psycopg://{SUPERUSER}@/{DATABASE}?host={sockets}"
            redis_url = redis_url or f"unix://{valkey_socket(sockets)}?db=0"
        return Endpoints(database_url, redis_url)

    def _prepare(self, user: ServiceUser) -> Path:
        open_data_dir(self.data, user)
        self._lock = lock_data_dir(self.data)
        check_disk(self.data, self._disk_free_min_bytes)
        self._sockets = socket_dir(self.data, user)
        return self._sockets


@contextmanager
def external_or_embedded(data: Path, environ: Mapping[str, str]) -> Iterator[Endpoints]:
    """Where the servers answer that the environment names, and embedded ones for those that it does not name."""
    with Services.configured(data, environ) as services:
        yield services.endpoints


def _disk_free_min_bytes(environ: Mapping[str, str]) -> int:
    given = environ.get("RUNWIRE_DISK_FREE_MIN_BYTES") or str(DISK_FREE_MIN_BYTES)
    if not given.isdecimal():
        raise ServiceError(f"RUNWIRE_DISK_FREE_MIN_BYTES is a number of bytes, not {given!r}")
    return int(given)


def _with_driver(url: str | None) -> str | None:
    """The same URL with SQLAlchemy's name for psycopg 3, which `postgres://` and `postgresql://` leave out."""
    scheme, separator, rest = (url or "").partition("://")
    return f"postgresql+psycopg://{rest}" if separator and scheme in {"postgres", "postgresql"} else url or None
