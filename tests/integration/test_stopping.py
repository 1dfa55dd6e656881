"""A stop reaches whatever a run is doing, and what is left is handed over whatever its workflow makes of it."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Final

import pytest

from tests.carrying import Nothing
from tests.staging import Stage
from worker.declare import RunView, tool
from worker.run import Run

Part = Callable[[Run], Awaitable[object]]

RELEASED: Final = threading.Event()
HANGING: Final = threading.Event()


def hangs_in_a_thread() -> None:
    HANGING.set()
    RELEASED.wait(30)


async def hangs() -> None:
    HANGING.set()
    await asyncio.Event().wait()


@tool(timeout_s=60.0)
async def oracle() -> str:
    await hangs()
    return "never"


async def thread_step(run: Run) -> None:
    await run.step("wait", hangs_in_a_thread)


async def step(run: Run) -> None:
    await run.step("wait", hangs)


async def asked_tool(run: Run) -> None:
    await run.tool(oracle)


async def code_itself(run: Run) -> None:
    await hangs()


async def branches(run: Run) -> None:
    async def look(run: Run, word: str) -> None:
        await run.step("wait", hangs)

    await run.each(["a", "b"], look, key=str)


async def model(run: Run) -> None:
    HANGING.set()
    await run.model("tell", [{"role": "user", "content": "a"}], section="a")


async def question(run: Run) -> None:
    await run.ask("sure", "Sure?", to="reviewer", choices=("yes", "no"))


async def long_sleep(run: Run) -> None:
    await run.sleep("night", 3_600.0)


def kept_before(part: Part) -> Callable[[Run, Nothing], Awaitable[Nothing]]:
    async def story(run: Run, given: Nothing) -> Nothing:
        await run.finding(Nothing(text="kept"), item="1")
        await part(run)
        return await run.validate(Nothing(), [])

    return story


async def hanging() -> None:
    assert await asyncio.to_thread(HANGING.wait, 15)


@pytest.fixture(autouse=True)
def hung() -> Any:
    HANGING.clear()
    RELEASED.clear()
    yield
    RELEASED.set()


@pytest.mark.parametrize("part", [thread_step, step, asked_tool, code_itself, branches, model])
async def test_a_stop_reaches_whatever_holds_a_worker(stage: Stage, part: Part) -> None:
    stage.model.hang = asyncio.Event()
    stage.play(kept_before(part))
    run_id = await stage.submit()
    task = stage.own(run_id)
    async with asyncio.timeout(20):
        await stage.runs.has(run_id, "finding")
        await hanging()
        await stage.runs.cancel(run_id)
        await task
    facts = await stage.runs.ended(run_id)
    assert facts[-1].type == "cancelled"
    assert facts[-1].data["partial"]["findings"] == [{"text": "kept"}]
    assert [fact.data["status"] for fact in facts if fact.type == "step"] in ([], ["intent"])


@pytest.mark.parametrize("part", [question, long_sleep])
async def test_a_stop_reaches_a_run_that_rests(stage: Stage, part: Part) -> None:
    stage.play(kept_before(part))
    run_id = await stage.submit()
    await stage.once(run_id)
    await stage.runs.cancel(run_id)
    facts = await stage.ended(run_id)
    assert facts[-1].type == "cancelled"
    assert facts[-1].data["partial"]["findings"] == [{"text": "kept"}]


def raises(view: RunView) -> None:
    raise LookupError("a mistake of the author's")


def blocks(view: RunView) -> None:
    RELEASED.wait(30)


@pytest.mark.parametrize("partial", [raises, blocks])
async def test_a_partial_that_raises_or_hangs_is_done_without(stage: Stage, partial: Callable[[RunView], Any]) -> None:
    stage.play(kept_before(question), partial=partial)
    run_id = await stage.submit()
    await stage.once(run_id)
    await stage.runs.cancel(run_id)
    async with asyncio.timeout(15):
        facts = await stage.ended(run_id)
    end = facts[-1]
    assert (end.type, end.data["assembled_by"]) == ("cancelled", "default")
    assert end.data["partial"]["findings"] == [{"text": "kept"}]
