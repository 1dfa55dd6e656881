"""What can be run: the workflows that workers have registered, asked for at most every other second."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final

import structlog
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from pydantic import BaseModel, ValidationError
from referencing import Registry
from sqlalchemy.ext.asyncio import AsyncEngine

from api.callers import Caller
from api.policies import Policies
from eventstore import catalogue
from eventstore.domain.events import Milestone, OnDisconnect, RunLimits
from eventstore.domain.manifest import Manifest, Sample

FRESH_S: Final = 2.0

logger = structlog.get_logger(__name__)


class Workflow(BaseModel):
    """A workflow as callers are told of it."""

    name: str
    version: int
    title: str
    summary: str
    milestones: list[Milestone]
    input_schema: dict[str, Any]
    output_schema: dict[str, Any]
    samples: list[Sample]
    limits: RunLimits
    on_disconnect: OnDisconnect | None


class WorkflowList(BaseModel):
    """The workflows that the caller may start."""

    workflows: list[Workflow]


@dataclass(frozen=True, slots=True)
class Offer:
    """A registered workflow, ready to judge an input."""

    name: str
    version: int
    manifest: Manifest
    validator: Draft202012Validator

    def public(self) -> Workflow:
        """As callers are told of it."""
        return Workflow(name=self.name, version=self.version, **self.manifest.model_dump(exclude={"title_field"}))


class Offers:
    """The registered workflows, asked for again when they are older than FRESH_S."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._lock = asyncio.Lock()
        self._offers: dict[str, Offer] = {}
        self._until = 0.0
        self._unreadable: set[tuple[str, int]] = set()  # told of once

    async def all(self) -> Mapping[str, Offer]:
        """Every workflow that some worker can run."""
        if monotonic() >= self._until:
            async with self._lock:
                if monotonic() >= self._until:
                    async with self._engine.connect() as connection:
                        registered = await catalogue.workflows(connection)
                    read = (self._read(one) for one in registered)
                    self._offers = {offer.name: offer for offer in read if offer is not None}
                    self._until = monotonic() + FRESH_S
        return self._offers

    async def startable(self, policies: Policies, caller: Caller) -> list[Offer]:
        """Those that this caller may start."""
        offers = await self.all()
        return [
            offer
            for name, offer in offers.items()
            if (policy := policies.of(name)) is not None and caller.role in policy.submit
        ]

    def _read(self, one: catalogue.Registered) -> Offer | None:
        known = self._offers.get(one.name)
        try:
            manifest = Manifest.model_validate(one.manifest)
            if known is not None and known.version == one.version and known.manifest == manifest:
                return known
            Draft202012Validator.check_schema(manifest.input_schema)
        except (ValidationError, SchemaError) as fault:
            if (one.name, one.version) not in self._unreadable:
                self._unreadable.add((one.name, one.version))
                logger.error("a registered workflow cannot be read", workflow=one.name, fault=type(fault).__name__)
            return None
        # An empty registry: a schema that points outside itself is an error, never a download.
        validator = Draft202012Validator(manifest.input_schema, registry=Registry())
        return Offer(one.name, one.version, manifest, validator)
