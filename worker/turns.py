"""A model call with tools: turn by turn, until the model answers instead of asking.

Each turn is a call of its own in the log: `assess#1`, then `assess#1.2`, `assess#1.3`; the tools that a turn asked for
are `assess#1.2:1`, `assess#1.2:2`. A turn is there whole or not at all: what it asked for is stored before the event
that closes it, and no tool starts before that. What the next turn is asked is made from the log alone, by
`messages_after`, in this process as in one that resumes the run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from worker.branches import Branch
from worker.limits import LimitReached
from worker.orders import order_of
from worker.questions import Question, Spoken
from worker.speaking import finished, say_turn
from worker.tools import DENIED, answer_all
from worker.work import Work


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn that asked for tools, as the log has it: what it said, what it asked for and what that came to."""

    text: str
    calls: tuple[Mapping[str, Any], ...]
    results: tuple[Mapping[str, Any], ...]


def messages_after(first: Sequence[Mapping[str, Any]], turns: Sequence[Turn]) -> tuple[Mapping[str, Any], ...]:
    """What a model is asked after these turns, in the words of chat completions."""
    return (*first, *(message for turn in turns for message in _messages(turn)))


def _messages(turn: Turn) -> list[Mapping[str, Any]]:
    asked = [
        {"id": _id(call), "type": "function", "function": {"name": call["tool"], "arguments": _arguments(call)}}
        for call in turn.calls
    ]
    answers = [
        {"role": "tool", "tool_call_id": _id(call), "content": _content(result)}
        for call, result in zip(turn.calls, turn.results, strict=True)
    ]
    return [{"role": "assistant", "content": turn.text or None, "tool_calls": asked}, *answers]


def _id(call: Mapping[str, Any]) -> str:
    """The name that the provider gave the call: some take no other."""
    return str(call.get("provider_id") or call["call_id"])


def _arguments(call: Mapping[str, Any]) -> str:
    written = call.get("written")
    return str(written) if written is not None else orjson.dumps(call["arguments"]).decode()


def _content(result: Mapping[str, Any]) -> str:
    output = result.get("output")
    if isinstance(output, str):
        return output
    return orjson.dumps(output).decode() if output is not None else str(result["summary"])


class Dialog:
    """One call of the workflow's code, over its turns. `question` is what is asked next."""

    def __init__(self, work: Work, branch: Branch, question: Question) -> None:
        self.question = question
        self._work = work
        self._branch = branch
        self._first = question.request.messages
        self._name: str | None = None
        self._turns: list[Turn] = []
        self._failed = 0  # tool calls, one after the other

    async def goes_on(self, key: str, said: Spoken) -> bool:
        """After a turn of this name: whether another follows. The tools that it asked for have answered then."""
        question, limits = self.question, self._work.limits
        if said.finish != "tool_calls" or not question.tools:
            return False
        if question.turn >= limits.turns_max:
            raise LimitReached("turns_max")
        self._name = self._name or key
        asked = self._work.memo.calls(key)
        orders = [order_of(fact.data, question.tools) for fact in asked]
        facts = await answer_all(self._work, self._branch, question.site, question.name, orders)
        results = tuple(fact.data for fact in facts)
        self._count(results)
        self._turns.append(Turn(said.text, tuple(fact.data for fact in asked), results))
        request = replace(question.request, messages=messages_after(self._first, self._turns))
        turn = question.turn + 1
        self.question = replace(question, request=request, turn=turn, key=f"{self._name}.{turn}")
        return True

    def ended(self, key: str, said: Spoken) -> Spoken:
        """The last turn, if it was said to its end."""
        return replace(finished(key, said, self.question.on_length), turns=self.question.turn, key=key)

    def _count(self, results: Sequence[Mapping[str, Any]]) -> None:
        """Failures one after the other; what a person did not allow is none."""
        for result in results:
            if result["status"] == "ok":
                self._failed = 0
            elif result["summary"] != DENIED:
                self._failed += 1
                if self._failed > self._work.limits.tool_failures_max:
                    raise LimitReached("tool_failures_max")


async def say_all(work: Work, branch: Branch, question: Question) -> Spoken:
    """A model call that is awaited as a whole, over all of its turns."""
    dialog = Dialog(work, branch, question)
    while True:
        key, said = await say_turn(work, branch, dialog.question)
        if not await dialog.goes_on(key, said):
            return dialog.ended(key, said)
