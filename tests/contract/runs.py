"""Runs for the contract: legal histories, drawn at random, that end; written to a real log as a worker would."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

from hypothesis import strategies as st
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from api.fronts.feed import Feed, View
from eventstore import log, wakeups
from eventstore.domain.disclosure import Role
from eventstore.domain.events import Body, Cancelled, Error, Person, Result, Token, Usage, new_event
from eventstore.domain.lifecycle import CONTROL_TYPES, TABLE, TERMINAL_TYPES, Status, next_status
from eventstore.domain.record import NewEvent, Recorded
from eventstore.tail import Entry
from tests.contract.readers import FRONTS, Reader
from tests.histories import histories
from tests.serving import Api
from tests.writing import NOW_US, claim, events_of, open_run

ADA = Person(subject="ada", role="user")
ENDS: dict[str, Body] = {
    "result": Result(output={"ok": True}, counts={}, usage=Usage()),
    "cancelled": Cancelled(reason="enough", by=ADA, partial={"a": "b"}, missing=[], assembled_by="default"),
    "error": Error(code="model_failed", message="No.", partial={}, retryable=True),
}


def _events(history: Sequence[Recorded]) -> list[NewEvent]:
    return [NewEvent(event.type, event.version, event.occurred_us, event.body) for event in history]


@st.composite
def ended_runs(draw: st.DrawFn) -> list[NewEvent]:
    """Everything after `accepted`, with a terminal event at the end."""
    history = _events(draw(histories(events_max=16)))[1:]
    status: Status = "queued"
    for event in history:
        status = next_status(status, event.type) or status
    if not history or history[-1].type not in TERMINAL_TYPES:
        end = draw(st.sampled_from(sorted(set(TABLE[status]) & TERMINAL_TYPES)))
        history.append(new_event(ENDS[end], NOW_US))
    return history


@dataclass
class Written:
    """One run in the making: what is to be stored, and how far it is."""

    api_engine: AsyncEngine
    worker_engine: AsyncEngine
    run_id: UUID
    to_come: list[NewEvent]
    redis: Redis | None = None
    _batch: int = 0
    _epoch: int = 0

    async def write(self, most: int | None = None) -> None:
        """Store the next events, all by default, and wake the readers."""
        now, self.to_come = self.to_come[:most], self.to_come[most:] if most is not None else []
        while now:
            if now[0].type in CONTROL_TYPES:
                async with self.api_engine.begin() as connection:
                    told = await log.control(connection, self.run_id, now.pop(0))
                assert told.verdict == "ok", told
                continue
            mine = now[: next((place for place, one in enumerate(now) if one.type in CONTROL_TYPES), len(now))]
            now = now[len(mine) :]
            await self._append(mine)
        if self.redis is not None:
            await wakeups.publish(self.redis, wakeups.MOVED, wakeups.moved_payload([(self.run_id, 1 << 30)]))

    async def _append(self, events: list[NewEvent]) -> None:
        if not self._epoch:
            self._epoch = await self._claim()
        told = await self._store(events)
        assert told.verdict == "ok", told

    async def _claim(self) -> int:
        epoch = (await claim(self.worker_engine, self.run_id)).epoch
        assert epoch is not None
        return epoch

    async def _store(self, events: list[NewEvent]) -> log.Answer:
        self._batch += 1
        async with self.worker_engine.begin() as connection:
            [told] = await log.append(connection, [log.Batch(self.run_id, self._epoch, self._batch, events)], 30.0)
        return told

    async def die(self) -> None:
        """The worker is gone: another one takes over, and what the first still wants to store is not stored."""
        async with self.worker_engine.begin() as connection:
            await log.release(connection, self.run_id, self._epoch)
        epoch = await self._claim()
        late = await self._store([new_event(Token(text="late", section="s", step="d#1", attempt=1), NOW_US)])
        assert late.verdict == "fenced"
        self._epoch, self._batch = epoch, 0


@dataclass
class Stage:
    """A serving API, with a log behind it that the test writes."""

    api: Api
    api_engine: AsyncEngine
    worker_engine: AsyncEngine
    redis: Redis

    async def begin(self, events: list[NewEvent]) -> Written:
        """An accepted run of ada's."""
        caller = await self.api.service.keys.caller(self.api.key("user", "ada"))
        opened = await open_run(self.api_engine, caller.tenant_id)
        return Written(self.api_engine, self.worker_engine, opened.run_id, list(events), self.redis)

    def view(self, role: Role) -> View:
        return self.api.service.policies.view("contract_review", role)

    async def expected(self, run_id: UUID, role: Role) -> list[bytes]:
        """What every front must give this role: the log, through the policy, once."""
        async with self.api_engine.connect() as connection:
            stored = await events_of(connection, run_id)
        return [frame.data for frame in Feed(self.view(role), 0).take([Entry(event) for event in stored])]

    @asynccontextmanager
    async def reader(self, front: str, role: Role, run_id: UUID, limit: int = 3) -> AsyncIterator[Reader]:
        """A reader of this front and role. The recording is watched by an officer, through the role's eyes."""
        holder: Role = "officer" if front == "replay" else role
        async with self.api.client(holder, "ada") as client:
            yield FRONTS[front](client, run_id, limit=limit, role=role)
