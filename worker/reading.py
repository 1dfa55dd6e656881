"""Streams that a workflow reads while they come, and what is taken back when one breaks.

Whoever reads a stream has acted on half of it. So when it breaks, everything that the branch made since its first piece
is taken back with it, and the branch's code runs again from its beginning (`groups.live`); what it did before the
stream is answered from the memory. The pieces that a reader is given are those of the log, so that code which runs
again reads the same ones.
"""

import asyncio
from collections.abc import Callable, Generator
from itertools import chain
from typing import Any, Final, NoReturn, TypeVar

from eventstore.domain.events import Usage
from eventstore.run_writer import Entry
from worker.branches import Branch, Broken
from worker.hearing import goes_on, hear, let_go
from worker.history import REWOUND, Opened, Range, joined
from worker.llm.model import ModelEnd, ModelFault
from worker.llm.retrying import RetryPolicy
from worker.memo import Call
from worker.provenance import dead_usage, estimated
from worker.questions import Question, Spoken
from worker.speaking import STOPPED, asking, model_call, recalled
from worker.speech import Attempt, Shape
from worker.stops import Misused, Rewind, WorkflowFailed
from worker.turns import Dialog, say_all
from worker.work import Storing, Work, look_at

T = TypeVar("T")

LEFT: Final = "left"  # the finish of a stream that was not read to its end
WITH_IT: Final = (REWOUND, "A stream beside it broke; this part starts again.")


class Overheard(Attempt):
    """An attempt whose stored pieces somebody waits for."""

    def __init__(
        self,
        work: Work,
        key: str,
        where: tuple[str, Shape],
        number: int,
        heard: asyncio.Event,
        kept: Opened | None = None,
    ) -> None:
        super().__init__(work.writer, key, *where, number, kept)
        self._kept = kept.pieces if kept is not None else []
        self.entries: list[Entry] = []
        self._heard = heard

    def _keep(self, entry: Entry) -> None:
        super()._keep(entry)
        spoken = entry.joins is not None and entry.joins[0] == "token"
        if spoken and (not self.entries or self.entries[-1] is not entry):
            self.entries.append(entry)
            self._heard.set()

    def pieces(self) -> tuple[str, ...]:
        """The text as the log has it; asked once all of it is stored."""
        return (*self._kept, *("".join(entry.parts) for entry in self.entries))


