"""Calls of tools, by the workflow's code or by its model: told before they are made, kept before anybody acts on them.

The code's own call has a `tool_call` of its own; those of a model stand in the turn that asked for them. From there on
both go the same way: a person is asked where the tool wants that, an effect's intent is stored, the function is called,
its answer is stored. A tool that fails has a failed result, which whoever asked reads.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

import structlog

from eventstore.domain import events, intake
from eventstore.domain.errors import NotStorable
from eventstore.domain.record import Fact
from eventstore.run_writer import Entry
from worker.approvals import Wanted, Word, ask_all
from worker.branches import Branch
from worker.declare import Tool
from worker.digests import plain
from worker.history import Range
from worker.limits import LimitReached
from worker.memo import Call
from worker.orders import Order, shown
from worker.speaking import STOPPED
from worker.stops import Misused, Site, WorkflowFailed
from worker.toolbox import ToolContext, wants_context
from worker.work import Effect, Work

OUTPUT_BYTES_MAX: Final = 262_144
TOOL_KIND: Final = "tool_result"
DENIED: Final = "not allowed"

logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a call."""

    summary: str  # for people: it tells nothing of what is not shown
    output: Any = None
    failed: bool = False
    why: str | None = None  # for whoever asked
    ms: int = 0


class Asked:
    """A tool that the code has asked and that has not answered."""

    def __init__(self, work: Work, call: Call, entry: Entry) -> None:
        self._work = work
        self._call = call
        self._entry = entry

    async def said(self) -> list[Range]:
        """Where the question stands in the log."""
        seq = (await self._work.writer.stored(self._entry)).seq
        assert seq is not None
        return [(seq, seq)]

    async def taken_back(self) -> None:
        """No attempt follows."""
        call = self._call
        await self._work.retry("step", call.key, STOPPED, await self.said(), call.attempt, again=False)


async def use_tool(work: Work, branch: Branch, site: Site, tool: Tool, arguments: Mapping[str, Any]) -> Any:
    """One call by the workflow's code: the output, or None when it failed."""
    async with work.busy(branch, tool.name, site):
        told = plain(arguments)
        words: Sequence[Word | None] = [None]
        if tool.approve is not None:
            key = branch.named(f"{tool.name}#{branch.occurrences[tool.name] + 1}")
            words = await ask_all(work, branch, site, [Wanted(tool, tool.approve, key, told)])
        call = work.begin(branch, TOOL_KIND, tool.name, site, arguments)
        if call.before is not None:
            return call.before.data.get("output")
        await _ready(work, branch, [(call, tool)])
        order = Order(tool.name, f"{call.key}/{call.attempt}", told, arguments, tool, by_model=False)
        entry = work.writer.push(
            events.ToolCall(
                tool=tool.name,
                call_id=order.call_id,
                arguments=told,
                shown=shown(tool, told),
                key=call.key,
                attempt=call.attempt,
            )
        )
        asked = Asked(work, call, entry)
        branch.open = asked
        outcome = _settled(order, _refused(words[0]) or await Doing(work, branch, call, order).outcome())
        await work.close(branch, _result(call, order, outcome), said=asked.said)
        work.effects.pop(call.key, None)
        return outcome.output


async def answer_all(work: Work, branch: Branch, site: Site, name: str, orders: Sequence[Order]) -> list[Fact]:
    """The calls that one turn of a model asked for, in their order: all that only read and stand side by side are made
    beside each other, every other one alone. What is in the log already is not done again."""
    async with work.busy(branch, name, site):
        wanted = {
            order.call_id: Wanted(order.tool, order.tool.approve, order.call_id, order.arguments)
            for order in orders
            if order.tool is not None and order.tool.approve is not None
        }
        words = dict(zip(wanted, await ask_all(work, branch, site, [*wanted.values()]), strict=True))
        calls = [
            work.begin(branch, TOOL_KIND, name, site, order.name, order.arguments, key=order.key) for order in orders
        ]
        open_ = [(call, order) for call, order in zip(calls, orders, strict=True) if call.before is None]
        if open_:
            await _ready(work, branch, [(call, order.tool) for call, order in open_])
        for beside, group in groupby(open_, key=lambda each: each[1].tool is not None and each[1].tool.reads_only):
            for some in [[*group]] if beside else [[one] for one in group]:
                await _make(work, branch, some, words)
        return [work.history.closed[call.key].fact for call in calls]


async def _ready(work: Work, branch: Branch, calls: Sequence[tuple[Call, Tool | None]]) -> None:
    """Wait until something may be begun outside, and see whether these may."""
    above = branch.under()
    for _, tool in calls:
        if tool is not None and tool.effect and above is not None:
            raise Misused(
                f"the tool {tool.name} has an effect outside and was called while the stream {above} is read: if the "
                f"stream breaks, what was made of it is taken back, and an effect cannot be"
            )
    await work.outside(branch)
    made = sum(known.fact.type == TOOL_KIND for known in work.history.closed.values())
    new = sum(call.key not in work.history.intents for call, _ in calls)
    if made + new > work.limits.tool_calls_max:
        raise LimitReached("tool_calls_max")


async def _make(work: Work, branch: Branch, some: Sequence[tuple[Call, Order]], words: Mapping[str, Word]) -> None:
    """Make these beside each other; their results are stored in order."""
    await work.go_on(branch)
    doing = [
        asyncio.ensure_future(_outcome(work, branch, call, order, words.get(order.call_id))) for call, order in some
    ]
    try:
        for (call, order), task in zip(some, doing, strict=True):
            outcome = _settled(order, await task)
            await work.close(branch, _result(call, order, outcome))
            work.effects.pop(call.key, None)
            branch.waits_for = None  # the next one is still outside
    finally:
        for task in doing:
            task.cancel()
        await asyncio.gather(*doing, return_exceptions=True)


