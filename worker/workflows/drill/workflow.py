"""A run made to order: so many milestones, pieces, tool calls and findings at such a pace, and a fault if wanted."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from eventstore.domain.events import RunLimits
from worker.declare import Check, RunView, tool, workflow
from worker.run import Run
from worker.stops import WorkflowFailed

MILESTONES = ("Warming up", "Speaking", "Asking around", "Finding things", "Checking", "Done")
SECTION = "drill"
WORDS = ("the", "log", "keeps", "every", "event", "in", "the", "order", "in", "which", "it", "was", "told")


class Order(BaseModel):
    """What the drill shall do. A fault happens once, in the run's first attempt, at the piece that `fail_at` names."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    pieces: int = Field(default=200, ge=0, le=200_000, description="pieces of draft text")
    rate_per_s: float = Field(default=50.0, ge=0, le=100_000, description="pieces per second; 0 is as fast as it goes")
    phase: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="where between two beats of the machine's clock this drill's pieces lie: drills with different "
        "phases make an even load together; without one the beat begins with the drill",
    )
    text_bytes: int = Field(default=24, ge=1, le=4_096, description="length of a piece")
    steps: int = Field(default=1, ge=1, le=100, description="durable steps that the pieces are spread over")
    milestones: int = Field(default=6, ge=1, le=6, description="how many of the milestones are told")
    tool_calls: int = Field(default=1, ge=0, le=1_000)
    findings: int = Field(default=1, ge=0, le=1_000)
    questions: int = Field(default=0, ge=0, le=100, description="questions to the operator, one after the other")
    wait_s: float = Field(default=3_600.0, gt=0, le=86_400, description="how long each question waits for an answer")
    sleep_s: float = Field(default=0.0, ge=0, le=86_400, description="how long the drill sleeps before it speaks")
    fail_at: int | None = Field(default=None, ge=0, description="the piece before which the fault happens")
    fault: Literal["error", "kill", "hang", "validation"] = Field(
        default="error", description="error: the run fails. kill: the worker dies. hang: the code stops answering."
    )


class Report(BaseModel):
    """What the drill did."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    pieces: int
    characters: int
    tool_calls: int
    findings: int


class Sighting(BaseModel):
    """A finding that means nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    number: int
    note: str


@tool(timeout_s=5.0, shown=("number",))
async def look_up(number: int) -> list[str]:
    """A tool that finds as many things as its number says, up to three."""
    return list(WORDS[: number % 4])


def piece(number: int, length: int) -> str:
    """The text of one piece: words, always the same for the same number."""
    return (WORDS[number % len(WORDS)] + " ").ljust(length, ".")[:length] if length > 1 else "."


def best_partial(view: RunView) -> dict[str, object]:
    """What was said so far."""
    return {"characters": len(view.text(SECTION)), "findings": len(view.findings)}


async def _fault(order: Order) -> None:
    if order.fault == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif order.fault == "hang":
        await asyncio.Event().wait()
    elif order.fault == "error":
        raise WorkflowFailed("drill", "The drill was ordered to fail here.", retryable=True)


def first_beat(order: Order, now: float) -> float:
    """When the first piece is due: now, or at the next moment of the machine's clock that has the ordered phase."""
    if order.phase is None or not order.rate_per_s:
        return now
    period_s = 1 / order.rate_per_s
    return now + (order.phase * period_s - now) % period_s


def speech(order: Order, first: int, count: int, *, faulty: bool) -> Callable[[], AsyncIterator[str]]:
    """The pieces of one step at the ordered pace, measured from its start so that waits do not add up."""

    async def speak() -> AsyncIterator[str]:
        loop = asyncio.get_running_loop()
        began = first_beat(order, loop.time())
        for number in range(first, first + count):
            if faulty and number == order.fail_at:
                await _fault(order)
            if order.rate_per_s:
                wait_s = began + (number - first) / order.rate_per_s - loop.time()
                if wait_s > 0:
                    await asyncio.sleep(wait_s)
            elif number % 64 == 0:
                await asyncio.sleep(0)
            yield piece(number, order.text_bytes)

    return speak


@workflow(
    "drill",
    version=1,
    title="Drill",
    summary="Emits events to order, without a model: for load tests, fire drills and demos.",
    input=Order,
    output=Report,
    milestones=MILESTONES,
    partial=best_partial,
    limits=RunLimits(run_s=3_600.0, attempts_max=3, tool_calls_max=1_000, events_max=1_000_000),
)
async def drill(run: Run, order: Order) -> Report:
    """Do as ordered."""
    told = iter(MILESTONES[: order.milestones])

    async def tell() -> None:
        if label := next(told, None):
            await run.milestone(label)

    await tell()
    if order.sleep_s:
        await run.sleep("rest", order.sleep_s)
    for number in range(order.questions):
        await run.ask(
            f"question-{number}",
            f"Question {number + 1} of {order.questions}: go on?",
            to="operator",
            choices=("yes", "no"),
            wait_s=order.wait_s,
            default="yes",
        )
    await tell()
    said, share = "", -(-order.pieces // order.steps)
    for number in range(order.steps):
        first = number * share
        count = max(0, min(share, order.pieces - first))
        faulty = order.fail_at is not None and run.attempt == 1
        said += await run.draft("speak", speech(order, first, count, faulty=faulty), first, count, section=SECTION)
    await tell()
    for number in range(order.tool_calls):
        await run.tool(look_up, number=number)
    await tell()
    for number in range(order.findings):
        await run.finding(Sighting(number=number, note=piece(number, 24)), item=str(number))
    await tell()
    report = Report(pieces=order.pieces, characters=len(said), tool_calls=order.tool_calls, findings=order.findings)
    await run.validate(
        report,
        [
            Check("everything was said", lambda r: r.characters == order.pieces * order.text_bytes),
            Check("no fault was ordered", lambda r: order.fault != "validation"),
        ],
    )
    await tell()
    return report
