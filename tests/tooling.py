"""Tools that tell what was made of them, and models that ask for them."""

from collections.abc import Sequence
from random import Random
from typing import Any

from tests.carrying import Carried, Nothing, Scripted, declared
from worker.declare import tool
from worker.llm.model import ToolCallPiece
from worker.run import Run
from worker.stops import WorkflowFailed

MADE: list[str] = []


@tool(reads_only=True, shown=("word",))
async def look_up(word: str, limit: int = 3) -> list[str]:
    """Finds as many things as the word has letters."""
    MADE.append(f"look_up {word}")
    return list(word)[:limit]


@tool(shown=("text",))
async def note(text: str) -> str:
    MADE.append(f"note {text}")
    return f"noted: {text}"


@tool()
async def fail(why: str) -> str:
    MADE.append(f"fail {why}")
    raise WorkflowFailed("failed", why)


def ask(question: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": question}]


def call(name: str, arguments: str, number: int = 0, id_: str = "") -> ToolCallPiece:
    return ToolCallPiece(number, id_ or f"id_{name}_{number}", name, arguments)


FIRST: list[str | ToolCallPiece] = [
    "Let me ",
    "see. ",
    call("look_up", '{"word":"abcd"}'),
    call("look_up", '{"word":"xy"}', 1),
]


SECOND: list[str | ToolCallPiece] = ["Noting.", call("note", '{"text":"four"}')]


SCRIPT: dict[str, Sequence[str | ToolCallPiece]] = {
    "go": FIRST,
    '["x","y"]': SECOND,
    "noted: four": ["It ", "is ", "four."],
}


async def ends(run: Run, text: str) -> Nothing:
    return await run.validate(Nothing(text=text), [])


async def story(run: Run, _: Nothing) -> Nothing:
    before = await run.step("before", str, 1)
    said = await run.model("agent", ask("go"), section="answer", tools=[look_up, note, fail])
    return await ends(run, f"{before} {said.text} {said.turns}")


def carried_with(code: Any = story, script: Any = SCRIPT, seed: int | None = None) -> Carried:
    rng = None if seed is None else Random(seed)
    return Carried(declared(code), Scripted(script, rng), rng)


def output(carried: Carried) -> Any:
    return carried.of("result")[0].data["output"]["text"]


class Answering(dict[str, Any]):
    """A script that says one thing first and another one whatever it is asked after that."""

    def __init__(self, first: Any, then: Any) -> None:
        super().__init__({"go": first})
        self._then = then

    def __missing__(self, question: str) -> Any:
        return self._then
