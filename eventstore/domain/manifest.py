"""What a worker says of a workflow when it registers it, and what the API reads: the one shape that both share."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from eventstore.domain.events import Milestone, OnDisconnect, RunLimits


class Sample(BaseModel):
    """An input to try a workflow with."""

    model_config = ConfigDict(frozen=True)
    name: str
    title: str
    input: dict[str, Any]


class Manifest(BaseModel):
    """A workflow from outside: plan, models, limits. A newer worker may say more than an older API reads."""

    model_config = ConfigDict(frozen=True)
    title: str
    summary: str
    milestones: list[Milestone]
    input_schema: dict[str, Any]
    output_schema: dict[str, Any]
    samples: list[Sample] = Field(default_factory=list)
    limits: RunLimits
    title_field: str | None = None
    on_disconnect: OnDisconnect | None = None
    resumes: tuple[int, ...] | None = None  # the versions whose runs this code carries; older releases do not say
