"""The workflows that this release can run."""

from worker.declare import Workflow
from worker.workflows.agent.workflow import agent
from worker.workflows.clinical_note.workflow import clinical_note
from worker.workflows.code_review.workflow import code_review
from worker.workflows.contract_review.workflow import contract_review
from worker.workflows.drill.workflow import drill
from worker.workflows.market_analysis.workflow import market_analysis
from worker.workflows.policy_document.workflow import policy_document

WORKFLOWS: dict[str, Workflow] = {
    workflow.name: workflow
    for workflow in (agent, contract_review, clinical_note, code_review, market_analysis, policy_document, drill)
}
