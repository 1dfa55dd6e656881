"""One test's worker: opens runs, carries them, says what a person says, copies a log into a run whose owner is gone."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from itertools import groupby
from typing import Any
from uuid import UUID

import orjson
from pydantic import BaseModel
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from eventstore import catalogue, log
from eventstore.domain.events import Accepted, Body, Continues, Origin, Person, PolicyRef, new_event
from eventstore.domain.lifecycle import CONTROL_TYPES, TERMINAL_STATUSES
from eventstore.domain.record import Fact, NewEvent, Recorded
from eventstore.recorder import Recorder
from eventstore.run_writer import RunWriter
from runwire_testing.clock import Clock
from runwire_testing.model import WatchedModel
from worker.declare import Workflow
from worker.llm.retrying import RetryPolicy
from worker.run import Run
from worker.runner import Bench, advance, read_facts
from worker.settings import WorkerSettings

ADA = Person(subject="ada", role="user")
LEASE_S = 600.0
LOOK_S = 0.01
BATCH_EVENTS = 200
AT_ONCE = RetryPolicy(first_wait_s=0.001, longest_wait_s=0.002, jitter_s=0.0)


def clock_us() -> int:
    """This machine's clock."""
    return time.time_ns() // 1_000


class WatchedRecorder(Recorder):
    """A recorder that lets something happen right after a run's log has come to a place, before anything else."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.once: dict[UUID, tuple[int, Callable[[], Awaitable[None]]]] = {}

    async def _send(self, group: list[tuple[RunWriter, log.Batch]]) -> None:
        await super()._send(group)
        for writer, batch in group:
            place, act = self.once.get(writer.run_id, (0, None))
            if act is not None and batch.events and self._moved.get(writer.run_id, 0) >= place:
                del self.once[writer.run_id]
                await act()


@dataclass(frozen=True, slots=True)
class Workbench:
    """Everything that the runs of one test are carried with."""

    worker: AsyncEngine
    api: AsyncEngine
    redis: Redis
    tenant: UUID
    workflows: dict[str, Workflow]
    recorder: WatchedRecorder
    clock: Clock
    handover: asyncio.Event = field(default_factory=asyncio.Event)
    below: set["asyncio.Task[None]"] = field(default_factory=set)  # what carries runs that runs asked for

    async def open(
        self,
        workflow: Workflow,
        value: Mapping[str, Any],
        limits: Mapping[str, Any],
        continues: Continues | None = None,
    ) -> UUID:
        """Accept a run, as the API would."""
        body = orjson.dumps(value)
        accepted = Accepted(
            workflow=workflow.name,
            workflow_version=workflow.version,
            title=str(value.get(workflow.title_field or "", "")) or workflow.title,
            input_digest=sha256(body).hexdigest(),
            input_bytes=len(body),
            caller=ADA,
            tenant="tests",
            policy=PolicyRef(version=1, digest="00"),
            milestones=list(workflow.milestones),
            limits=workflow.limits.model_copy(update=dict(limits)),
            trace_id="0" * 32,
            continues=continues,
        )
        submission = catalogue.Submission(
            run_id=self.clock.run_id(),
            tenant_id=self.tenant,
            subject=ADA.subject,
            workflow=workflow.name,
            title=accepted.title,
            idempotency_key=None,
            body_digest=b"",
            input=body,
            accepted=new_event(accepted, clock_us()),
        )
        async with self.api.begin() as connection:
            return (await catalogue.open_run(connection, submission)).run_id

    async def carry(self, run_id: UUID, model: WatchedModel, *, known_as: UUID | None = None) -> None:
        """Be the run's worker until its end. A copy goes by its original's id, as far as the workflow is told."""
        known = self.workflows
        if known_as is not None:
            known = {name: _telling(workflow, known_as) for name, workflow in known.items()}
        bench = Bench(
            engine=self.worker,
            recorder=self.recorder,
            model=model,
            model_name="scripted-1",
            retries=AT_ONCE,
            workflows=known,
            settings=WorkerSettings(),
            lease_s=LEASE_S,
            owner="author-tests",
            clock_us=clock_us,
            hand_over=partial(self._carry_below, model),
        )
        await advance(bench, run_id, self.handover)

    async def _carry_below(self, model: WatchedModel, *run_ids: UUID) -> None:
        for run_id in run_ids:
            task = asyncio.create_task(self._to_its_end(run_id, model))
            self.below.add(task)
            task.add_done_callback(self.below.discard)

    async def _to_its_end(self, run_id: UUID, model: WatchedModel) -> None:
        """A run that another one asked for; whoever asked is carried by somebody else."""
        if (await self.facts(run_id))[0].data.get("parent") is None:
            return
        while (await self.head(run_id)).status not in TERMINAL_STATUSES:
            await self.carry(run_id, model)
            await asyncio.sleep(LOOK_S)

    async def register(self) -> None:
        """Only what is registered can be asked for by a run."""
        async with self.worker.begin() as connection:
            for workflow in self.workflows.values():
                manifest = workflow.manifest().model_dump(mode="json")
                await catalogue.register(connection, catalogue.Registered(workflow.name, workflow.version, manifest))

    async def close(self) -> None:
        """Let go of runs below others that no test has seen to their end."""
        for task in [*self.below]:
            task.cancel()
        await asyncio.gather(*self.below, return_exceptions=True)

    async def say(self, run_id: UUID, body: Body) -> str:
        """Store what a person asks for or decides, as the API would; the log's verdict."""
        async with self.api.begin() as connection:
            told = await log.control(connection, run_id, new_event(body, clock_us()))
        self.recorder.nudge(run_id)
        return told.verdict

    async def head(self, run_id: UUID) -> log.Head:
        """Where a run's log stands."""
        async with self.worker.connect() as connection:
            found = await log.head(connection, run_id)
        assert found is not None
        return found

    async def end_of(self, run_id: UUID) -> Continues:
        """A run's end, as one that continues it names it."""
        head, first = await self.head(run_id), (await self.facts(run_id))[0]
        origin = (first.data.get("continues") or {}).get("origin") or Origin(run_id=str(run_id), at_us=first.at_us)
        return Continues(run_id=str(run_id), seq=head.seq, chain=head.chain.hex(), origin=origin)

    async def facts(self, run_id: UUID) -> list[Fact]:
        return await read_facts(self.worker, run_id)

    async def recorded(self, run_id: UUID) -> list[Recorded]:
        """The log as it is stored."""
        found: list[Recorded] = []
        while True:
            async with self.worker.connect() as connection:
                page = await log.read_after(connection, run_id, found[-1].seq if found else 0)
            found += page.events
            if not page.more:
                return found

    async def left_by_a_dead_owner(self, run_id: UUID, recorded: Sequence[Recorded]) -> None:
        """Give an accepted run the log of an owner that stored these events and was killed."""
        async with self.worker.begin() as connection:
            claim = await log.claim(connection, run_id, "author-tests", LEASE_S)
        assert claim.epoch is not None
        number = 0
        for controls, some in groupby(recorded, lambda each: each.type in CONTROL_TYPES):
            events = [NewEvent(each.type, each.version, each.occurred_us, each.body) for each in some]
            if controls:
                async with self.api.begin() as connection:
                    for event in events:
                        said = await log.control(connection, run_id, event)
                        assert said.verdict == "ok", said.verdict
                continue
            for batch in _batched(events):
                number += 1
                async with self.worker.begin() as connection:
                    [told] = await log.append(connection, [log.Batch(run_id, claim.epoch, number, batch)], LEASE_S)
                assert told.verdict == "ok", told.verdict
        async with self.worker.begin() as connection:
            await log.release(connection, run_id, claim.epoch)


def _batched(events: Sequence[NewEvent]) -> Iterator[Sequence[NewEvent]]:
    return (events[first : first + BATCH_EVENTS] for first in range(0, len(events), BATCH_EVENTS))


def _telling(workflow: Workflow, run_id: UUID) -> Workflow:
    async def fn(run: Run, value: BaseModel) -> BaseModel:
        run._work.run_id = run_id
        if "continues" not in run._work.history.accepted.data:
            run._work.origin = str(run_id)  # what run.uuid and run.random are made from
        return await workflow.fn(run, value)

    return replace(workflow, fn=fn)
