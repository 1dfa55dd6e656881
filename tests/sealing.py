"""Short ways for tests to seal a real log into a folder of their own."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from eventstore import blocks, incarnation, signing
from eventstore.checkpoints import CheckpointStore, Directory
from eventstore.database import async_engine
from eventstore.incarnation import Standing
from eventstore.seal import Sealer
from eventstore.verification import Report, verify_against
from tests.writing import append, batch, new_tenant, running, token

NAME = "runwire.test"


@dataclass
class Desk:
    """A database, a folder, a key, and everybody who works with them."""

    owner: AsyncEngine
    api: AsyncEngine
    worker: AsyncEngine
    sealers: AsyncEngine
    schema_owner: AsyncEngine
    folder: Path
    tenant: UUID

    @property
    def key_file(self) -> Path:
        return self.folder / "key"

    @property
    def store(self) -> Directory:
        return Directory(self.outside)

    @property
    def outside(self) -> Path:
        return self.folder / "outside"

    def keys(self) -> signing.KeyRing:
        return signing.ensure_key(self.key_file, NAME)

    def sealer(
        self, owner: str = "a", *, store: CheckpointStore | None = None, lease_s: float = 30.0, runs: int = 50
    ) -> Sealer:
        return Sealer(
            self.sealers, store or self.store, self.keys, name=NAME, owner=owner, lease_s=lease_s, block_runs_max=runs,
            signed=lambda used: signing.retire(self.key_file, used),
        )  # fmt: skip

    async def origin(self) -> str:
        async with self.api.connect() as connection:
            return await incarnation.log_origin(connection, NAME)

    def notes(self) -> list[str]:
        return [note for size in self.store.sizes() if (note := self.store.checkpoint(size)) is not None]

    async def verify(self, notes: Sequence[str] | None = None, connection: AsyncConnection | None = None) -> Report:
        told = self.notes() if notes is None else notes
        if connection is not None:
            return await verify_against(connection, told, self.keys().public, await self.origin())
        async with self.owner.connect() as own:
            return await verify_against(own, told, self.keys().public, await self.origin())

    async def standing(self) -> Standing:
        async with self.sealers.connect() as connection:
            return await incarnation.check_incarnation(connection, self.store, self.keys().public, await self.origin())

    async def acknowledge(self, why: str = "restored from a backup") -> Standing:
        async with self.schema_owner.begin() as connection:
            return await incarnation.acknowledge(
                connection, self.store, self.keys().public, origin=await self.origin(), by="olga", why=why
            )

    async def run(self, *texts: str) -> UUID:
        return await running(self.api, self.worker, self.tenant, *(token(text) for text in texts))

    async def add(self, run_id: UUID, number: int, *texts: str, epoch: int = 1) -> str:
        [answer] = await append(self.worker, batch(run_id, epoch, number, *(token(text) for text in texts)))
        return answer.verdict


@asynccontextmanager
async def desk(database_url: str, folder: Path) -> AsyncIterator[Desk]:
    """All of it over one database."""
    roles = [None, "runwire_api", "runwire_worker", "runwire_sealer", "runwire_owner"]
    engines = [async_engine(database_url, application="tests", role=role, pool_size=4) for role in roles]
    try:
        owner, api, worker, sealers, schema_owner = engines
        yield Desk(owner, api, worker, sealers, schema_owner, folder, await new_tenant(owner))
    finally:
        for engine in engines:
            await engine.dispose()


async def count(d: Desk, table: str) -> int:
    async with d.owner.connect() as connection:
        return int((await connection.execute(text(f"SELECT count(*) FROM runwire.{table}"))).scalar_one())


async def feed(d: Desk, limit: int = 3) -> list[blocks.Step]:
    steps: list[blocks.Step] = []
    async with d.api.connect() as connection:
        while more := await blocks.blocks_after(connection, steps[-1].block_no if steps else 0, limit):
            steps += more
    return steps
