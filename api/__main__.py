"""`python -m api`: the API as one process, with one clear line when it cannot start."""

import asyncio
import logging
import signal
import sys
from socket import gaierror, socket

import structlog
import uvloop
from fastapi import FastAPI
from pydantic import ValidationError
from sqlalchemy.exc import OperationalError, ProgrammingError
from structlog.typing import Processor

from api.app import create_app
from api.server import ApiServer, listen
from api.settings import ApiSettings
from eventstore.database import async_engine, version_fault
from eventstore.domain.errors import PolicyError
from eventstore.pauses import keep_pauses_short
from eventstore.sql import rows

logger = structlog.get_logger("api")


class CannotStart(Exception):
    """Why there is no API now, in one line."""


def main() -> int:
    """Run until a signal; the exit code."""
    log_to_stderr()
    try:
        settings = read_settings()
        app = create_app(settings)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(check_database(settings))
            keep_pauses_short()
            runner.run(serve(app, settings, listening(settings)))
    except (CannotStart, PolicyError) as fault:
        print(f"runwire api: {fault}", file=sys.stderr)
        return 1
    return 0


def log_to_stderr() -> None:
    """One JSON object per line; uvicorn's and other libraries' warnings too."""
    shared: list[Processor] = [structlog.stdlib.add_log_level, structlog.processors.TimeStamper(fmt="iso", utc=True)]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer()],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processor=structlog.processors.JSONRenderer())
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING)


def read_settings() -> ApiSettings:
    """The settings from the environment."""
    try:
        return ApiSettings()
    except ValidationError as fault:
        first = fault.errors(include_url=False, include_input=False)[0]
        name = "RUNWIRE_" + "_".join(map(str, first["loc"])).upper() if first["loc"] else "the settings"
        raise CannotStart(f"{name}: {first['msg']}") from fault


async def check_database(settings: ApiSettings) -> None:
    """Refuse to start without a database of this release's version."""
    engine = async_engine(
        settings.database_url.get_secret_value(), application="runwire-api-start", role=None, pool_size=1
    )
    try:
        async with engine.connect() as connection:
            found = await rows(connection, "schema_version")
    except OperationalError as fault:
        raise CannotStart(f"the database cannot be reached: {str(fault.orig).strip().splitlines()[0]}") from fault
    except ProgrammingError as fault:
        raise CannotStart("the database has no Runwire tables; migrate it first: runwire migrate") from fault
    finally:
        await engine.dispose()
    if (wrong := version_fault(found[0][0] if found else None)) is not None:
        raise CannotStart(f"the database {wrong}")


def listening(settings: ApiSettings) -> socket:
    """Our place on the network."""
    try:
        return listen(settings.host, settings.port)
    except (OSError, gaierror) as fault:
        raise CannotStart(f"cannot listen on {settings.host} port {settings.port}: {fault.strerror}") from fault


async def serve(app: FastAPI, settings: ApiSettings, listener: socket) -> None:
    """Serve until SIGTERM or SIGINT."""
    server = ApiServer(app, settings)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop)
    await server.serve(sockets=[listener])
    logger.info("stopped")


if __name__ == "__main__":
    sys.exit(main())
