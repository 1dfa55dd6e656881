"""What event bodies are made of: models that several of them share, each closed like the bodies themselves."""

from collections.abc import Mapping
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

# A run is not stopped for want of readers sooner: they must have the time to come back, or to ask again as advised.
UNREAD_S_MIN: Final = 5.0


class Person(BaseModel):
    """Who: a pseudonymous subject and the role in which they acted."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    subject: str
    role: str


class Usage(BaseModel):
    """Tokens spent, and how we know: told by the provider, estimated by us, or unknown. The cost is in millionths of a
    US dollar by this price table; tokens of a model without a price are told apart: it is then more than is said."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    source: Literal["provider", "estimated", "none"] = "none"
    cached_tokens: int | None = None
    cost_micro_usd: int | None = None
    unpriced_tokens: int | None = None
    prices: str | None = None

    @classmethod
    def told(cls, data: Mapping[str, Any]) -> "Usage":
        """As an event tells it; what a newer release says of it besides is left out."""
        return cls.model_validate({name: value for name, value in data.items() if name in cls.model_fields})

    def __add__(self, other: "Usage") -> "Usage":
        rank = ("none", "provider", "estimated")
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
            source=max(self.source, other.source, key=rank.index),
            cached_tokens=_sum(self.cached_tokens, other.cached_tokens),
            cost_micro_usd=_sum(self.cost_micro_usd, other.cost_micro_usd),
            unpriced_tokens=_sum(self.unpriced_tokens, other.unpriced_tokens),
            prices=max(self.prices or "", other.prices or "") or None,
        )


def _sum(one: int | None, other: int | None) -> int | None:
    """What nobody tells stays untold."""
    return None if one is None and other is None else (one or 0) + (other or 0)


class Milestone(BaseModel):
    """One step of the plan in product language."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    state: str
    label: str


class PolicyRef(BaseModel):
    """Which disclosure policy was in force when the run was accepted."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    version: int
    digest: str


class RunLimits(BaseModel):
    """What a run may take at most: reached, each ends it as `limit_<name>`. An absent one has its default, or none."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    run_s: float
    attempts_max: int
    step_s: float | None = None
    first_byte_s: float | None = None
    between_pieces_s: float | None = None
    turns_max: int | None = None
    tool_calls_max: int | None = None
    tool_failures_max: int | None = None
    output_bytes_max: int | None = None
    events_max: int | None = None
    hold_chars_max: int | None = None
    parallel: int | None = None
    on_end_s: float | None = None
    tokens_max: int | None = None
    cost_micro_usd: int | None = None


class OnDisconnect(BaseModel):
    """Stop a run that nobody has read for this long. While it waits for a person, only if that is said too."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    cancel_after_s: float = Field(ge=UNREAD_S_MIN, le=86_400)
    while_waiting: bool = False


class ParentRun(BaseModel):
    """The run that asked for this one, by which of its calls, and how many runs stand above."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    run_id: str
    key: str
    depth: int


class ChildRun(BaseModel):
    """A run that this one asked for, what becomes of it when this one is stopped, and where its log ended."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    run_id: str
    workflow: str
    on_cancel: Literal["cancel", "keep"]
    status: Literal["completed", "failed", "cancelled"] | None = None
    seq: int | None = None
    chain: str | None = None


class Origin(BaseModel):
    """The first run of those that continue each other: what a run makes up by itself comes from its id and its time."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    run_id: str
    at_us: int


class Continues(BaseModel):
    """The run that this one takes up: where its log ended, and the first run of all that continue each other."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    run_id: str
    seq: int
    chain: str
    origin: Origin


class Taken(BaseModel):
    """Where an event stands that this one was taken over from, and when it was stored there. `last`: none follows."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    run_id: str
    seq: int
    at_us: int
    last: bool | None = None


class Decided(BaseModel):
    """What somebody decided in an earlier run. It is told as what it came to, not as a decision about this run."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    because: Literal["answered", "wait_over"]
    by: Person
    choice: str | None = None
    answer: Any = None
    note: str | None = None
    call_id: str | None = None
    arguments_digest: str | None = None
