"""Whether this process works, and whether it can serve."""

import asyncio
from typing import Final

from fastapi import APIRouter
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.responses import Response

from api.service import Asked
from api.shapes import answer
from eventstore.database import SCHEMA_VERSION, version_fault
from eventstore.sql import rows

LOOK_S: Final = 2.0

router = APIRouter(tags=["operations"])


@router.get("/healthz", summary="Whether this process works", response_class=Response)
async def healthz(service: Asked) -> Response:
    works = not service.following.done()
    return answer({"status": "ok" if works else "the tails have stopped"}, 200 if works else 503)


@router.get(
    "/readyz",
    summary="Whether this process can serve: Postgres at the right version. Redis is told; its absence only costs time",
    response_class=Response,
)
async def readyz(service: Asked) -> Response:
    database = await _database(service.reading)
    ready = database == "ok" and not service.waits.draining
    parts = {"postgres": database, "redis": await _redis(service), "draining": service.waits.draining}
    return answer({"ready": ready, **parts}, 200 if ready else 503)


async def _database(engine: AsyncEngine) -> str:
    try:
        async with asyncio.timeout(LOOK_S), engine.connect() as connection:
            found = await rows(connection, "schema_version")
    except (SQLAlchemyError, OSError, TimeoutError):
        return "away"
    version = found[0][0] if found else None
    return "ok" if version_fault(version) is None else f"at version {version}, not {SCHEMA_VERSION}"


async def _redis(service: Asked) -> str:
    try:
        async with asyncio.timeout(LOOK_S):
            await service.redis.ping()
    except (RedisError, OSError, TimeoutError):
        return "away"
    return "ok"
