"""Where the fronts are measured: durable servers, one API process, readers and writers in their own processes."""

import asyncio
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import httpx
import psycopg

from api.keys import create_key
from eventstore.database import sync_engine
from migrations import schema
from ops.services import Endpoints
from tests.bench.fronts.child import Ordered
from tests.bench.log.ground import libpq
from tests.bench.spending import TICKS_PER_S
from tests.e2e.stage import children
from tests.house import ROOT
from tests.machine import soon

START_S: Final = 60.0
STOP_S: Final = 10.0
TENANT: Final = "acme"
SUBJECT: Final = "ada"
LISTENING: Final = re.compile(r'"addresses": \["(http://[^"]+)"\]')
# All readers here are one caller, who may do what thousands of callers may.
OF_MANY: Final = {
    "RUNWIRE_CALLER_REQUESTS_PER_S": "1000000",
    "RUNWIRE_CALLER_STREAMS_MAX": "10000",
    "RUNWIRE_CONNECTIONS_MAX": "20000",
}
WRITER: Final = "tests.bench.fronts.writer"
CROWD: Final = "tests.bench.fronts.crowd"
READING_MAX: Final = 8  # logs at the same time


def path(run: str) -> str:
    """Where a run's events are read."""
    return f"/v1/runs/{run}/events"


@dataclass(slots=True)
class Process:
    """One server that is measured."""

    address: str
    pid: int

    def cpu_s(self) -> float:
        """Processor time so far, its own and the kernel's on its behalf."""
        stats = [Path(f"/proc/{pid}/stat").read_text() for pid in (self.pid, *children(self.pid))]
        return sum(int(ticks) for stat in stats for ticks in stat.rpartition(")")[2].split()[11:13]) / TICKS_PER_S

    def rss(self) -> int:
        """Bytes of memory that it holds now."""
        found = re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text(), re.MULTILINE)
        assert found is not None
        return int(found[1]) * 1024


@dataclass(slots=True)
class Ground:
    """One database with one API process on it, and a folder on the same disk."""

    services: Endpoints
    folder: Path
    api: Process
    key: str
    tenant: UUID
    _numbers: "count[int]" = field(default_factory=count)
    _kept: dict[str, Ordered] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return self.api.address

    @property
    def api_pid(self) -> int:
        return self.api.pid

    def cpu_s(self) -> float:
        return self.api.cpu_s()

    def rss(self) -> int:
        return self.api.rss()

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    @asynccontextmanager
    async def keeping(self) -> AsyncIterator[None]:
        """While the block goes on, everybody is given the same writer and the same crowd: they start slowly."""
        starting = [self._start(WRITER, self._given()), self._start(CROWD, {})]
        writer, crowd = await asyncio.gather(*starting)
        self._kept = {WRITER: writer, CROWD: crowd}
        try:
            yield
        finally:
            self._kept = {}
            await asyncio.gather(writer.stop(), crowd.stop())

    @asynccontextmanager
    async def writer(self) -> AsyncIterator[Ordered]:
        """A process that writes runs."""
        async with self._child(WRITER, self._given()) as child:
            yield child

    @asynccontextmanager
    async def crowd(self) -> AsyncIterator[Ordered]:
        """A process full of readers."""
        async with self._child(CROWD, {}) as child:
            yield child

    def _given(self) -> dict[str, Any]:
        services = self.services
        return {"database_url": services.database_url, "redis_url": services.redis_url, "tenant": str(self.tenant)}

    @contextmanager
    def server(self, module: str, *arguments: str, python: str = sys.executable) -> Iterator[Process]:
        """Some other server of ours, which prints its address."""
        with served([python, "-m", module, *arguments], {**os.environ}, self.folder) as process:
            yield process

    async def wrong(self, told: Mapping[str, Any], last: Mapping[str, int], each: int = 1) -> int:
        """How much is wrong with what a crowd was told of ended runs: events that are missing, came twice or out of
        order, and readers whose bytes are not those of the log as it is read now."""
        stored = self._stored(last)
        expected = Counter({f"{path(run)} {digest}": each for run, digest in (await self._digests(last)).items()})
        missing = abs(told["frames"] - each * sum(last.values())) + sum(stored[run] != last[run] for run in last)
        return int(told["lost"] + missing + (Counter(told["digests"]) - expected).total())

    async def _digests(self, runs: Iterable[str]) -> dict[str, str]:
        """The digest of all events' data of each run, read anew in another format."""
        gate = asyncio.Semaphore(READING_MAX)
        async with httpx.AsyncClient(base_url=self.address, headers=self.headers, trust_env=False, timeout=60) as http:

            async def one(run: str) -> tuple[str, str]:
                async with gate:
                    answer = await http.get(path(run), headers={"Accept": "application/x-ndjson"})
                return run, sha256(answer.raise_for_status().content.replace(b"\n", b"")).hexdigest()

            return dict(await asyncio.gather(*map(one, runs)))

    def _stored(self, runs: Iterable[str]) -> dict[str, int]:
        """How many events the database holds of each run."""
        counted = "SELECT run_id::text, count(*) FROM runwire.event WHERE run_id = ANY(%s::uuid[]) GROUP BY 1"
        with psycopg.connect(libpq(self.services.database_url)) as connection:
            return dict(connection.execute(counted, ([*runs],)).fetchall())

    async def _start(self, module: str, given: dict[str, Any]) -> Ordered:
        return await Ordered.of(module, given, self.folder / f"child-{next(self._numbers)}.log")

    @asynccontextmanager
    async def _child(self, module: str, given: dict[str, Any]) -> AsyncIterator[Ordered]:
        if module in self._kept:
            yield self._kept[module]
            return
        child = await self._start(module, given)
        try:
            yield child
        finally:
            await child.stop()


