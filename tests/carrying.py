"""Carries workflows over a log in memory: owners that die after any append, streams that break at any piece."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from pydantic import BaseModel, SecretStr

from eventstore import log
from eventstore.domain import events
from eventstore.domain.errors import Fenced
from eventstore.domain.record import PLAIN_JSON, Fact, NewEvent, Recorded
from eventstore.domain.run import RunState, fold
from eventstore.run_writer import RunWriter
from tests.histories import RUN
from tests.writing import NOW_US, accepted
from worker.declare import Workflow
from worker.history import read_history
from worker.leftovers import superseding
from worker.llm.continuing import ContinueBy
from worker.llm.model import ModelEnd, ModelFault, ModelRequest, Piece, TextPiece, ToolCallPiece
from worker.llm.retrying import RetryPolicy
from worker.run import Run
from worker.runner import carry_out
from worker.stops import Halt, WorkflowFailed
from worker.waits import read_asked
from worker.work import Graces, Provider, Work

BOUND_S = 20.0
SOON = RetryPolicy(first_wait_s=0.0, longest_wait_s=0.0, jitter_s=0.0)


class Nothing(BaseModel):
    """An input or output of which only its being there counts."""

    text: str = ""


Code = Callable[[Run, Any], Awaitable[BaseModel]]


def declared(
    fn: Code, *, code: str = "c1c1", version: int = 1, parallel: int = 8, labels: str = "Begin Look End"
) -> Workflow:
    """A workflow of this function, with a digest of our choice."""
    milestones = tuple(events.Milestone(state=label.lower(), label=label) for label in labels.split())
    return Workflow(
        name="story",
        version=version,
        title="Story",
        summary="",
        input=Nothing,
        output=Nothing,
        milestones=milestones,
        limits=events.RunLimits(run_s=180, attempts_max=3),
        partial=lambda view: None,
        title_field=None,
        parallel=parallel,
        fn=fn,
        folder=Path(__file__).parent,
        code=code,
    )


class Scripted:
    """A model that says for each question what a script has for it, and breaks where it is told to."""

    def __init__(self, script: Mapping[str, Sequence[str | ToolCallPiece]], rng: Random | None = None) -> None:
        self.script = script
        self.asked: list[str] = []
        self.requests: list[ModelRequest] = []
        self.closed: list[str] = []
        self.before: dict[
            str, list[list[str | ToolCallPiece]]
        ] = {}  # what it says at first, before it says what the script has
        self.cuts: dict[str, list[int]] = {}  # per question: how many pieces each of its first attempts says
        self.finish: dict[str, str] = {}
        self.hang: asyncio.Event | None = None
        self._rng = rng

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Piece | ModelEnd, None]:
        question = str(request.messages[-1]["content"])
        self.asked.append(question)
        self.requests.append(request)
        pieces = self.before[question].pop(0) if self.before.get(question) else self.script[question]
        cuts = self.cuts.get(question)
        cut = cuts.pop(0) if cuts else None
        try:
            for number, piece in enumerate(pieces):
                if number == cut:
                    raise ModelFault("stream_incomplete", "It broke.", retryable=True)
                for _ in range(self._rng.randrange(4) if self._rng else 1):
                    await asyncio.sleep(0)
                yield TextPiece(piece) if isinstance(piece, str) else piece
            if cut is not None and cut >= len(pieces):
                raise ModelFault("stream_incomplete", "It broke.", retryable=True)
            if self.hang is not None:
                await self.hang.wait()
            finish = self.finish.get(question) or (
                "stop" if all(isinstance(piece, str) for piece in pieces) else "tool_calls"
            )
            yield ModelEnd(finish, finish, None, None, None, None, None, 0.0, len(pieces))
        finally:
            self.closed.append(question)

    async def aclose(self) -> None:
        """Nothing to close."""


@dataclass
class Carried:
    """One run in memory, over all of its owners."""

    workflow: Workflow
    model: Scripted = field(default_factory=lambda: Scripted({}))
    rng: Random | None = None
    facts: list[Fact] = field(default_factory=list)
    epoch: int = 0
    work: Work | None = None
    own: "asyncio.Task[BaseException | None] | None" = None
    retries: RetryPolicy = SOON
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    continue_by: ContinueBy = "ask"
    secrets: Mapping[str, SecretStr] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.add(events.new_event(accepted().model_copy(update={"workflow_version": self.workflow.version}), NOW_US))

    def add(self, event: NewEvent) -> None:
        """One more event, as the log would keep it."""
        seq = len(self.facts) + 1
        at_us = NOW_US + seq * 1_000
        self.facts.append(
            Recorded(
                RUN, seq, self.epoch, event.type, event.version, at_us, at_us, PLAIN_JSON, None, event.body, b""
            ).fact()
        )

    async def carry(self, die_at: int | None = None, workflow: Workflow | None = None) -> BaseException | None:
        """Let an owner carry the run, until it ends or `die_at` is stored; answers how the code ended, if badly."""
        self.epoch += 1
        self.begun.clear()
        dirty, died = asyncio.Event(), asyncio.Event()
        writer = RunWriter(RUN, self.epoch, lambda: NOW_US, lambda _: dirty.set())
        store = asyncio.create_task(self._store(writer, dirty, died, die_at))
        own = self.own = asyncio.create_task(self._own(writer, workflow or self.workflow))
        dead = asyncio.create_task(died.wait())
        try:
            async with asyncio.timeout(BOUND_S):
                await asyncio.wait([own, dead], return_when=asyncio.FIRST_COMPLETED)
            if not own.done():  # it is dead, and so are all of its branches
                writer.fail(Fenced())
                if self.work is not None:
                    self.work.stop("lost")
                own.cancel()
                await asyncio.wait([own])
                return None
            return own.result()
        finally:
            for task in (store, dead, own):
                task.cancel()
            await asyncio.gather(store, dead, own, return_exceptions=True)

    async def _own(self, writer: RunWriter, workflow: Workflow) -> BaseException | None:
        history = read_history(self.facts)
        started = events.Started(
            attempt=self.epoch, worker="test", code=workflow.code, workflow_version=workflow.version
        )
        writer.push(started)
        for body in superseding(history):
            writer.push(body)
        await writer.flush()
        history.begin(writer.last_us)
        provider = Provider(self.model, "scripted", self.retries, continue_by=self.continue_by)
        graces = Graces(clean_up_s=0.2, effect_s=0.2)
        work = Work(
            workflow,
            writer,
            history,
            provider,
            lambda: NOW_US,
            attempt=self.epoch,
            asked=read_asked(self.facts),
            graces=graces,
            secrets=self.secrets,
        )
        self.work = work
        self.begun.set()
        try:
            output = await carry_out(work, Nothing())
        except WorkflowFailed as fault:
            await writer.record(
                events.Error(code=fault.code, message=fault.message, partial={}, retryable=False, call=fault.call)
            )
            return fault
        except (Halt, Exception) as fault:  # noqa: BLE001 - the test looks at it
            return work.halt or fault
        if work.halt is not None:
            return work.halt
        await writer.record(events.Result(output=output.model_dump(mode="json"), counts={}, usage=work.usage))
        return None

    async def _store(self, writer: RunWriter, dirty: asyncio.Event, died: asyncio.Event, die_at: int | None) -> None:
        while True:
            await dirty.wait()
            dirty.clear()
            while writer.has_events:
                for _ in range(self.rng.randrange(3) if self.rng else 1):
                    await asyncio.sleep(0)
                limit = self.rng.randrange(1, 4) if self.rng else 1
                batch = writer.take(limit)
                first = len(self.facts) + 1
                for event in batch.events:
                    if die_at is not None and len(self.facts) >= die_at:
                        break
                    self.add(event)
                if die_at is not None and len(self.facts) >= die_at:
                    died.set()  # what is stored stays, but nobody learns of it
                    return
                last = self.facts[-1]
                answer = log.Answer(writer.run_id, "ok", first, last.seq, last.at_us, "running", False)
                writer.settle(batch, answer)

    @property
    def state(self) -> RunState:
        """What the log folds to."""
        return fold(self.facts)

    def of(self, type_: str) -> list[Fact]:
        """The events of one type."""
        return [fact for fact in self.facts if fact.type == type_]

    def closed(self) -> list[str]:
        """The names of the calls that were closed and not taken back, in order."""
        dead = [(first, last) for fact in self.of("retry") for first, last in fact.data["superseded"]]
        return [
            fact.data["key"]
            for fact in self.facts
            if fact.type in ("step", "model_call", "tool_result", "finding", "validation")
            and fact.data.get("status") != "intent"
            and not any(first <= fact.seq <= last for first, last in dead)
        ]


def told(state: RunState) -> dict[str, Any]:
    """What must not depend on who died on the way, nor on what came first where nothing says what does."""
    return {
        "status": state.status,
        "result": state.result and state.result["output"],
        "error": state.error and state.error["code"],
        "sections": {name: "".join(piece.text for piece in pieces) for name, pieces in state.sections.items()},
        "findings": {item: dict(value) for item, (_, value) in state.findings.items()},
        "tools": sorted(str(value["call_id"]).rpartition("/")[0] for _, value in state.tools.values()),
        "milestone": state.milestone and (state.milestone["label"], state.milestone.get("done")),
    }
