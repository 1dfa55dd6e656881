"""A real API server in the test's own event loop, a way to ask it, and a run that the test writes like a worker."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import httpx
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from api.app import create_app
from api.keys import create_key
from api.server import ApiServer, address_of, listen
from api.service import Service
from api.settings import ApiSettings
from eventstore import catalogue, wakeups
from eventstore.database import sync_engine
from eventstore.domain.disclosure import Role
from eventstore.domain.events import Body
from ops.services import Endpoints
from tests.writing import append, batch, claim

DEADLINE_S = 20.0
NOWHERE = "redis://127.0.0.1:1/0"  # nothing listens on port 1
MILESTONES = [{"state": "uploaded", "label": "Document received"}, {"state": "ready", "label": "Ready for review"}]
REVIEW = {
    "title": "Contract review",
    "summary": "Reads a contract.",
    "milestones": MILESTONES,
    "input_schema": {
        "type": "object",
        "required": ["text"],
        "additionalProperties": False,
        "properties": {
            "text": {"type": "string", "minLength": 1},
            "title": {"type": "string"},
            "policy": {"enum": ["house", "strict"]},
        },
    },
    "output_schema": {"type": "object"},
    "samples": [{"name": "nda", "title": "A mutual NDA", "input": {"text": "Clause 1", "title": "NDA"}}],
    "limits": {"run_s": 180.0, "attempts_max": 3},
    "title_field": "title",
}
DRILL = {**REVIEW, "title": "Drill", "input_schema": {"type": "object"}, "title_field": None}


@dataclass
class Api:
    """A serving API and the keys to it."""

    address: str
    server: ApiServer
    service: Service
    database_url: str
    _keys: dict[tuple[str, str, str], str] = field(default_factory=dict)

    def key(self, role: Role = "user", subject: str = "ada", tenant: str = "acme") -> str:
        """A key, made at first use."""
        if (tenant, subject, role) not in self._keys:
            engine = sync_engine(self.database_url, application="tests-keys")
            self._keys[tenant, subject, role] = create_key(engine, tenant, subject, role)
            engine.dispose()
        return self._keys[tenant, subject, role]

    @asynccontextmanager
    async def client(
        self, role: Role = "user", subject: str = "ada", tenant: str = "acme"
    ) -> AsyncIterator[httpx.AsyncClient]:
        """A client that carries a key."""
        headers = {"Authorization": f"Bearer {self.key(role, subject, tenant)}"}
        async with httpx.AsyncClient(base_url=self.address, headers=headers, timeout=DEADLINE_S) as client:
            yield client

    async def submit(self, workflow: str = "contract_review", **who: Any) -> UUID:
        """Start a run."""
        async with self.client(**({"role": "operator"} if workflow == "drill" else {}) | who) as client:
            answer = await client.post("/v1/runs", json={"workflow": workflow, "input": {"text": "Clause 1"}})
        assert answer.status_code == 202, answer.text
        return UUID(answer.json()["id"])


@asynccontextmanager
async def serving(database_url: str, redis_url: str = NOWHERE, **settings: Any) -> AsyncIterator[Api]:
    """Serve on a free port until the end of the block; then stop as a signal would."""
    app_settings = ApiSettings(database_url=database_url, redis_url=redis_url, port=0, **settings)
    app = create_app(app_settings)
    server = ApiServer(app, app_settings)
    listener: socket.socket = listen(app_settings.host, app_settings.port)
    address = address_of(listener)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await until(lambda: server.started or task.done())
        assert server.started, task.exception()
        yield Api(address, server, app.state.service, database_url)
    finally:
        if not server.should_exit:  # a second word would mean: at once
            server.stop()
        await asyncio.wait_for(task, DEADLINE_S)


async def until(condition: Callable[[], Any]) -> None:
    """Wait for a condition, turn by turn of the event loop, and not for ever."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event of its own
            await asyncio.sleep(0.002)


async def register(worker: AsyncEngine, manifests: Mapping[str, Any] | None = None) -> None:
    """Register the workflows as a worker does when it starts."""
    async with worker.begin() as connection:
        for name, manifest in (manifests or {"contract_review": REVIEW, "drill": DRILL}).items():
            await catalogue.register(connection, catalogue.Registered(name, 1, manifest))


@dataclass
class Writer:
    """The owner of one run, as a worker is one: appends batches and wakes the readers."""

    worker: AsyncEngine
    run_id: UUID
    redis: Redis | None = None
    number: int = 0
    epoch: int = 0

    async def append(self, *bodies: Body) -> int:
        """Store these events; the last seq."""
        if not self.epoch:
            self.epoch = (await claim(self.worker, self.run_id)).epoch or 0
        self.number += 1
        [answer] = await append(self.worker, batch(self.run_id, self.epoch, self.number, *bodies))
        assert answer.verdict == "ok", answer
        assert answer.last_seq is not None
        if self.redis is not None:
            await wakeups.publish(self.redis, wakeups.MOVED, wakeups.moved_payload([(self.run_id, answer.last_seq)]))
        return answer.last_seq


@asynccontextmanager
async def database_away(services: Endpoints, database_url: str) -> AsyncIterator[None]:
    """Nobody can reach this database."""
    name = make_url(database_url).database
    admin = sync_engine(services.database_url, application="tests").execution_options(isolation_level="AUTOCOMMIT")
    allow = text(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS true")
    refuse = text(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false")
    cut = text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name")
    with admin.connect() as connection:
        connection.execute(refuse)
        connection.execute(cut, {"name": name})
        try:
            yield
        finally:
            connection.execute(allow)
    admin.dispose()