@contextmanager
def served(words: list[str], environ: dict[str, str], folder: Path) -> Iterator[Process]:
    """A server of ours in a process of its own, from when it says where it listens."""
    said = _said(words, folder)

    def listens() -> str | None:
        found = LISTENING.search(said.read_text())
        return found and found[1]

    with running(words, environ, folder, listens) as process:
        yield process


def _said(words: list[str], folder: Path) -> Path:
    return folder / f"server-{Path(words[0]).name}-{'-'.join(words[1:3]).replace('/', '_')}.log"


@contextmanager
def running(
    words: list[str], environ: dict[str, str], folder: Path, answers: Callable[[], str | None], cwd: Path = ROOT
) -> Iterator[Process]:
    """Any server in a process of its own, from when it answers at an address."""
    said = _said(words, folder)
    with said.open("wb") as out:
        process = subprocess.Popen(words, env=environ, cwd=cwd, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    found: str | None = None

    def there() -> bool:
        nonlocal found
        found = answers()
        return found is not None or process.poll() is not None

    try:
        soon(there, START_S)
        if found is None:
            raise RuntimeError(f"{words} ended:\n{said.read_text()[-2000:]}")
        yield Process(found, process.pid)
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def ground(services: Endpoints, folder: Path, database_url: str | None = None) -> Iterator[Ground]:
    """Migrate, make a key, serve; and stop."""
    url = database_url or services.database_url
    engine = sync_engine(url, application="bench")
    if database_url is None:
        schema.upgrade(engine)
    key = create_key(engine, TENANT, SUBJECT, "operator")
    engine.dispose()
    with psycopg.connect(libpq(url)) as connection:
        row = connection.execute("SELECT tenant_id FROM runwire.tenant WHERE name = %s", (TENANT,)).fetchone()
    assert row is not None
    endpoints = Endpoints(url, services.redis_url)
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith("RUNWIRE_")},
        "RUNWIRE_DATABASE_URL": url,
        "RUNWIRE_REDIS_URL": services.redis_url,
        "RUNWIRE_PORT": "0",
        **OF_MANY,
    }
    with served([sys.executable, "-m", "api"], environ, folder) as process:
        yield Ground(endpoints, folder, process, key, UUID(str(row[0])))
