"""Draft text on its way into the log: every piece of one attempt, and what is dead if the attempt fails."""

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import aclosing
from typing import Literal

from eventstore.domain import events
from eventstore.domain.intake import clean_text
from eventstore.domain.record import Fact
from eventstore.run_writer import Entry, RunWriter
from worker.facts import fact_of
from worker.history import Opened, ranges
from worker.holding import Guard
from worker.llm.continuing import Joint
from worker.llm.model import Model as Speaker
from worker.llm.model import ModelEnd, ModelFault, ModelRequest, ReasoningPiece, TextPiece, ToolCallPiece
from worker.provenance import prompt_chars

Shape = Literal["text", "json"]


class Attempt:
    """One attempt at a call that speaks: its pieces go to the log while it goes on."""

    def __init__(
        self, writer: RunWriter, key: str, section: str, shape: Shape, number: int, kept: Opened | None = None
    ) -> None:
        self._writer = writer
        self.key = key
        self._section = section
        self._shape: Shape = shape
        self.number = number
        self.heard = 0  # characters that the model has said, thinking and what is held back included: they are paid for
        self.prompt_chars = 0  # what it was asked, which is paid for as well
        self._ranges: list[tuple[int, int]] = []  # where the stored pieces are
        self._waiting: deque[Entry] = deque()
        self._texts: list[str] = []
        self.resume: Literal["continue"] | None = None  # set where whoever takes the call up goes on after this text
        if kept is not None:  # what was said before a worker was lost, and stands
            self._ranges, self._texts = ranges(kept.seqs), [*kept.pieces]
        self.calls: list[ToolCallPiece] = []  # the tools that it asked for
        self._asked: list[tuple[Entry, events.ToolCall]] = []

    @property
    def text(self) -> str:
        """What this attempt has said so far."""
        return "".join(self._texts)

    async def say(self, text: str) -> str:
        """One piece of draft text; gives it as it is stored."""
        text, number = clean_text(text), self.number
        self._texts.append(text)

        def body(joined: str) -> events.Token:
            return events.Token(
                text=joined,
                section=self._section,
                step=self.key,
                attempt=number,
                shape=self._shape,
                resume=self.resume,
            )

        self._keep(await self._writer.push_piece(("token", self.key, str(self.number)), text, body))
        return text

    async def think(self, text: str) -> None:
        """One piece of the model's thinking."""
        number = self.number

        def body(joined: str) -> events.Reasoning:
            return events.Reasoning(text=joined, step=self.key, attempt=number)

        self._keep(await self._writer.push_piece(("reasoning", self.key, str(self.number)), clean_text(text), body))

    def ask(self, body: events.ToolCall) -> None:
        """One tool that the model asked for: told when its answer is over, so that it is there whole or not at all."""
        entry = self._writer.push(body)
        self._asked.append((entry, body))
        self._keep(entry)

    def asked(self) -> tuple[Fact, ...]:
        """What it asked for as the log has it; asked once all of it is stored."""
        return tuple(fact_of(entry, body) for entry, body in self._asked)

    def _keep(self, entry: Entry) -> None:
        if not self._waiting or self._waiting[-1] is not entry:
            self._waiting.append(entry)
        while self._waiting[0].seq is not None and len(self._waiting) > 1:
            self._told(self._waiting.popleft().seq)

    def _told(self, seq: int | None) -> None:
        """Long speeches have many pieces: only where they are is kept, not each of them."""
        if seq is None:
            return
        if self._ranges and self._ranges[-1][1] + 1 == seq:
            self._ranges[-1] = (self._ranges[-1][0], seq)
        else:
            self._ranges.append((seq, seq))

    async def said(self) -> list[tuple[int, int]]:
        """Where in the log all of this attempt's pieces are; waits until they are there."""
        while self._waiting:
            await self._writer.stored(self._waiting[0])
            self._told(self._waiting.popleft().seq)
        return list(self._ranges)


class Speech:
    """A model's answer on its way into the log. What its reader gets is what the log gets, in the same words."""

    def __init__(
        self,
        speaker: Speaker,
        request: ModelRequest,
        attempt: Attempt,
        guard: Guard | None = None,
        joint: Joint | None = None,
    ) -> None:
        self.end: ModelEnd | None = None
        self._speaker = speaker
        self._request = request
        self._attempt = attempt
        self._answer = guard.holder() if guard else None
        self._thinking = guard.holder() if guard else None
        self._joint = joint
        attempt.prompt_chars = prompt_chars(request)

    async def texts(self) -> AsyncGenerator[str, None]:
        """Give each piece of text once it is on its way. Leaving early, by a stop above all, closes the connection.

        What is held back when the answer ends in any other way than well was never said: nobody gets it.
        """
        attempt = self._attempt
        pieces: AsyncGenerator[object, None] = self._speaker.stream(self._request)
        async with aclosing(pieces):
            async for piece in pieces:
                if isinstance(piece, TextPiece):
                    attempt.heard += len(piece.text)
                    if self._thinking is not None and self._thinking.holds:
                        await self._think(self._thinking.close())
                    for text in self._passed(self._joint.feed(piece.text) if self._joint else piece.text):
                        yield await attempt.say(text)
                elif isinstance(piece, ReasoningPiece):
                    attempt.heard += len(piece.text)
                    await self._think(self._thinking.feed(piece.text) if self._thinking else (piece.text,))
                elif isinstance(piece, ToolCallPiece):
                    attempt.heard += len(piece.name) + len(piece.arguments)
                    attempt.calls.append(piece)
                elif isinstance(piece, ModelEnd):
                    self.end = piece
                    break
        if self.end is None:
            raise ModelFault("stream_incomplete", "The model's answer ended without saying why.", retryable=True)
        if self._joint is not None:
            for text in self._passed(self._joint.close()):
                yield await attempt.say(text)
        if self._answer is not None and self._thinking is not None and self.end.finish in {"stop", "tool_calls"}:
            await self._think(self._thinking.close())
            for text in self._answer.close():
                yield await attempt.say(text)

    def _passed(self, text: str) -> Iterable[str]:
        """What of a piece may go now."""
        if not text:
            return ()
        return self._answer.feed(text) if self._answer else (text,)

    async def _think(self, texts: Iterable[str]) -> None:
        for text in texts:
            await self._attempt.think(text)


async def listen(
    speaker: Speaker,
    request: ModelRequest,
    attempt: Attempt,
    guard: Guard | None = None,
    joint: Joint | None = None,
) -> ModelEnd:
    """Read a model's stream into the log to its end."""
    speech = Speech(speaker, request, attempt, guard, joint)
    async with aclosing(speech.texts()) as texts:
        async for _ in texts:
            pass
    assert speech.end is not None
    return speech.end


async def recite(source: AsyncIterator[str], attempt: Attempt) -> None:
    """Read text that is not a model's into the log."""
    async for text in source:
        await attempt.say(text)