class Stream:
    """A model's stream while it is read: it flows into the log by itself, and the reader follows the log.

    With what an earlier owner has kept of it, it begins once all of that was read again.
    """

    def __init__(self, work: Work, branch: Branch, call: Call, question: Question, kept: Opened | None = None) -> None:
        self._work = work
        self._branch = branch
        self._call = call
        self._question = question
        self._heard = asyncio.Event()
        self._given = 0
        self._storing: Storing | None = None
        self.ended = False
        self.said: Spoken | None = None
        where = (question.section, question.shape)
        self._attempt = Overheard(work, call.key, where, call.attempt, self._heard, kept)
        self._task: asyncio.Task[None] | None = None

    @property
    def begun(self) -> bool:
        """Whether it is under way."""
        return self._task is not None

    def begin(self) -> None:
        """Let it flow."""
        self._work.speaking.add(self._attempt)
        self._task = task = asyncio.create_task(self._listen(), name=f"stream {self.key}")
        task.add_done_callback(look_at)
        task.add_done_callback(lambda _: self._heard.set())
        self._work.tasks.add(task)
        task.add_done_callback(self._work.tasks.discard)

    @property
    def key(self) -> str:
        """The call's name in the log."""
        return self._call.key

    @property
    def has_news(self) -> bool:
        """Whether the log has a piece that was not given, or its end, or it has broken."""
        entries, storing = self._attempt.entries, self._storing
        piece = self._given < len(entries) and entries[self._given].seq is not None
        over = self._task is not None and self._task.done()
        return piece or over or (storing is not None and storing.entry.seq is not None)

    async def _listen(self) -> None:
        await self._close(await hear(self._work, self._question, self._attempt))

    async def _close(self, end: ModelEnd) -> None:
        work = self._work
        body = model_call(work, self._call, self._attempt, self._question, end)
        self._storing = Storing(work, body, self._attempt.said, self._attempt.pieces, self._attempt.asked)
        fact = await self._storing.learn()
        self.ended = True
        self.said = Spoken(self._attempt.text, end.finish)
        self._branch.passed(fact.seq, fact.at_us)
        work.speaking.discard(self._attempt)
        work.waits.look()

    async def next(self) -> str | None:
        """The next piece that is stored, or None at the end. Raises Rewind when the stream has broken."""
        assert self._task is not None
        while True:
            self._heard.clear()
            if self._task.done() and (fault := self._fault()) is not None:
                self.broke(fault)
            if self._given < len(self._attempt.entries):
                entry = self._attempt.entries[self._given]
                await self._work.writer.stored(entry, hurry=False)
                self._given += 1
                return "".join(entry.parts)
            if self._task.done():
                return None
            await self._heard.wait()

    def _fault(self) -> ModelFault | None:
        assert self._task is not None
        if self._task.cancelled():
            return ModelFault("connection", "The stream was closed.", retryable=False)
        fault = self._task.exception()
        if fault is None or isinstance(fault, ModelFault):
            return fault
        raise fault

    def broke(self, fault: ModelFault) -> NoReturn:
        """It has broken, or what it says cannot be used: the branch runs again, if another attempt may follow."""
        policy, number = self._work.provider.retries, self._work.history.spent[self.key] + 1
        wait_s = wait_before(policy, number, fault)
        most = policy.attempts_max if fault.retries_max is None else min(policy.attempts_max, fault.retries_max + 1)
        again = fault.retryable and number < most and wait_s is not None
        why = (fault.code, fault.message_safe)
        self._branch.broken = Broken(self, self._attempt.number, why, again, wait_s or 0.0)
        self._branch.halt = Rewind(self.key)
        raise Rewind(self.key)

    def cut(self) -> None:
        """Close its connection now."""
        if self._task is not None:
            self._task.cancel()

    async def break_off(self) -> list[Range]:
        """Stop it; answers where its pieces are."""
        if self._task is None:
            return []  # what was kept stays so
        self.cut()
        await asyncio.wait([self._task])
        self._work.speaking.discard(self._attempt)
        if self._storing is not None:  # it came to its end all the same
            await self._storing.learn()
            self.ended = True
            return []
        return await self._attempt.said()

    async def leave(self) -> None:
        """The code is done with it: what it had not read yet is not asked for any more."""
        if self.ended:
            return
        await self.break_off()
        if not self.ended:
            end = ModelEnd(LEFT, LEFT, None, None, None, None, None, 0.0, len(self._attempt.entries))
            await self._close(end)

    async def taken_back(self) -> None:
        """No attempt follows."""
        dead = await self.break_off()
        if dead:
            dead = joined([*dead, *self._work.history.made_under(self.key, dead)])
            usage = estimated(self._attempt.heard, self._attempt.prompt_chars)
            await self._work.retry("model", self.key, STOPPED, dead, self._attempt.number, again=False, usage=usage)

    async def rewound(self, broken: Broken, later: list[Range]) -> None:
        """Take back the attempt, all that was made under it, and what streams that were opened later had said."""
        own = await self.break_off()
        if self.ended:
            return
        retry, number, dead = self._work.retry, self._attempt.number, [*own, *later]
        dead = joined([*dead, *self._work.history.made_under(self.key, own)])
        if broken.reading is self:
            why, again, wait_s = broken.why, broken.again, broken.wait_s
            await retry("model", self.key, why, dead, number, again=again, wait_s=wait_s, usage=self._cost())
        elif dead:
            await retry("model", self.key, WITH_IT, dead, number, again=True, usage=self._cost())

    def _cost(self) -> Usage | None:
        """What the attempt that is given up has cost."""
        fault = None if self._task is None or self._task.cancelled() else self._task.exception()
        if isinstance(fault, ModelFault):
            return dead_usage(fault, self._attempt.heard, self._attempt.prompt_chars)
        heard, asked = self._attempt.heard, self._attempt.prompt_chars
        return estimated(heard, asked) if heard else None


async def mend(work: Work, branch: Branch) -> None:
    """A stream broke that the branch was reading: take back what was made of it, and wait as long as is due."""
    broken = branch.broken
    assert broken is not None
    branch.at_edge = True
    readings = [*branch.readings]
    said = [await reading.break_off() for reading in readings]
    await work.writer.flush()
    await work.learn_milestones()
    for number, reading in enumerate(readings):
        await reading.rewound(broken, [*chain.from_iterable(said[number + 1 :])])
    if broken.again:
        await asyncio.sleep(broken.wait_s)
    branch.begin_again()


