"""One owner's work on one run: what all of its branches share, and the one way in which their calls are closed."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import SecretStr

from eventstore.domain import events
from eventstore.domain.record import Fact
from eventstore.run_writer import Entry, RunWriter
from worker.branches import Branch, come_to_rest
from worker.budget import Bounded
from worker.declare import Workflow
from worker.facts import fact_of
from worker.history import REWOUND, History, Opened, Range, ranges
from worker.limits import limits_of
from worker.llm.continuing import ContinueBy
from worker.llm.model import Model
from worker.llm.prices import Prices, own_prices
from worker.llm.retrying import RetryPolicy
from worker.memo import Call, Memo
from worker.provenance import estimated
from worker.speech import Attempt
from worker.stops import Diverged, Exhausted, Halt, Misused, Site, Stop, StopReason
from worker.waiting import WaitingNotice
from worker.waits import Asked, Waits

if TYPE_CHECKING:
    from worker.at_end import Registered
    from worker.children import Children

# Code that never ends although it was told to. It is kept here, asleep at its next call, because a task that nobody
# holds would be complained about whenever the garbage collector finds it.
_LEFT_BEHIND: Final[set["asyncio.Task[Any] | None"]] = set()


@dataclass(frozen=True, slots=True)
class Provider:
    """Who answers a run's model calls, and how often a call is tried."""

    model: Model
    name: str
    retries: RetryPolicy
    prices: Prices = field(default_factory=own_prices)
    continue_by: ContinueBy = "ask"


@dataclass(frozen=True, slots=True)
class Graces:
    """How long code that was stopped may still take: to clean up, and to learn what an effect outside has come to."""

    clean_up_s: float = 1.0
    effect_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Effect:
    """Something under way outside that cannot be undone."""

    name: str
    doing: "asyncio.Future[Any]"


class Storing:
    """A closing event on its way into the log, and from there into the run's memory."""

    def __init__(
        self,
        work: "Work",
        body: events.Closing,
        said: Callable[[], Awaitable[Sequence[Range]]],
        pieces: Callable[[], tuple[str, ...]],
        calls: Callable[[], tuple[Fact, ...]] = tuple,
    ) -> None:
        self.entry = work.writer.push(body)
        self._work = work
        self._body = body
        self._said = said
        self._pieces = pieces
        self._calls = calls

    async def learn(self) -> Fact:
        """Wait until it is stored; from then on the memory answers for the call."""
        await self._work.writer.stored(self.entry)
        fact = fact_of(self.entry, self._body)
        said = await self._said()
        self._work.history.close(fact, self._pieces(), said, self._calls())
        return fact

    async def taken_back(self) -> None:
        """What is on its way cannot be taken back; it is as well to know it."""
        await self.learn()


