"""The model of an author's tests: it says what a script says, fails where a test wants it to, and guesses nothing."""

from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from worker.llm.model import Model, ModelEnd, ModelFault, ModelRequest, Piece
from worker.llm.scripted_faults import Fault
from worker.llm.scripted_rules import NO_RULE, Rule, ScriptedCall, answered, prompt_text
from worker.llm.scripted_server import ScriptedServer

SHOWN_CHARS = 600


class ScriptedModel:
    """What the model of one test says. `when` is a regular expression that is looked for in the prompt."""

    def __init__(self, server: ScriptedServer, rules: Sequence[Rule]) -> None:
        self._server = server
        self._from_files = tuple(rules)
        self._said: list[Rule] = []
        self.unscripted: list[str] = []
        self._tell()

    def say(
        self,
        when: str,
        text: str,
        *,
        reasoning: str = "",
        finish: str | None = None,
        calls: Sequence[tuple[str, Mapping[str, Any]]] = (),
        cut_at: int | None = None,
    ) -> None:
        """Answer prompts like this with this text, and with calls of tools: each a name and its arguments. What was
        said last in a test comes before all else. With `cut_at` the first answer breaks off after so many pieces."""
        rule = Rule(
            name=f"said by the test: {when}",
            when=(when,),
            reasoning=reasoning,
            say=text,
            finish=finish,
            tool_calls=tuple(ScriptedCall(name=name, arguments=dict(arguments)) for name, arguments in calls),
        )
        self._said.insert(0, rule)
        self._tell()
        if cut_at is not None:
            self.cut(when, after_pieces=cut_at)

    def cut(self, when: str, *, after_pieces: int, times: int = 1) -> None:
        """Break the connection of the next answers to prompts like this, after so many pieces."""
        self.fail(when, "cut", after_pieces=after_pieces, times=times)

    def hang(self, when: str, *, after_pieces: int = 0) -> None:
        """Let the next answer to a prompt like this fall silent after so many pieces, for good."""
        self.fail(when, "hang", after_pieces=after_pieces)

    def fail(self, when: str, kind: str, *, after_pieces: int = 0, times: int = 1) -> None:
        """Any fault that the scripted model knows: a status such as "429" or "500", "reset", "malformed" and so on."""
        self._server.faults.add(Fault(kind=kind, when=when, after_pieces=after_pieces, times=times))

    def heal(self) -> None:
        """Take back the faults that nobody has met yet."""
        self._server.faults.clear()

    def knows(self, request: ModelRequest) -> bool:
        """Whether a script answers this; if not, it is kept for the test's end."""
        prompt = prompt_text(request.messages)
        if answered(self._rules, request.messages).rule != NO_RULE:
            return True
        self.unscripted.append(prompt[-SHOWN_CHARS:])
        return False

    @property
    def _rules(self) -> tuple[Rule, ...]:
        return (*self._said, *self._from_files)

    def _tell(self) -> None:
        self._server.script(self._rules)


@dataclass(frozen=True, slots=True)
class Asked:
    """One question of a run: the prompt, its how-manieth time, and in how many pieces it was answered."""

    prompt: str
    time: int
    pieces: int


@dataclass(frozen=True, slots=True)
class Cut:
    """Where a run's model is to be cut off: at which question, after how many pieces."""

    asked: Asked
    after_pieces: int


class WatchedModel:
    """One run's way to the model. It counts, it can be cut off or forbidden, and it lets nothing unscripted through."""

    def __init__(self, model: Model, script: ScriptedModel, *, cut: Cut | None = None, forbidden: bool = False) -> None:
        self._model = model
        self._script = script
        self._cut = cut
        self._forbidden = forbidden
        self._answered: Counter[str] = Counter()
        self.asked: list[Asked] = []

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Piece | ModelEnd, None]:
        """The model's own answer, as far as it may be heard."""
        prompt = prompt_text(request.messages)
        if self._forbidden:
            raise ModelFault("provider_refused", "A replay asked the model.", retryable=False)
        if not self._script.knows(request):
            raise ModelFault("provider_refused", "No script answers this prompt.", retryable=False)
        time, pieces = self._answered[prompt] + 1, 0
        bound = None
        if self._cut is not None and (self._cut.asked.prompt, self._cut.asked.time) == (prompt, time):
            bound, self._cut = self._cut.after_pieces, None  # once; the next attempt is answered
        async with aclosing(self._model.stream(request)) as answered:
            async for piece in answered:
                if bound is not None and pieces >= bound:
                    raise ModelFault("connection", "The test cut the connection.", retryable=True)
                pieces += not isinstance(piece, ModelEnd)
                if isinstance(piece, ModelEnd):
                    self._answered[prompt] = time
                    self.asked.append(Asked(prompt, time, pieces))
                yield piece

    async def aclose(self) -> None:
        """The connections are the author's, not the run's."""
