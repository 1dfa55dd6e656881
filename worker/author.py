"""All that a workflow's own code needs, in one place: `from worker.author import Check, Run, RunView, workflow`."""

from eventstore.domain.events import RunLimits
from worker.declare import Check, RunView, Tool, tool, workflow
from worker.questions import Spoken
from worker.run import Run
from worker.stops import ValidationFailed, WorkflowFailed
from worker.toolbox import ToolContext

__all__ = [
    "Check",
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