async def _outcome(work: Work, branch: Branch, call: Call, order: Order, word: Word | None) -> Outcome:
    if order.tool is None or order.fault is not None:
        return Outcome("the call does not fit the tool", failed=True, why=order.fault)
    return _refused(word) or await Doing(work, branch, call, order).outcome()


def _refused(word: Word | None) -> Outcome | None:
    if word is None or word.allowed:
        return None
    note = f" They said: {word.note}" if word.note else ""
    return Outcome(DENIED, failed=True, why=f"A person did not allow this call.{note}")


class Doing:
    """One call of a tool's function."""

    def __init__(self, work: Work, branch: Branch, call: Call, order: Order) -> None:
        assert order.tool is not None
        self._work = work
        self._branch = branch
        self._call = call
        self._order = order
        self._tool = order.tool
        self._limit_s = min(order.tool.timeout_s, work.limits.step_s)
        self._context = ToolContext(work.outside_name(call.key), min(self._limit_s, work.left_s()), work.secrets)

    async def outcome(self) -> Outcome:
        """Call it; whatever it raises is its outcome. What went wrong inside is for the process's own log."""
        if self._tool.effect:
            await self._intend()
        began = time.monotonic()
        doing = asyncio.ensure_future(self._run())
        if self._tool.effect:
            self._work.effects[self._call.key] = Effect(self._tool.name, doing)
        try:
            async with asyncio.timeout(self._limit_s):
                # An effect goes on for a while when the run is stopped: somebody must learn what came of it.
                output = await (asyncio.shield(doing) if self._tool.effect else doing)
        except TimeoutError:
            doing.cancel()
            if doing.done() and not doing.cancelled():
                return self._failed(doing.exception(), began)
            text = f"no answer within {self._limit_s:g} s"
            return Outcome(text, failed=True, why=text, ms=_ms(began))
        except asyncio.CancelledError:
            if self._tool.effect:
                await self._learn(doing, began)
            raise
        except Exception as fault:  # noqa: BLE001 - a tool is an outside: what it raises is a failed result
            return self._failed(fault, began)
        return self._told(output, began)

    async def _run(self) -> Any:
        given = dict(self._order.taken)
        made = self._tool.fn(self._context, **given) if wants_context(self._tool.fn) else self._tool.fn(**given)
        return plain(await made)

    async def _intend(self) -> None:
        """The intent comes first. One that is there already was left by an owner that died over it: the same key."""
        if self._call.key in self._work.history.intents:
            return
        told = {"idempotency_key": self._context.idempotency_key, "of": TOOL_KIND}
        body = events.Step(name=self._tool.name, status="intent", output=told, **self._call.closing())
        await self._work.intend(self._branch, body)

    async def _learn(self, doing: "asyncio.Future[Any]", began: float) -> None:
        """The run was stopped over an effect: what came of it is stored if it is known in time."""
        await asyncio.wait([doing], timeout=self._work.graces.effect_s)
        if not doing.done() or doing.cancelled():
            doing.cancel()
            return
        fault = doing.exception()
        outcome = self._told(doing.result(), began) if fault is None else self._failed(fault, began)
        await self._work.close(self._branch, _result(self._call, self._order, _settled(self._order, outcome)))
        self._work.effects.pop(self._call.key, None)

    def _told(self, output: Any, began: float) -> Outcome:
        output = self._context.clean(output)
        count = len(output) if isinstance(output, list) else None
        return Outcome(f"{count} found" if count is not None else "done", output, ms=_ms(began))

    def _failed(self, fault: BaseException | None, began: float) -> Outcome:
        tool = self._tool.name
        if isinstance(fault, WorkflowFailed):  # raised on purpose: its words are for whoever asked
            return Outcome("failed", failed=True, why=self._context.clean(fault.message), ms=_ms(began))
        if self._context.given:  # its text and its frames may hold a secret
            logger.error("a tool failed", tool=tool, raised=type(fault).__name__)
        else:
            logger.error("a tool failed", tool=tool, exc_info=fault)
        return Outcome("failed", failed=True, why=f"{tool} failed", ms=_ms(began))


def _settled(order: Order, outcome: Outcome) -> Outcome:
    """The outcome as it is stored. A model is told in words why a call failed, also when its answer cannot be kept: it
    may do something else. The workflow's code gets nothing, and for what cannot be kept a failure."""
    if not outcome.failed:
        try:
            intake.check(outcome.output)
            if not order.by_model or len(events.new_event(_probe(outcome.output), 0).body) <= OUTPUT_BYTES_MAX:
                return outcome
            why = f"The answer is longer than {OUTPUT_BYTES_MAX} bytes: ask for less."
        except NotStorable as fault:
            if not order.by_model:
                text = f"The output of {order.name} cannot be stored: {fault}"
                raise WorkflowFailed("not_storable", text) from fault
            why = f"The answer cannot be kept: {fault}"
        outcome = Outcome("failed", failed=True, why=why, ms=outcome.ms)
    output = {"error": outcome.why or outcome.summary} if order.by_model else None
    return Outcome(outcome.summary, output, failed=True, ms=outcome.ms)


def _probe(output: Any) -> events.Step:
    return events.Step(name="", status="ok", output=output, key="", place=0, args="")


def _result(call: Call, order: Order, outcome: Outcome) -> events.ToolResult:
    output = outcome.output
    return events.ToolResult(
        tool=order.name,
        call_id=order.call_id,
        status="failed" if outcome.failed else "ok",
        summary=outcome.summary,
        result_count=len(output) if isinstance(output, list) else None,
        duration_ms=outcome.ms,
        output=output,
        **call.closing(),
    )


def _ms(began: float) -> int:
    return round((time.monotonic() - began) * 1000)
