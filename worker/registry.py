"""The workflows that this release can run."""

from worker.declare import Workflow
from worker.workflows.agent.workflow import agent
from worker.workflows.contract_review.workflow import contract_review
from worker.workflows.drill.workflow import drill

WORKFLOWS: dict[str, Workflow] = {workflow.name: workflow for workflow in (agent, contract_review, drill)}
