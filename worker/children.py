"""Runs that a run asks for: opened once, waited for without a worker, and stopped with it unless they shall go on.

The child's id is in the parent's log before the child is opened, and opening it again under that id changes nothing. So
whoever carries the parent after a crash finds the same child. When the child ends, the database wakes the parent; the
parent's log then tells the child's last seq and chain hash, so that its own chain proves the child's end as well.
"""

import tomllib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Literal
from uuid import UUID

import orjson
import structlog
import uuid_utils.compat
from pydantic import BaseModel, TypeAdapter, ValidationError
from sqlalchemy.ext.asyncio import AsyncEngine

from eventstore import children, log
from eventstore.domain import events
from eventstore.domain.disclosure import Policy, policy_from
from eventstore.domain.errors import Fenced, PolicyError
from eventstore.domain.lifecycle import TERMINAL_STATUSES
from eventstore.domain.record import Fact
from eventstore.domain.run import RunState
from eventstore.workflow_folders import POLICY
from worker.asking import refuse_under_stream
from worker.branches import Branch
from worker.declare import Workflow
from worker.digests import plain
from worker.memo import Call
from worker.steps import recall
from worker.stops import Misused, Site, WorkflowFailed
from worker.work import Work

DEPTH_MAX: Final = 8
LOOK_S: Final = 1.0  # while other branches of the parent work on
LOOK_AGAIN_S: Final = 300.0  # a parent that rests is woken by its child's end; this stands behind that
INPUT_BYTES_MAX: Final = 262_144
SERVICE: Final = events.Person(subject="runwire", role="service")

logger = structlog.get_logger(__name__)

