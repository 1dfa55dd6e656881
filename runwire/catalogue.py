"""Every type of event; written by `python -m ops.client_events`, never by hand."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from runwire import bodies
from runwire.event import Event


@dataclass(frozen=True, slots=True)
class AcceptedEvent(Event):
    """A run was accepted, and on what terms."""

    data: bodies.Accepted


@dataclass(frozen=True, slots=True)
class StartedEvent(Event):
    """A worker took the run up: the first one, or the next one after a crash."""

    data: bodies.Started


@dataclass(frozen=True, slots=True)
class ProgressEvent(Event):
    """A milestone was reached."""

    data: bodies.Progress


@dataclass(frozen=True, slots=True)
class ReasoningEvent(Event):
    """A piece of the model's thinking."""

    data: bodies.Reasoning


@dataclass(frozen=True, slots=True)
class TokenEvent(Event):
    """A piece of draft text."""

    data: bodies.Token


@dataclass(frozen=True, slots=True)
class ToolCallEvent(Event):
    """A tool is about to be called."""

    data: bodies.ToolCall


@dataclass(frozen=True, slots=True)
class ToolResultEvent(Event):
    """A tool has answered."""

    data: bodies.ToolResult


@dataclass(frozen=True, slots=True)
class FindingEvent(Event):
    """One interim result, of a shape that the workflow defines."""

    data: bodies.Finding


@dataclass(frozen=True, slots=True)
class StepEvent(Event):
    """A durable step is about to act, has succeeded or has failed."""

    data: bodies.Step


@dataclass(frozen=True, slots=True)
class ModelCallEvent(Event):
    """A call to a model has ended well; its pieces stand before this event."""

    data: bodies.ModelCall


@dataclass(frozen=True, slots=True)
class RetryEvent(Event):
    """Something failed; what it had said so far is taken back."""

    data: bodies.Retry


@dataclass(frozen=True, slots=True)
class ValidationEvent(Event):
    """The result was checked."""

    data: bodies.Validation


@dataclass(frozen=True, slots=True)
class EscalationEvent(Event):
    """A person is asked."""

    data: bodies.Escalation


@dataclass(frozen=True, slots=True)
class DecisionEvent(Event):
    """A question has its answer, the only one it will ever have."""

    data: bodies.Decision


@dataclass(frozen=True, slots=True)
class CancelRequestedEvent(Event):
    """Somebody asked the run to stop."""

    data: bodies.CancelRequested


@dataclass(frozen=True, slots=True)
class CancelObservedEvent(Event):
    """The worker saw the request and stopped the model."""

    data: bodies.CancelObserved


@dataclass(frozen=True, slots=True)
class ResultEvent(Event):
    """The run ended with its validated result."""

    data: bodies.Result


@dataclass(frozen=True, slots=True)
class CancelledEvent(Event):
    """The run ended because somebody asked for it."""

    data: bodies.Cancelled


@dataclass(frozen=True, slots=True)
class ErrorEvent(Event):
    """The run failed for good."""

    data: bodies.Error


EVENTS: Final[Mapping[str, type[Event]]] = {
    "accepted": AcceptedEvent,
    "started": StartedEvent,
    "progress": ProgressEvent,
    "reasoning": ReasoningEvent,
    "token": TokenEvent,
    "tool_call": ToolCallEvent,
    "tool_result": ToolResultEvent,
    "finding": FindingEvent,
    "step": StepEvent,
    "model_call": ModelCallEvent,
    "retry": RetryEvent,
    "validation": ValidationEvent,
    "escalation": EscalationEvent,
    "decision": DecisionEvent,
    "cancel_requested": CancelRequestedEvent,
    "cancel_observed": CancelObservedEvent,
    "result": ResultEvent,
    "cancelled": CancelledEvent,
    "error": ErrorEvent,
}
