"""A stop reaches whatever a run does or waits for, and no assembler of partial results can hold up the end."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final, Literal

import pytest
from pydantic import BaseModel, ConfigDict

from runwire_testing.author import Author
from worker.author import Check, Run, RunView, tool, workflow
from worker.declare import Workflow
from worker.registry import WORKFLOWS
from worker.steps import Retry

pytest_plugins = ("runwire_testing.plugin",)

Kind = Literal["thread", "step", "retry", "tool", "model", "stream", "ask", "sleep", "branches"]
KINDS: Final[tuple[Kind, ...]] = ("thread", "step", "retry", "tool", "model", "stream", "ask", "sleep", "branches")
LONG_S: Final = 3_600.0
RELEASED: Final = threading.Event()
ENDED: Final = threading.Event()


class Order(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Kind


class Done(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Kind


def hold_a_thread() -> str:
    RELEASED.wait(60)
    ENDED.set()
    return "far too late"


async def for_ever() -> None:
    await asyncio.Event().wait()


def refuse() -> None:
    raise ConnectionError


@tool(timeout_s=LONG_S)
async def nobody_answers() -> None:
    await asyncio.Event().wait()


def prompt() -> list[dict[str, str]]:
    return [{"role": "user", "content": "Task: say nothing for ever"}]


async def read(run: Run) -> None:
    async for _ in run.model("speak", prompt(), section="draft").text():
        pass


async def both(run: Run) -> None:
    parts: dict[str, Callable[[Run], Awaitable[Any]]] = {
        "first": lambda run: run.step("long", for_ever),
        "second": lambda run: run.ask("go on", "Go on?", to="operator", choices=("yes",)),
    }
    await run.gather(parts)


DOES: Final[dict[Kind, Callable[[Run], Awaitable[Any]]]] = {
    "thread": lambda run: run.step("long", hold_a_thread, timeout_s=59),
    "step": lambda run: run.step("long", for_ever, timeout_s=59),
    "retry": lambda run: run.step("again", refuse, retry=Retry(3, first_wait_s=LONG_S, longest_wait_s=LONG_S)),
    "tool": lambda run: run.tool(nobody_answers),
    "model": lambda run: run.model("speak", prompt(), section="draft"),
    "stream": read,
    "ask": lambda run: run.ask("go on", "Go on?", to="operator", choices=("yes",)),
    "sleep": lambda run: run.sleep("rest", 100.0),
    "branches": both,
}


def best(view: RunView) -> dict[str, object]:
    return {"findings": len(view.findings)}


def raises(view: RunView) -> dict[str, object]:
    raise KeyError("nobody thought of this")


def hangs(view: RunView) -> dict[str, object]:
    RELEASED.wait(60)
    return {"findings": "far too late"}


def obeying(partial: Callable[[RunView], dict[str, object]]) -> Workflow:
    @workflow(
        "obeying",
        version=1,
        title="Obeying",
        summary="Does one thing that takes very long.",
        input=Order,
        output=Done,
        milestones=("Beginning",),
        partial=partial,
    )
    async def obey(run: Run, order: Order) -> Done:
        await run.milestone("Beginning")
        await run.finding(Done(kind=order.kind), item="begun")
        await DOES[order.kind](run)
        return await run.validate(Done(kind=order.kind), [Check("done", lambda done: True)])

    return obey


@pytest.fixture
def obeys(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The workflow is known, with the assembler that a test asks for."""
    RELEASED.clear()
    ENDED.clear()
    monkeypatch.setitem(WORKFLOWS, "obeying", obeying(getattr(request, "param", best)))
    yield
    RELEASED.set()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_stop_reaches_whatever_a_run_does_or_waits_for(obeys: None, author: Author, kind: Kind) -> None:
    author.model.say("say nothing for ever", "It says this, and then nothing.")
    author.model.hang("say nothing for ever", after_pieces=3)
    run = await author.start("obeying", {"kind": kind})
    begun = {"retry": "retry", "tool": "tool_call", "model": "token", "stream": "token", "ask": "escalation"}
    await run.until(begun.get(kind, "finding"))
    await run.cancel()
    ended = await run.end()
    assert (ended.status, ended.partial) == ("cancelled", {"findings": 1})
    asked, end = (
        next(fact for fact in ended.facts if fact.type == type_) for type_ in ("cancel_requested", "cancelled")
    )
    assert end.at_us - asked.at_us < 20_000_000
    assert end.data["assembled_by"] == "workflow"


async def test_what_a_thread_says_after_the_end_is_nowhere(obeys: None, author: Author) -> None:
    run = await author.start("obeying", {"kind": "thread"})
    await run.until("finding")
    await run.cancel()
    before = await run.end()
    RELEASED.set()
    assert await asyncio.to_thread(ENDED.wait, 30)
    assert (await run.end()).facts == before.facts
    assert not any(fact.type == "step" for fact in before.facts)


@pytest.mark.parametrize("obeys", [raises, hangs], indirect=True)
async def test_an_assembler_that_raises_or_hangs_is_answered_by_the_default_in_time(
    obeys: None, author: Author
) -> None:
    run = await author.start("obeying", {"kind": "step"})
    await run.until("finding")
    await run.cancel()
    ended = await run.end()
    assert ended.status == "cancelled"
    end = ended.facts[-1].data
    assert end["assembled_by"] == "default"
    assert end["partial"]["findings"] == [{"kind": "step"}]
    asked = next(fact for fact in ended.facts if fact.type == "cancel_requested")
    assert ended.facts[-1].at_us - asked.at_us < 20_000_000
