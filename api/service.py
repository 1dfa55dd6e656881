"""The parts that one API process works with, opened and closed together, and how a route asks for them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Annotated, Final

import structlog
from fastapi import Depends, Request
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from api.callers import Caller
from api.errands import Errands
from api.errors import DATABASE_AWAY
from api.figures import ApiFigures
from api.fronts.waits import Waits
from api.keys import Keys, key_in
from api.limits import Limits
from api.neighbours import Neighbours
from api.newest import Newest
from api.offers import Offers
from api.places import Places
from api.policies import Policies
from api.readers import Readers
from api.settings import ApiSettings
from api.standings import Standings
from api.states import States
from eventstore import wakeups
from eventstore.database import async_engine
from eventstore.handoff import Handoff
from eventstore.queue import Bounds
from eventstore.tail import Tails

HELD: Final = 2  # connections that standings and newest keep for themselves

logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Service:
    """What routes work with. `reading` is the same pool as `engine`, one statement at a time and no transaction.
    `watching` is a connection of its own: figures must be had when all others are taken. So are those of `standings`
    and `newest`, which ask for many requests at once."""

    settings: ApiSettings
    policies: Policies
    waits: Waits
    engine: AsyncEngine
    reading: AsyncEngine
    watching: AsyncEngine
    redis: Redis
    tails: Tails
    following: asyncio.Task[None]
    handoff: Handoff
    offers: Offers
    keys: Keys
    states: States
    standings: Standings
    newest: Newest
    places: Places
    readers: Readers
    errands: Errands
    figures: ApiFigures
    limits: Limits


@asynccontextmanager
async def opened(
    settings: ApiSettings, policies: Policies, waits: Waits, figures: ApiFigures
) -> AsyncIterator[Service]:
    """Connect, follow the log, and let go of everything at the end."""
    database_url = settings.database_url.get_secret_value()
    watching = async_engine(database_url, application="runwire-api-metrics", role="runwire_api", pool_size=1)
    engine = async_engine(
        database_url,
        application="runwire-api",
        role="runwire_api",
        pool_size=settings.database_connections,
    )
    reading = engine.execution_options(isolation_level="AUTOCOMMIT")
    redis = wakeups.connect(settings.redis_url.get_secret_value())
    handoff = Handoff(settings.redis_url.get_secret_value(), redis)
    figures.look_at(engine, waits)
    tails = Tails(reading, redis, figures.tails)
    following = asyncio.create_task(tails.run(), name="tails")
    following.add_done_callback(_followed)
    readers = Readers(watching, every_s=settings.readers_s, gone_s=settings.readers_gone_s)
    telling = asyncio.create_task(readers.run(), name="readers")
    errands = Errands(settings.errands_max)
    limits = Limits(settings, figures.refusals)
    asking = async_engine(database_url, application="runwire-api-polls", role="runwire_api", pool_size=HELD)
    standings, newest = Standings(asking), Newest(asking)
    neighbours = Neighbours(limits, redis, settings.callers_tell_s)
    sharing = asyncio.create_task(neighbours.run(), name="neighbours")
    try:
        yield Service(
            settings=settings,
            policies=policies,
            waits=waits,
            engine=engine,
            reading=reading,
            watching=watching,
            redis=redis,
            tails=tails,
            following=following,
            handoff=handoff,
            offers=Offers(reading),
            keys=Keys(reading),
            states=States(settings.states_max, settings.state_bytes_max),
            standings=standings,
            newest=newest,
            places=Places(reading, Bounds(settings.tenant_runs_max, settings.caller_runs_max)),
            readers=readers,
            errands=errands,
            figures=figures,
            limits=limits,
        )
    finally:
        await errands.finish(settings.drain_s)
        for task in (following, telling, sharing):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await readers.tell(leaves=True)
        await standings.close()
        await newest.close()
        await neighbours.leave()
        handoff.close()
        await redis.aclose()
        await engine.dispose()
        await asking.dispose()
        await watching.dispose()


def _followed(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (fault := task.exception()) is not None:
        logger.critical("the tails have stopped: /healthz says so", fault=type(fault).__name__)


async def _service(request: Request) -> Service:
    found: Service = request.app.state.service
    return found


Asked = Annotated[Service, Depends(_service)]


async def caller_of(request: Request, service: Asked) -> Caller:
    """Whose request this is, counted as one of theirs: every way into the API goes through here."""
    caller = await service.keys.caller(key_in(request))
    request.state.key_id = caller.key_id
    service.limits.request(caller)
    return caller


Who = Annotated[Caller, Depends(caller_of)]


async def _reader(request: Request, service: Asked) -> Caller:
    """For streams. While the database is away also whose key was good a short while ago: they may wait for it, and the
    key is looked up before they are shown anything."""
    try:
        return await caller_of(request, service)
    except DATABASE_AWAY:
        known = service.keys.recalled(key_in(request), service.settings.key_outage_s)
        if known is None:
            raise
        request.state.key_id = known.key_id
        service.limits.request(known)
        return known


Reader = Annotated[Caller, Depends(_reader)]
