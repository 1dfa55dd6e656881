"""`python -m worker`: one worker process. Stops in order at SIGTERM and SIGINT."""

import asyncio
import logging
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Iterable
from contextlib import AsyncExitStack
from dataclasses import replace

import structlog
import uvloop
from dramatiq import Worker
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from eventstore import catalogue, scrape, wakeups
from eventstore.database import async_engine
from eventstore.handoff import Handoff
from eventstore.metrics import RecorderMetrics, new_registry
from eventstore.pauses import keep_pauses_short
from eventstore.queue import Bounds
from eventstore.recorder import Recorder
from eventstore.scrape import NoDoor
from eventstore.settings import StoreSettings
from worker import actors
from worker.broker import HintBroker
from worker.declare import Workflow
from worker.host import Host
from worker.limits import under
from worker.llm.prices import own_prices, read_prices
from worker.llm.provider import create_model
from worker.llm.rates import rates_of
from worker.llm.retrying import RetryPolicy
from worker.llm.settings import ModelSettings
from worker.loading import known_workflows
from worker.metrics import WorkerMetrics
from worker.neighbours import Neighbours
from worker.runner import Bench
from worker.settings import WorkerSettings
from worker.unread import Abandoning

logger = structlog.get_logger("worker")


class CannotStart(Exception):
    """The worker cannot start; the message is for the operator."""


def clock_us() -> int:
    """This machine's clock: a claim that events carry, never what decides."""
    return time.time_ns() // 1_000


def owner() -> str:
    """A name to own runs under. In a container every process is the first one: chance tells it from the one before."""
    return f"{socket.gethostname()}/{secrets.token_hex(3)}/{os.getpid()}"


async def register(engine: AsyncEngine, workflows: Iterable[Workflow], wait_s: float) -> None:
    """Tell the API what we can run; waits for the database as long as it may."""
    deadline = asyncio.get_running_loop().time() + wait_s
    while True:
        try:
            async with engine.begin() as connection:
                for workflow in workflows:
                    registered = catalogue.Registered(
                        workflow.name,
                        workflow.version,
                        workflow.manifest().model_dump(mode="json"),
                        workflow.runs_max,
                        workflow.on_gap,
                        workflow.version_wait_s,
                    )
                    await catalogue.register(connection, registered)
        except (SQLAlchemyError, OSError) as fault:
            if asyncio.get_running_loop().time() > deadline:
                why = str(getattr(fault, "orig", fault)).partition("\n")[0]
                raise CannotStart(f"the database is away or not migrated (runwire migrate): {why}") from fault
            await asyncio.sleep(0.2)
        else:
            return


async def serve(store: StoreSettings, settings: WorkerSettings, models: ModelSettings) -> None:
    """Carry runs until told to stop."""
    workflows = {
        name: replace(workflow, limits=under(settings.ceilings, workflow.limits))
        for name, workflow in known_workflows(settings.workflows).items()
    }
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        registry = new_registry()
        stored = RecorderMetrics(registry)
        carried = WorkerMetrics(registry, stored.database)
        stack.enter_context(scrape.serving(settings.worker_metrics, registry, "RUNWIRE_WORKER_METRICS"))
        database_url, redis_url = store.database_url.get_secret_value(), store.redis_url.get_secret_value()
        engine = async_engine(database_url, application="runwire-worker", role="runwire_worker", pool_size=10)
        stack.push_async_callback(engine.dispose)
        redis = wakeups.connect(redis_url)
        stack.push_async_callback(redis.aclose)
        name = owner()
        rates = rates_of(models, redis, Neighbours(engine, name).live, carried)
        model = create_model(models, heard=rates.heard)
        stack.push_async_callback(model.aclose)
        handoff = Handoff(redis_url, redis)
        stack.callback(handoff.close)
        await register(engine, workflows.values(), settings.start_s)
        recorder = Recorder(
            engine, redis, lease_s=store.lease_s, heartbeat_s=store.heartbeat_s, clock_us=clock_us, metrics=stored
        )
        bench = Bench(
            engine=engine,
            recorder=recorder,
            model=model,
            model_name=models.endpoint().model,
            retries=RetryPolicy(attempts_max=models.attempts_max),
            workflows=workflows,
            settings=settings,
            lease_s=store.lease_s,
            owner=name,
            clock_us=clock_us,
            metrics=carried,
            continue_by=models.continuing(),
            hand_over=handoff.hand_over,
            policies=settings.policies,
            prices=read_prices(settings.prices) if settings.prices is not None else own_prices(),
            rates=rates,
        )
        broker = HintBroker(redis_url)
        bounds = Bounds(store.tenant_runs_max, store.caller_runs_max)
        pace = {"sweep_s": store.sweep_s, "queue_wait_s": store.queue_wait_s}
        host = Host(bench, handoff, redis, hints=broker, bounds=bounds, **pace)
        actors.declare(broker, host)
        queue = Worker(broker, worker_threads=2, worker_timeout=200)
        abandoning = Abandoning(engine, redis, handoff, carried, sweep_s=store.sweep_s, gone_s=store.readers_gone_s)
        async with rates.open(), host.open(), abandoning.open():
            await asyncio.to_thread(queue.start)
            keep_pauses_short()
            logger.info("worker ready", owner=bench.owner, workflows=sorted(workflows))
            await stop.wait()
            # First the queue, then the runs: a run that is handed back must not come back to this very process.
            broker.stop()
            await asyncio.to_thread(queue.stop, 3_000)
        broker.client.close()


async def serve_and_leave() -> None:
    """Serve, and be gone: what a workflow's code left behind, in a thread or asleep, must not hold this process."""
    await serve(StoreSettings(), WorkerSettings(), ModelSettings())
    sys.stderr.flush()
    os._exit(0)


def main() -> int:
    """0 after an orderly stop, 1 with one line when it cannot start."""
    structlog.configure(
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    )
    try:
        uvloop.run(serve_and_leave())
    except (CannotStart, NoDoor, ValidationError, ValueError) as fault:
        print(f"worker: {fault}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
