"""The routes that tell what can be run, to those who may start it."""

from fastapi import APIRouter

from api.errors import NotFound
from api.offers import Workflow, WorkflowList
from api.service import Asked, Who

router = APIRouter(prefix="/v1/workflows", tags=["workflows"])


@router.get("", summary="The workflows that you may start")
async def list_workflows(service: Asked, caller: Who) -> WorkflowList:
    offers = await service.offers.startable(service.policies, caller)
    return WorkflowList(workflows=[offer.public() for offer in offers])


@router.get("/{name}", summary="One workflow: milestones, input and output schema, samples, limits")
async def show_workflow(service: Asked, caller: Who, name: str) -> Workflow:
    offers = await service.offers.startable(service.policies, caller)
    for offer in offers:
        if offer.name == name:
            return offer.public()
    raise NotFound("There is no workflow of this name that you may start.", allowed=[offer.name for offer in offers])
