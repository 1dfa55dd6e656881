"""How long one tick of the sealer takes over ten thousand moved runs, signed and kept outside."""

import asyncio
import time
from pathlib import Path

from sqlalchemy import text

from eventstore.database import sync_engine
from migrations import schema
from ops.services import Services
from tests.bench.figures import latency_line
from tests.sealing import Desk, desk

RUNS = 10_000
TICKS = 10


async def _heads(d: Desk) -> None:
    async with d.owner.begin() as connection:
        await connection.execute(
            text("""INSERT INTO runwire.head (run_id, tenant_id, status, seq, chain, recorded_us, handed_at)
                    SELECT gen_random_uuid(), :tenant, 'running', 1, sha256(n::text::bytea), 0, '-infinity'
                    FROM generate_series(1, :runs) n"""),
            {"tenant": d.tenant, "runs": RUNS},
        )


async def _measure(database_url: str, folder: Path) -> list[float]:
    async with desk(database_url, folder) as d:
        await _heads(d)
        sealer, took = d.sealer(runs=2 * RUNS), []
        for _ in range(TICKS):
            began = time.perf_counter()
            tick = await sealer.tick()
            took.append(time.perf_counter() - began)
            assert tick.entries == RUNS
            async with d.owner.begin() as connection:
                await connection.execute(text("UPDATE runwire.head SET seq = seq + 1"))
        return took


def main(folder: Path) -> None:
    with Services(folder / "seal") as services:
        engine = sync_engine(services.endpoints.database_url, application="bench")
        schema.upgrade(engine)
        engine.dispose()
        outside = folder / "sealed"
        outside.mkdir()
        took = asyncio.run(_measure(services.endpoints.database_url, outside))
    print(latency_line(f"one tick of the sealer over {RUNS:,} moved runs", took))
