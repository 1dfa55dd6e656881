"""What a branch lets a model say: text for the draft, or a value of a type, whole or while it comes."""

from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from eventstore.domain import events, intake
from eventstore.domain.errors import NotStorable
from worker.branches import Branch
from worker.declare import Tool
from worker.holding import Hold, Redaction, guard_of
from worker.items import Items, Partials
from worker.llm.model import ModelRequest
from worker.questions import OnLength, Question, Resume
from worker.reading import Pieces, Prompted
from worker.speaking import attempts
from worker.speech import Attempt, Shape, recite
from worker.stops import Site, WorkflowFailed, caller
from worker.toolbox import offered
from worker.turns import say_all
from worker.work import Work

M = TypeVar("M", bound=BaseModel)

JSON_OBJECT: Final[Mapping[str, Any]] = {"response_format": {"type": "json_object"}}


class Talk:
    """The part of a run's calls that speaks with a model."""

    def __init__(self, work: Work, branch: Branch) -> None:
        self._work = work
        self._branch = branch

    def model(
        self,
        name: str,
        messages: Sequence[Mapping[str, Any]],
        *,
        section: str,
        shape: Shape = "text",
        parameters: Mapping[str, Any] | None = None,
        hold: Hold | None = None,
        redact: Sequence[Redaction] = (),
        tools: Sequence[Tool] = (),
        on_length: OnLength = "offer",
        resume: Resume = "again",
    ) -> Prompted:
        """Let a model speak into a section of the draft: await all of it, or read its `text()` while it comes.

        Text goes on only after `hold` lets it and without what `redact` matches: to the log and to the caller alike.
        A broken attempt is retried and its text is dead. Where it was read, the branch runs again as well.
        With `tools` it goes on in turns: what the model asks of them is called, and it is asked again with the answers.

        At its length limit the call fails and what it said stays (`offer`), goes on (`continue`), or is what it said so
        far (`keep`). With `resume="continue"` a cut answer is gone on with, also by another worker: nothing is dead.
        """
        question = self._question(name, messages, section, shape, parameters, caller(), tools)
        guard = guard_of(hold, redact, self._work.limits.hold_chars_max)
        return Prompted(self._work, self._branch, replace(question, guard=guard, on_length=on_length, resume=resume))

    def _question(
        self,
        name: str,
        messages: Sequence[Mapping[str, Any]],
        section: str,
        shape: Shape,
        parameters: Mapping[str, Any] | None,
        site: Site,
        tools: Sequence[Tool] = (),
    ) -> Question:
        request = ModelRequest(self._work.provider.name, tuple(messages), parameters or {}, offered(tools))
        return Question(name, request, section, shape, site, tools=tuple(tools))

    def items(
        self,
        name: str,
        messages: Sequence[Mapping[str, Any]],
        output: type[M],
        field: str,
        *,
        section: str = "values",
    ) -> Items[M]:
        """Let a model say a value of this type, and read the items of one of its lists, each once it is closed."""
        return Items(self._typed(name, messages, section, caller()), output, field)

    def partials(
        self, name: str, messages: Sequence[Mapping[str, Any]], output: type[M], *, section: str = "values"
    ) -> Partials[M]:
        """Let a model say a value of this type, and read its fields as they close."""
        return Partials(self._typed(name, messages, section, caller()), output)

    def _typed(self, name: str, messages: Sequence[Mapping[str, Any]], section: str, site: Site) -> Pieces:
        question = self._question(name, messages, section, "json", JSON_OBJECT, site)
        return Prompted(self._work, self._branch, question).text()

    def value(
        self,
        name: str,
        messages: Sequence[Mapping[str, Any]],
        output: type[M],
        *,
        section: str = "values",
        tools: Sequence[Tool] = (),
        parameters: Mapping[str, Any] | None = None,
        resume: Resume = "again",
    ) -> Coroutine[Any, Any, M]:
        """Let a model say a value of this type, with `tools` in turns like `model`. Its JSON is kept apart from the
        draft text that people read. One that reaches its length limit is asked for once more, with more room."""
        said = {**JSON_OBJECT, **(parameters or {})}
        question = self._question(name, messages, section, "json", said, caller(), tools)
        return self._value(replace(question, resume=resume), output)

    async def _value(self, question: Question, output: type[M]) -> M:
        said = await say_all(self._work, self._branch, question)
        try:
            return output.model_validate(intake.parse(said.text.encode(), 1_048_576))
        except (ValidationError, NotStorable) as fault:
            message = "The model's answer does not have the form that was asked for."
            raise WorkflowFailed("malformed", message, retryable=True).of(said.key) from fault

    def draft(
        self, name: str, source: Callable[[], AsyncIterator[str]], *args: Any, section: str
    ) -> Coroutine[Any, Any, str]:
        """Draft text that the workflow's own code speaks, piece by piece; otherwise like `model`."""
        return self._draft(name, source, args, section, caller())

    async def _draft(
        self, name: str, source: Callable[[], AsyncIterator[str]], args: tuple[Any, ...], section: str, site: Site
    ) -> str:
        work, branch = self._work, self._branch
        async with work.calling(branch, "step", name, site, *args) as call:
            if call.before is not None:
                return "".join(work.memo.pieces(call.key))
            await work.outside(branch)

            async def speak(attempt: Attempt) -> str:
                await recite(source(), attempt)
                closing = {**call.closing(), "attempt": attempt.number}
                body = events.Step(name=name, status="ok", output={"chars": len(attempt.text)}, **closing)
                await work.close(branch, body, said=attempt.said, pieces=lambda: (attempt.text,))
                return attempt.text

            return await attempts(work, branch, call, (section, "text"), speak)
