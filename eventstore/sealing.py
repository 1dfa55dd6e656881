"""`python -m eventstore.sealing`: one sealer process. Any number may run; one leads. Stops in order at SIGTERM."""

import asyncio
import logging
import os
import signal
import socket
import sys
from pathlib import Path
from time import perf_counter

import structlog
import uvloop
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from eventstore import incarnation, scrape, signing
from eventstore.bucket import Bucket
from eventstore.checkpoints import CheckpointStore, Directory, OutsideRefuses, Several
from eventstore.database import async_engine, version_fault
from eventstore.domain.note import BadNote
from eventstore.following import follow
from eventstore.incarnation import NotThisLog
from eventstore.metrics import SealerMetrics, new_registry
from eventstore.scrape import NoDoor
from eventstore.seal import Sealer, Tick
from eventstore.settings import SealSettings
from eventstore.signing import KeyFault
from eventstore.sql import rows

logger = structlog.get_logger("sealer")


class CannotStart(Exception):
    """The sealer cannot start; the message is for the operator."""


def engine_of(settings: SealSettings) -> AsyncEngine:
    """The database as a sealer may use it."""
    url = settings.database_url.get_secret_value()
    return async_engine(url, application="runwire-sealer", role="runwire_sealer", pool_size=3)


async def store_of(engine: AsyncEngine, settings: SealSettings) -> CheckpointStore:
    """This log's own place among the checkpoints: a copy of the database finds it again, another database does not."""
    async with engine.connect() as connection:
        origin = await incarnation.log_origin(connection, settings.seal_origin)
    log_id = origin.rpartition("/")[2]
    places: dict[str, CheckpointStore] = {}
    if (folder := settings.checkpoint_dir) is not None:
        if not (folder / log_id).exists() and folder.exists() and any(folder.iterdir()):
            logger.warning("a log without checkpoints, beside checkpoints of others", folder=str(folder / log_id))
        places["the folder"] = Directory(folder / log_id)
    if settings.checkpoint_bucket is not None:
        places["the bucket"] = await asyncio.to_thread(Bucket, settings, log_id)
    return next(iter(places.values())) if len(places) == 1 else Several(places)


def build(engine: AsyncEngine, settings: SealSettings, store: CheckpointStore) -> Sealer:
    """A sealer over this database and these places."""
    key_file = settings.seal_key_file
    return Sealer(
        engine,
        store,
        lambda: signing.load(key_file),
        name=settings.seal_origin,
        owner=f"{socket.gethostname()}/{os.getpid()}",
        lease_s=settings.seal_lease_s,
        block_runs_max=settings.seal_block_runs_max,
        retry_s=settings.seal_retry_s,
        signed=lambda used: _retire(key_file, used),
    )


async def serve(settings: SealSettings) -> None:
    """Seal until told to stop."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    signing.load(settings.seal_key_file)  # a key that is not there is told at the start
    registry = new_registry()
    metrics = SealerMetrics(registry)
    with scrape.serving(settings.seal_metrics, registry, "RUNWIRE_SEAL_METRICS"):
        await _seal(settings, metrics, stop)


async def _seal(settings: SealSettings, metrics: SealerMetrics, stop: asyncio.Event) -> None:
    engine = engine_of(settings)
    try:
        if not await _database_is_there(engine, settings.seal_start_s, stop):
            return
        store = await store_of(engine, settings)
        try:
            await asyncio.to_thread(store.check)
        except OutsideRefuses as fault:
            raise CannotStart(str(fault)) from fault
        except OSError as fault:
            logger.warning("a place of checkpoints is away", fault=str(fault))
        sealer = build(engine, settings, store)
        walk = asyncio.create_task(follow(engine, settings.seal_follow_events_per_s, settings.seal_tick_s, stop))
        walk.add_done_callback(lambda _: stop.set())  # it ends early only by a fault of ours: be started again
        try:
            await _go_on(sealer, settings, stop, metrics)
        finally:
            stop.set()
            await walk
    finally:
        await engine.dispose()


async def _go_on(sealer: Sealer, settings: SealSettings, stop: asyncio.Event, metrics: SealerMetrics) -> None:
    """Tick until told to stop. Who waits for `sealer ready` before anything is written learns that the database was
    compared with what is outside - or, after a time, that nothing outside answers: the log must not depend on that."""
    loop = asyncio.get_running_loop()
    ready, wait_until = False, loop.time() + settings.seal_start_s
    while not stop.is_set():
        more = False
        try:
            tick = await _measured(sealer, metrics)
        except (NotThisLog, BadNote, KeyFault) as fault:
            if not ready:
                raise CannotStart(str(fault)) from fault
            logger.error("nothing sealed", fault=str(fault))
            sealer.forget()
        except (SQLAlchemyError, LookupError) as fault:
            logger.warning("nothing sealed: the database is away", fault=type(fault).__name__)
            sealer.forget()
        except OSError as fault:
            logger.warning("nothing sealed: what is kept outside is away", fault=str(fault))
            sealer.forget()
            if not ready and loop.time() > wait_until:
                ready = True
                logger.warning("sealer ready", leading=False, compared=False)
        else:
            more = tick.more
            if tick.blocks:
                logger.debug("sealed", blocks=tick.blocks, runs=tick.entries, size=tick.size, signed=tick.signed)
            if more:
                logger.info("sealing what was not sealed before", blocks=tick.size, signed=tick.signed)
            if not ready:
                ready = True
                logger.info("sealer ready", leading=tick.leading, shut=tick.fault == "shut")
        try:
            async with asyncio.timeout(0 if more else settings.seal_tick_s):
                await stop.wait()
        except TimeoutError:
            continue


async def _measured(sealer: Sealer, metrics: SealerMetrics) -> Tick:
    began = perf_counter()
    try:
        tick = await sealer.tick()
    except (SQLAlchemyError, LookupError) as fault:
        metrics.failed(fault, away=True)
        raise
    except (NotThisLog, BadNote, KeyFault, OSError) as fault:  # the last: a place outside, not the database
        metrics.failed(fault, away=False)
        raise
    seconds = perf_counter() - began
    metrics.ticked(seconds, leading=tick.leading, blocks=tick.blocks, entries=tick.entries, fault=tick.fault)
    return tick


async def _database_is_there(engine: AsyncEngine, wait_s: float, stop: asyncio.Event) -> bool:
    deadline = asyncio.get_running_loop().time() + wait_s
    while not stop.is_set():
        try:
            async with engine.connect() as connection:
                found = await rows(connection, "schema_version")
            if (wrong := version_fault(found[0][0] if found else None)) is None:
                return True
            why = f"it {wrong}"
        except (SQLAlchemyError, OSError) as fault:
            why = str(getattr(fault, "orig", fault)).partition("\n")[0]
        if asyncio.get_running_loop().time() > deadline:
            raise CannotStart(f"the database: {why}")
        await asyncio.sleep(0.2)
    return False


def _retire(file: Path, used: signing.KeyRing) -> None:
    signing.retire(file, used)
    logger.info("the key before this one has cosigned its last checkpoint")


def main() -> int:
    """0 after an orderly stop, 1 with one line when it cannot start."""
    structlog.configure(
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    )
    try:
        uvloop.run(serve(SealSettings()))
    except ValidationError as fault:
        said = fault.errors(include_input=False, include_url=False)[0]
        names = "".join(f"RUNWIRE_{str(name).upper()}: " for name in said["loc"])
        print(f"sealer: {names}{said['msg'].removeprefix('Value error, ')}", file=sys.stderr)
        return 1
    except (CannotStart, NoDoor, KeyFault) as fault:
        print(f"sealer: {fault}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