OnCancel = Literal["cancel", "keep"]
HandOver = Callable[..., Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Order:
    """What a workflow asks for."""

    workflow: str
    value: Any
    returns: TypeAdapter[Any]
    on_cancel: OnCancel


@dataclass(frozen=True, slots=True)
class End:
    """How a child ended."""

    head: log.Head
    last: Fact

    def told(self, child: events.ChildRun) -> dict[str, Any]:
        """As the parent's log tells it."""
        data, status = self.last.data, self.head.status
        told: dict[str, Any] = {"status": "ok", "output": data.get("output")}
        if status != "completed":
            code = data["code"] if status == "failed" else "child_cancelled"
            message = data["message"] if status == "failed" else "The run that was asked for was cancelled."
            output = {"code": code, "retryable": data.get("retryable", False), "raised": ""}
            told = {"status": "failed", "error": message, "output": output}
        seen = {"status": status, "seq": self.head.seq, "chain": self.head.chain.hex()}
        return {**told, "child": child.model_copy(update=seen)}


class Children:
    """The way from a run's owner to the runs below it."""

    def __init__(
        self,
        engine: AsyncEngine,
        workflows: Mapping[str, Workflow],
        policies: Path,
        clock_us: Callable[[], int],
        hand_over: HandOver | None,
    ) -> None:
        self._engine = engine
        self._workflows = workflows
        self._policies = policies
        self._clock_us = clock_us
        self._hand_over = hand_over

    async def end_of(self, run_id: UUID) -> End | None:
        """How it ended, if it has."""
        async with self._engine.connect() as connection:
            head = await log.head(connection, run_id)
            if head is None or head.status not in TERMINAL_STATUSES:
                return None
            page = await log.read_after(connection, run_id, head.seq - 1)
        return End(head, page.events[-1].fact())

    async def open(self, work: Work, call: Call, child: events.ChildRun, order: Order) -> str:
        """Open it, unless it is open: the log's verdict. Raises WorkflowFailed when this run may not have it."""
        run_id = UUID(child.run_id)
        async with self._engine.connect() as connection:
            if await log.head(connection, run_id) is not None:
                return "ok"
        wanted = self._wanted(work.history.accepted, call, child, order, work.writer.run_id)
        asking = children.Asking(work.writer.run_id, work.writer.epoch, call.key)
        async with self._engine.begin() as connection:
            verdict = await children.open_child(connection, asking, wanted)
        if verdict == "ok":
            await self.hand_over(run_id)
        return verdict

    async def hand_over(self, *run_ids: UUID) -> None:
        """Say that somebody may begin them. Without it the sweep finds them."""
        if self._hand_over is not None:
            await self._hand_over(*run_ids)

    def check(self, accepted: Fact, order: Order) -> tuple[Workflow, Policy, bytes]:
        """What the API asks of whoever starts a run, asked of the one for whom the parent runs."""
        workflow = self._workflows.get(order.workflow)
        if workflow is None:
            raise WorkflowFailed("workflow_unknown", f"There is no workflow {order.workflow}.")
        policy = self._policy(workflow)
        if accepted.data["caller"]["role"] not in policy.submit:
            raise WorkflowFailed("child_refused", f"Who started this run may not start {order.workflow}.")
        if (accepted.data.get("parent") or {}).get("depth", 0) >= DEPTH_MAX:
            raise WorkflowFailed("child_refused", f"More than {DEPTH_MAX} runs would stand one below the other.")
        body = orjson.dumps(order.value)
        try:
            workflow.input.model_validate_json(body)
        except ValidationError as fault:
            raise WorkflowFailed("child_refused", f"The input does not fit {order.workflow}.") from fault
        if len(body) > INPUT_BYTES_MAX:
            raise WorkflowFailed("child_refused", f"The input of {order.workflow} is larger than it may be.")
        return workflow, policy, body

    def _policy(self, workflow: Workflow) -> Policy:
        beside = workflow.folder / POLICY
        file = beside if beside.is_file() else self._policies / f"{workflow.name}.toml"
        try:
            return policy_from(tomllib.loads(file.read_text(encoding="utf-8")), str(file))
        except (OSError, ValueError, PolicyError) as fault:
            logger.error("a child has no policy that can be read", workflow=workflow.name, file=str(file))
            raise WorkflowFailed("child_refused", f"No policy lets anybody start {workflow.name}.") from fault

    def _wanted(
        self, accepted: Fact, call: Call, child: events.ChildRun, order: Order, parent: UUID
    ) -> children.ChildRun:
        workflow, policy, body = self.check(accepted, order)
        above = accepted.data
        named = (
            order.value.get(workflow.title_field) if workflow.title_field and isinstance(order.value, dict) else None
        )
        title = named if isinstance(named, str) and named.strip() else workflow.title
        depth = (above.get("parent") or {}).get("depth", 0) + 1
        told = events.Accepted(
            workflow=workflow.name,
            workflow_version=workflow.version,
            title=title[:200],
            input_digest=sha256(body).hexdigest(),
            input_bytes=len(body),
            caller=events.Person.model_validate(above["caller"]),
            tenant=above["tenant"],
            policy=events.PolicyRef(version=policy.version, digest=policy.digest()),
            milestones=list(workflow.milestones),
            limits=workflow.limits,
            trace_id=above["trace_id"],
            parent=events.ParentRun(run_id=str(parent), key=call.key, depth=depth),
        )
        event = events.new_event(told, self._clock_us())
        return children.ChildRun(UUID(child.run_id), workflow.name, title[:200], body, event)

    async def stop(self, parent: UUID, epoch: int, state: RunState) -> None:
        """The parent ends: those that end with it are asked to."""
        why = state.cancel or {}
        by = events.Person.model_validate(why["by"]) if "by" in why else SERVICE
        reason = (
            f"with the run that asked for it: {why['reason']}" if "reason" in why else "the run that asked for it ended"
        )
        event = events.new_event(events.CancelRequested(by=by, reason=reason), self._clock_us())
        for told in state.children.values():
            if told.get("status") is None and told.get("on_cancel") == "cancel":
                run_id = UUID(told["run_id"])
                async with self._engine.begin() as connection:
                    answer = await children.stop_child(connection, parent, epoch, run_id, event)
                if answer.verdict == "fenced":
                    raise Fenced
                if answer.verdict == "ok":
                    await self.hand_over(run_id)


async def ask_child(work: Work, branch: Branch, site: Site, name: str, order: Order) -> Any:
    """What the child's result is. Its failure is raised, the same one after a crash."""
    async with work.calling(branch, "step", name, site, order.workflow, order.value, order.on_cancel) as call:
        if call.before is not None:
            return recall(call, order.returns)
        refuse_under_stream(branch, name, site)
        await work.outside(branch)
        if work.children is None:
            raise Misused(f"{site}: no run can be opened from here")
        try:
            told = await _told(work, work.children, branch, call, name, order)
        except WorkflowFailed as fault:  # it was never opened
            output = {"code": fault.code, "retryable": fault.retryable, "raised": ""}
            told = {"status": "failed", "error": fault.message, "output": output}
        fact = await work.close(branch, events.Step(name=name, **told, **call.closing()))
        return recall(Call(call.key, call.place, call.args, call.attempt, call.under, fact), order.returns)


async def _told(work: Work, below: Children, branch: Branch, call: Call, name: str, order: Order) -> dict[str, Any]:
    intent = work.history.intents.get(call.key)
    if intent is None:
        below.check(work.history.accepted, order)
        run_id = str(uuid_utils.compat.uuid7())
        child = events.ChildRun(run_id=run_id, workflow=order.workflow, on_cancel=order.on_cancel)
        await work.intend(branch, events.Step(name=name, status="intent", child=child, **call.closing()))
    else:
        child = events.ChildRun.model_validate(intent.fact.data["child"])
    run_id_ = UUID(child.run_id)
    verdict = await below.open(work, call, child, order)
    if verdict == "fenced":
        raise Fenced
    if verdict == "stopping":
        await work.waits.wait(branch, call.key, work.writer.last_us)
    if verdict != "ok":
        raise WorkflowFailed("child_refused", f"The log refuses to open {order.workflow}: {verdict}.")
    end = await below.end_of(run_id_)
    if end is None:
        due_us = work.writer.last_us + round(LOOK_AGAIN_S * 1e6)
        end = await work.waits.until(branch, call.key, due_us, lambda: below.end_of(run_id_), LOOK_S)
    return end.told(child)


def child_order(workflow: str, value: BaseModel | Mapping[str, Any], returns: Any, on_cancel: OnCancel) -> Order:
    """What is asked for, as JSON says it."""
    return Order(workflow, plain(value), TypeAdapter(returns), on_cancel)
