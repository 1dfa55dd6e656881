"""All that a workflow's own code needs, in one place: `from worker.author import Check, Run, RunView, workflow`."""

from eventstore.domain.events import RunLimits
from worker.declare import CancelAfter, Check, RunView, Tool, tool, workflow
from worker.holding import Redaction
from worker.questions import Spoken
from worker.run import Run
from worker.stops import ValidationFailed, WorkflowFailed
from worker.toolbox import ToolContext

__all__ = [
    "CancelAfter",
    "Check",
    "Redaction",
    "Run",
    "RunLimits",
    "RunView",
    "Spoken",
    "Tool",
    "ToolContext",
    "ValidationFailed",
    "WorkflowFailed",
    "tool",
    "workflow",
]
