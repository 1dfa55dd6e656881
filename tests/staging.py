"""Workflows of any shape, carried over the real log by owners that can die."""

import asyncio
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from eventstore.domain.record import Fact
from tests.carrying import Code, Scripted, declared
from tests.owning import Owner, free, new_owner
from tests.running import Runs
from worker.llm.prices import own_prices
from worker.registry import WORKFLOWS
from worker.runner import advance
from worker.settings import WorkerSettings


class Stage:
    """Where a workflow is carried."""

    def __init__(self, runs: Runs, engine: AsyncEngine, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
        self.runs = runs
        self.prices = own_prices()
        self.more: dict[str, Any] = {}  # what else owners work with
        self.model = Scripted({"a": ["A1 ", "A2 "], "b": ["B1 ", "B2 "]})
        self._engine = engine
        self._redis = redis
        self._monkeypatch = monkeypatch
        self._owners: list[tuple[Owner, asyncio.Task[None]]] = []

    def play(self, code: Code, digest: str = "c1c1", name: str = "story", **more: Any) -> None:
        self._monkeypatch.setitem(WORKFLOWS, name, replace(declared(code, code=digest), name=name, **more))

    async def submit(self, **limits: Any) -> UUID:
        return await self.runs.submit("story", {}, **limits)

    def own(self, run_id: UUID, handover: asyncio.Event | None = None) -> "asyncio.Task[None]":
        settings = WorkerSettings(grace_s=0.2, effect_grace_s=0.2)
        owner = new_owner(self._engine, self._redis, self.model, settings, prices=self.prices, **self.more)
        task = asyncio.create_task(advance(owner.bench, run_id, handover or asyncio.Event()))
        self._owners.append((owner, task))
        return task

    async def die(self, run_id: UUID) -> None:
        owner, task = self._owners.pop()
        await owner.die(task)
        await free(self._engine, run_id)

    async def once(self, run_id: UUID) -> None:
        """One owner's whole time with it."""
        await self.own(run_id)
        owner, task = self._owners.pop()
        await owner.die(task)

    async def ended(self, run_id: UUID) -> list[Fact]:
        await self.once(run_id)
        return await self.runs.ended(run_id)

    async def close(self) -> None:
        for owner, task in self._owners:
            await owner.die(task)