def wait_before(policy: RetryPolicy, number: int, fault: ModelFault) -> float | None:
    """How long before the attempt that follows attempt `number`; None when the provider asks for too long."""
    asked = fault.retry_after_s or 0.0
    if asked > policy.retry_after_max_s:
        return None
    return min(policy.longest_wait_s, policy.first_wait_s * 2.0 ** (number - 1)) + asked


class Pieces:
    """The pieces of one stream, with tools of all turns, for `async for`. After a crash those that the log has."""

    def __init__(self, work: Work, branch: Branch, question: Question, speech: "Prompted") -> None:
        self._work = work
        self._branch = branch
        self._dialog = Dialog(work, branch, question)
        self._speech = speech
        self._stream: Stream | None = None
        self._known: list[str] | None = None
        self._recalled: tuple[str, Spoken] | None = None
        self._over = False

    def __aiter__(self) -> "Pieces":
        return self

    async def __anext__(self) -> str:
        while not self._over:
            if self._stream is None and self._known is None:
                await self._begin()
            piece = await self._next(self._stream) if self._stream is not None else await self._next_known()
            if piece is not None:
                return piece
            await self._end()
        raise StopAsyncIteration

    async def _next_known(self) -> str | None:
        await self._work.go_on(self._branch)
        return self._known.pop() if self._known else None

    async def _next(self, stream: Stream) -> str | None:
        question = self._dialog.question
        await self._work.go_on(self._branch)
        if self._known:
            return self._known.pop()
        try:
            with self._branch.doing(question.name, question.site):
                if not stream.begun:
                    await self._work.outside(self._branch)
                    stream.begin()
                self._branch.at_edge, self._branch.reads = True, stream
                piece = await stream.next()
        except Misused as halt:
            self._work.refuse(halt)
            raise
        if piece is None and stream in self._branch.readings:
            self._branch.readings.remove(stream)
        return piece

    async def _begin(self) -> None:
        work, branch, question = self._work, self._branch, self._dialog.question
        async with asking(work, branch, question) as call:
            known = recalled(work, branch, call)
            if known is not None:
                self._recalled = (call.key, known)
                self._known = [*reversed(work.memo.pieces(call.key))]
                return
            kept = work.history.open.get(call.key)
            if kept is None or not goes_on(work, question, call.key):
                await work.outside(branch)
                await let_go(work, question, call)
                kept = None
            self._known = [*reversed(kept.pieces)] if kept is not None else None
            self._stream = Stream(work, branch, call, question, kept)
            if kept is None:
                self._stream.begin()
            branch.readings.append(self._stream)

    async def _end(self) -> None:
        """A turn is over: the next one follows when the tools that it asked for have answered."""
        if self._stream is not None:
            assert self._stream.said is not None
            key, said = self._stream.key, self._stream.said
        else:
            assert self._recalled is not None
            key, said = self._recalled
        if await self._dialog.goes_on(key, said):
            self._stream, self._known, self._recalled = None, None, None
            return
        self._over = True
        self._speech.said = said
        if said.finish != LEFT:
            self._speech.said = self._dialog.ended(key, said)

    def judged(self, judge: Callable[[], T]) -> T:
        """What the reader makes of a piece. Raises Rewind when it cannot be used and the stream still goes on."""
        try:
            return judge()
        except ModelFault as fault:
            if self._stream is not None and not self._stream.ended:
                self._stream.broke(fault)
            key = self._stream.key if self._stream is not None else self._recalled[0] if self._recalled else None
            raise WorkflowFailed(fault.code, fault.message_safe, retryable=fault.retryable).of(key) from fault

    async def aclose(self) -> None:
        """Read no further: the connection is closed, and what was said so far stays."""
        self._over = True
        stream = self._stream
        if stream is not None and stream in self._branch.readings:
            with self._branch.doing(self._dialog.question.name, self._dialog.question.site):
                await stream.leave()
            self._branch.readings.remove(stream)


class Prompted:
    """A model call: await it for all of it, or read its `text` piece by piece."""

    def __init__(self, work: Work, branch: Branch, question: Question) -> None:
        self._work = work
        self._branch = branch
        self._question = question
        self.said: Spoken | None = None  # once it was read to its end

    def __await__(self) -> Generator[Any, None, Spoken]:
        return self._whole().__await__()

    def text(self) -> "Pieces":
        """The pieces, as the log has them. Reading makes the branch one that is rewound when the stream breaks."""
        return Pieces(self._work, self._branch, self._question, self)

    async def _whole(self) -> Spoken:
        self.said = await say_all(self._work, self._branch, self._question)
        return self.said
