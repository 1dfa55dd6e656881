"""Real worker processes, and whatever a test must wait for: recorded positions, never time."""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import orjson
import uuid_utils.compat
from sqlalchemy.ext.asyncio import AsyncEngine

from eventstore import catalogue, log
from eventstore.domain.events import Accepted, CancelRequested, Continues, Origin, Person, PolicyRef, new_event
from eventstore.domain.lifecycle import TERMINAL_TYPES
from eventstore.domain.record import Fact
from eventstore.domain.run import RunState, fold
from tests.writing import NOW_US
from worker.declare import Workflow
from worker.registry import WORKFLOWS
from worker.runner import read_facts
from worker.workflows import contract_review

T = TypeVar("T")

ADA = Person(subject="ada", role="user")
SAMPLES = Path(contract_review.__file__).parent / "samples"
SAMPLE = orjson.loads((SAMPLES / "cloud_services.json").read_bytes())
DEADLINE_S = 40.0


async def until(ask: Callable[[], Awaitable[T | None]], what: str, deadline_s: float = DEADLINE_S) -> T:
    """Ask until there is an answer; fails with what it waited for."""
    loop = asyncio.get_running_loop()
    end = loop.time() + deadline_s
    while (answer := await ask()) is None:
        assert loop.time() < end, f"waited {deadline_s:g} s for {what}"
        await asyncio.sleep(0.01)
    return answer


class Worker:
    """One worker process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Tell it to go, and wait until it has gone."""
        if self.process.returncode is None:
            self.process.send_signal(number)
        async with asyncio.timeout(15):
            return await self.process.wait()


async def start_worker(environ: Mapping[str, str], log_file: Path) -> Worker:
    """A worker process with this environment; what it prints goes to a file."""
    with log_file.open("ab") as out:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "worker", env={**os.environ, **environ}, stdout=out, stderr=out
        )
    return Worker(process)


class Runs:
    """Submits runs as the API would, and looks at their logs."""

    def __init__(self, api: AsyncEngine, tenant: UUID) -> None:
        self.engine = api
        self._tenant = tenant

    async def go_on(
        self, earlier: UUID, workflow: str = "story", *, continues: Mapping[str, Any] | None = None, **limits: Any
    ) -> UUID:
        """A run that continues this one, which has no input to speak of."""
        async with self.engine.connect() as connection:
            head = await log.head(connection, earlier)
        assert head is not None
        accepted = (await self.facts(earlier))[0]
        origin = (accepted.data.get("continues") or {}).get("origin")
        told = Continues(
            run_id=str(earlier),
            seq=head.seq,
            chain=head.chain.hex(),
            origin=origin or Origin(run_id=str(earlier), at_us=accepted.at_us),
        )
        told = told.model_copy(update=dict(continues or {}))
        version = accepted.data["workflow_version"]
        return await self.submit(workflow, {}, accepted={"continues": told, "workflow_version": version}, **limits)

    async def submit(
        self,
        workflow: str | Workflow,
        value: Mapping[str, Any],
        *,
        accepted: Mapping[str, Any] | None = None,
        **limits: Any,
    ) -> UUID:
        declared, more = WORKFLOWS[workflow] if isinstance(workflow, str) else workflow, accepted or {}
        body = orjson.dumps(value)
        event = Accepted(
            workflow=declared.name,
            workflow_version=declared.version,
            title="A run",
            input_digest=sha256(body).hexdigest(),
            input_bytes=len(body),
            caller=ADA,
            tenant="acme",
            policy=PolicyRef(version=1, digest="00"),
            milestones=list(declared.milestones),
            limits=declared.limits.model_copy(update=limits),
            trace_id="0" * 32,
        ).model_copy(update=dict(more))
        submission = catalogue.Submission(
            run_id=uuid_utils.compat.uuid7(),
            tenant_id=self._tenant,
            subject="ada",
            workflow=declared.name,
            title="A run",
            idempotency_key=None,
            body_digest=b"",
            input=body,
            accepted=new_event(event, NOW_US),
        )
        async with self.engine.begin() as connection:
            return (await catalogue.open_run(connection, submission)).run_id

    async def cancel(self, run_id: UUID, reason: str = "enough") -> log.Control:
        async with self.engine.begin() as connection:
            return await log.control(connection, run_id, new_event(CancelRequested(by=ADA, reason=reason), NOW_US))

    async def facts(self, run_id: UUID) -> list[Fact]:
        return await read_facts(self.engine, run_id)

    async def state(self, run_id: UUID) -> RunState:
        return fold(await self.facts(run_id))

    async def has(self, run_id: UUID, type_: str, **fields: Any) -> Fact:
        """Wait until an event of this type, with these fields, is recorded."""

        async def look() -> Fact | None:
            for fact in await self.facts(run_id):
                if fact.type == type_ and all(fact.data.get(name) == value for name, value in fields.items()):
                    return fact
            return None

        return await until(look, f"{type_} {fields}")

    async def began(self, run_id: UUID, times: int) -> None:
        """Wait until a worker has begun this run so many times."""

        async def look() -> bool | None:
            return sum(fact.type == "started" for fact in await self.facts(run_id)) >= times or None

        await until(look, f"started, {times} times")

    async def ended(self, run_id: UUID) -> list[Fact]:
        """Wait for the terminal event; answers the whole log, and that it is whole."""

        async def look() -> list[Fact] | None:
            facts = await self.facts(run_id)
            return facts if facts[-1].type in TERMINAL_TYPES else None

        facts = await until(look, "the end of the run")
        assert [fact.seq for fact in facts] == list(range(1, len(facts) + 1))
        assert sum(fact.type in TERMINAL_TYPES for fact in facts) == 1
        return facts


def types(facts: list[Fact]) -> list[str]:
    """The types of a log, each run of equal ones once."""
    return [fact.type for index, fact in enumerate(facts) if index == 0 or facts[index - 1].type != fact.type]