class Work:
    """What the branches of a run share while one owner carries it."""

    def __init__(
        self,
        workflow: Workflow,
        writer: RunWriter,
        history: History,
        provider: Provider,
        clock_us: Callable[[], int],
        *,
        attempt: int,
        asked: Asked | None = None,
        graces: Graces | None = None,
        secrets: Mapping[str, SecretStr] | None = None,
        children: "Children | None" = None,
    ) -> None:
        self.workflow = workflow
        self.limits = limits_of(history.accepted.data["limits"])
        self.run_id = writer.run_id
        self.attempt = attempt
        self.writer = writer
        self.history = history
        self.memo = Memo(history, writer.run_id, workflow.code, workflow.version)
        spent = lambda: history.usage  # noqa: E731
        model = Bounded(provider.model, self.limits, provider.prices, spent, self.exhausted)
        self.provider = replace(provider, model=model)
        self.clock_us = clock_us
        self.graces = graces or Graces()
        self.secrets = secrets or {}
        self.notice = WaitingNotice(writer)
        self.children = children  # the way to the runs below this one
        origin = (history.accepted.data.get("continues") or {}).get("origin")
        self.origin: str = origin["run_id"] if origin else str(writer.run_id)  # what the code's own names are made from
        self.root = Branch("", None, origin["at_us"] if origin else history.accepted.at_us)
        self.asked = asked or Asked()
        self.waits = Waits(self.root)
        self.usage = events.Usage()
        self.model_closed_us: int | None = None
        self.validated: dict[str, int] = {}
        self.halt: Halt | None = None
        self.halted = asyncio.Event()
        self.abandoned = False
        self.tasks: set[asyncio.Task[Any]] = set()  # besides the workflow's own: branches, and streams that are read
        self.speaking: set[Attempt] = set()
        self.cut_short = dict(history.cut_tokens)  # typed answers that reached their length limit, after so many tokens
        self.effects: dict[str, Effect] = {}  # what is under way outside and cannot be undone, by key
        self.findings: dict[str, str] = {}  # the key of the last finding of each item
        self.at_end: dict[str, Registered] = {}  # what is to be done when the run ends, by key
        self.only_replay = False  # whether the code runs only to learn what it registered: nothing new is begun
        self._told: dict[str, Entry] = {}

    @property
    def stopped(self) -> StopReason | None:
        """Why the run was told to stop, if it was."""
        return self.halt.reason if isinstance(self.halt, Stop) else None

    def stop(self, reason: StopReason) -> None:
        """From now on every call raises Stop, whatever the code caught before; what goes on outside is cut off."""
        self._end_with(Stop(reason))

    def _end_with(self, halt: Halt) -> None:
        self.refuse(halt)
        for task in [*self.tasks]:
            task.cancel()

    def refuse(self, halt: Halt) -> None:
        """The run ends with this; the first one counts."""
        self.halt = self.halt or halt
        self.halted.set()

    def exhausted(self, limit: str) -> Exhausted:
        """A limit of the run is reached: all of it ends, and what goes on outside is cut off."""
        halt = Exhausted(limit)
        self._end_with(halt)
        return halt

    def outside_name(self, key: str) -> str:
        """The idempotency key of a call: its intent's, which an earlier run may have given it, or this run's own."""
        intent = self.history.intents.get(key)
        told = (intent.fact.data.get("output") or {}).get("idempotency_key") if intent is not None else None
        return str(told or f"{self.run_id}/{key}")

    @property
    def parallel(self) -> int:
        """How many branches of one call may run beside each other."""
        return min(self.workflow.parallel, self.limits.parallel)

    @property
    def ends_us(self) -> int:
        """When the run must have ended: its time began with its code, not while it stood in line."""
        return (self.history.began_us or self.history.accepted.at_us) + round(self.limits.run_s * 1e6)

    def left_s(self) -> float:
        """Seconds until then, as far as this owner's clock can tell."""
        return max(0.0, (self.ends_us - self.clock_us()) / 1e6)

    def look_back(self, end: str) -> None:
        """The code has ended in this way: has it asked for all that the log has?"""
        if self.halt is None:
            try:
                self.memo.look_back(end)
            except Diverged as halt:
                self.refuse(halt)
                raise

    def abandon(self) -> None:
        """The code does not end: its next call never returns, so that it cannot keep this process busy."""
        self.abandoned = True

    def aborted(self) -> events.Usage:
        """What the calls that were under way when the run stopped have cost, as far as we can tell."""
        begun = [attempt for attempt in self.speaking if attempt.heard]
        heard, asked = sum(each.heard for each in begun), sum(each.prompt_chars for each in begun)
        return self.priced(estimated(heard, asked)) if heard else events.Usage()

    def priced(self, usage: events.Usage, served: str | None = None) -> events.Usage:
        """What was spent with what it cost, by the model that answered or else by the one that was asked."""
        return self.provider.prices.priced(usage, served, self.provider.name)

    async def go_on(self, branch: Branch) -> None:
        """Each call asks first whether it may."""
        halt = self.halt or branch.halted()
        if halt is None:
            return
        if self.abandoned:
            _LEFT_BEHIND.add(asyncio.current_task())
            await asyncio.Event().wait()
        await asyncio.sleep(0)  # code that calls again and again must leave the loop to others
        raise halt.again()

    @asynccontextmanager
    async def busy(self, branch: Branch, name: str, site: Site) -> AsyncIterator[None]:
        """The branch does one thing, of one call or several."""
        await self.go_on(branch)
        try:
            with branch.doing(name, site):
                yield
        except (Diverged, Misused) as halt:
            self.refuse(halt)
            raise

    def begin(self, branch: Branch, kind: str, name: str, site: Site, *arguments: Any, key: str | None = None) -> Call:
        """The next call of a busy branch, which the log may answer."""
        call = self.memo.call(branch, kind, name, site, *arguments, key=key)
        if call.before is not None:
            branch.passed(call.before.seq, call.before.at_us)
        return call

    @asynccontextmanager
    async def calling(
        self, branch: Branch, kind: str, name: str, site: Site, *arguments: Any, key: str | None = None
    ) -> AsyncIterator[Call]:
        """One call from its name to its end."""
        async with self.busy(branch, name, site):
            yield self.begin(branch, kind, name, site, *arguments, key=key)

    async def outside(self, branch: Branch) -> None:
        """Wait until something may be begun outside: when the log has answered all that it can, in every branch."""
        branch.at_edge, branch.waits_for = True, None  # whatever it stored before this is stored
        await come_to_rest(self.root)
        if self.only_replay:
            self.stop("over")
        await self.go_on(branch)

    async def close(
        self,
        branch: Branch,
        body: events.Closing,
        *,
        said: Callable[[], Awaitable[Sequence[Range]]] | None = None,
        pieces: Callable[[], tuple[str, ...]] = tuple,
        calls: Callable[[], tuple[Fact, ...]] = tuple,
    ) -> Fact:
        """Store the event that closes a branch's call; returns when it is in the log."""
        storing = Storing(self, body, said or _nothing, pieces, calls)
        branch.waits_for, branch.open = storing.entry, storing
        fact = await storing.learn()
        branch.open = None
        branch.passed(fact.seq, fact.at_us)
        return fact

    async def intend(self, branch: Branch, body: events.Step) -> Fact:
        """Store what is about to be done outside, before it is."""
        entry = await self.writer.record(body)
        fact = fact_of(entry, body)
        self.history.learn(fact)
        return fact

    async def retry(
        self,
        what: Literal["model", "step"],
        key: str,
        why: tuple[str, str],
        dead: list[Range],
        attempt: int,
        *,
        again: bool,
        wait_s: float = 0.0,
        usage: events.Usage | None = None,
        branch: Branch | None = None,
    ) -> Fact:
        """Store that an attempt failed, what is dead with it and what it cost; the memory forgets it as well."""
        usage = self.priced(usage) if usage is not None else None
        self.usage = self.usage + (usage or events.Usage())
        body = events.Retry(
            what=what,
            key=key,
            reason=why[0],
            message=why[1],
            superseded=dead,
            attempt=attempt,
            next_attempt=attempt + 1 if again else None,
            wait_s=round(wait_s, 3),
            usage=usage,
        )
        entry = self.writer.push(body)
        if branch is not None:
            branch.waits_for = entry
        await self.writer.stored(entry)
        if branch is not None:
            branch.waits_for = None
        fact = fact_of(entry, body)
        self.history.learn(fact)
        return fact

    async def start_again(self, key: str, opened: Opened) -> None:
        """What a call has said so far is dead although nothing failed: the call is made from its beginning."""
        why = (REWOUND, "This part starts again.")
        await self.retry("model", key, why, ranges(opened.seqs), self.history.attempts[key], again=True)

    def finding_of(self, item: str) -> int | None:
        """Where the finding stands that the next one of this item replaces, if one does and was not taken back."""
        before = self.history.closed.get(self.findings.get(item, ""))
        return before.fact.seq if before is not None else None

    def milestone(
        self, branch: Branch, label: str, detail: str | None = None, done: int | None = None, of: int | None = None
    ) -> None:
        """Tell a milestone, once."""
        index, milestone = self.workflow.milestone(label)
        key, known = self.memo.milestone(branch, milestone.state)
        self.notice.at = body = events.Progress(
            state=milestone.state,
            label=label,
            index=index,
            total=len(self.workflow.milestones),
            key=key,
            detail=detail,
            done=done,
            of=of,
        )
        if not (known or self.only_replay) and key not in self._told:
            self._told[key] = self.writer.push(body)

    async def learn_milestones(self) -> None:
        """Where the milestones that were told on the way are: asked before anything is taken back."""
        told, self._told = self._told, {}
        for key, entry in told.items():
            self.history.milestones[key] = (await self.writer.stored(entry)).seq or 0


def look_at(task: "asyncio.Task[Any]") -> None:
    """Look at how a task ended, so that nobody wonders where its exception went."""
    if not task.cancelled():
        task.exception()


async def _nothing() -> Sequence[Range]:
    return ()
