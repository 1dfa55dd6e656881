"""What a workflow's code calls: every call is an event in the log, and after a crash the log answers for it.

    async def contract_review(run: Run, contract: Contract) -> Review:
        await run.milestone("Extracting clauses")
        clauses = await run.step("extract", extract_clauses, contract.text, returns=list[Clause])
        findings = await run.each(clauses, assess, key=lambda clause: clause.id)
        ...

A branch makes one call after the other; `each` and `gather` give each of their parts a branch and a `run` of its own.
Between the calls use only the input, their results and `run`: after a crash the code runs again from the top, and
whatever else it looked at may have changed.
"""

import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from hashlib import sha256
from random import Random
from typing import Any, Final, Literal, TypeVar, overload
from uuid import UUID

from pydantic import BaseModel, TypeAdapter

from eventstore.domain import events
from eventstore.domain.record import EPOCH_START
from worker import asking, at_end
from worker.arriving import AsDone
from worker.asking import ASK_S, Answer
from worker.branches import Branch
from worker.checks import outcomes_of
from worker.children import OnCancel, ask_child, child_order
from worker.declare import Check, Tool, Workflow
from worker.digests import digest, plain
from worker.groups import Code, Group, jobs_of, with_attempts
from worker.steps import Retry, StepOrder, Verify, recall, take_step, wants_context
from worker.stops import Misused, Site, ValidationFailed, caller
from worker.talking import Talk
from worker.tools import use_tool

T = TypeVar("T")
I = TypeVar("I")  # noqa: E741 - an item
M = TypeVar("M", bound=BaseModel)

ONCE: Final = Retry(attempts=1)


class Run(Talk):
    """One branch's view of one run, for the workflow's code."""

    @property
    def run_id(self) -> UUID:
        """The run's name."""
        return self._work.run_id

    @property
    def attempt(self) -> int:
        """Which worker's turn this is, from 1. Not the same after a crash, so nothing may depend on it."""
        return self._work.attempt

    @property
    def version(self) -> int:
        """The workflow's version when the run was accepted, or when it began anew: the same for whoever carries it."""
        history = self._work.history
        return history.anew or int(history.accepted.data["workflow_version"])

    @property
    def workflow(self) -> Workflow:
        """The workflow's declaration."""
        return self._work.workflow

    def now(self) -> datetime:
        """When this branch's last call was stored; the same after a crash."""
        return EPOCH_START + timedelta(microseconds=self._branch.now_us)

    @property
    def deadline(self) -> datetime:
        """When the run must have ended."""
        return EPOCH_START + timedelta(microseconds=self._work.ends_us)

    def uuid(self, name: int | str) -> UUID:
        """A name that is this branch's own and the same after a crash."""
        return UUID(bytes=self._derived("uuid", name)[:16], version=4)

    def random(self, name: int | str) -> Random:
        """Chance that falls the same way after a crash; another one for each name and branch."""
        return Random(self._derived("random", name))  # noqa: S311 - no secret: it must fall the same way again

    def _derived(self, what: str, name: int | str) -> bytes:
        return sha256(f"{self._work.origin}/{self._branch.named(what)}/{name}".encode()).digest()

    async def milestone(
        self, label: str, *, detail: str | None = None, done: int | None = None, of: int | None = None
    ) -> None:
        """Say where the run is, in the words of its plan."""
        await self._work.go_on(self._branch)
        with self._opening("milestone", caller()):
            self._work.milestone(self._branch, label, detail, done, of)

    def step(
        self,
        name: str,
        fn: Callable[..., Any],
        *args: Any,
        returns: Any = Any,
        retry: Retry = ONCE,
        timeout_s: float | None = None,
        effect: bool = False,
        verify: Verify | None = None,
    ) -> Coroutine[Any, Any, Any]:
        """Do something once: its outcome is in the log before the code goes on, and a resumed run does not repeat it.

        A function whose first parameter is a StepContext is told its idempotency key. With `effect` the intent is
        stored first; whoever finds an intent without an outcome asks `verify`, or does it again with the same key.
        """
        site, now_us = caller(), max(self._branch.now_us, self._work.writer.last_us)
        left = self.deadline - EPOCH_START - timedelta(microseconds=now_us)
        deadline = time.monotonic() + left.total_seconds()
        adapter: TypeAdapter[Any] = TypeAdapter(returns)
        limit_s = self._work.limits.step_s
        bound_s = limit_s if timeout_s is None else min(timeout_s, limit_s)
        order = StepOrder(
            name, fn, args, adapter, retry, bound_s, effect or verify is not None, verify, deadline, wants_context(fn)
        )
        return self._step(order, site)

    async def _step(self, order: StepOrder, site: Site) -> Any:
        async with self._work.calling(self._branch, "step", order.name, site, *order.args) as call:
            if call.before is not None:
                return recall(call, order.returns)
            return await take_step(self._work, self._branch, call, order)

    def tool(self, tool: Tool, **arguments: Any) -> Coroutine[Any, Any, Any]:
        """Ask something outside. Only the arguments that the tool declares as shown are ever disclosed to a user."""
        return use_tool(self._work, self._branch, caller(), tool, arguments)

    def finding(self, value: BaseModel, *, item: str) -> Coroutine[Any, Any, None]:
        """One interim result. It is a draft like everything before the result."""
        return self._finding(value, item, caller())

    async def _finding(self, value: BaseModel, item: str, site: Site) -> None:
        async with self._work.calling(self._branch, "finding", "finding", site, item, value) as call:
            if call.before is None:
                await self._work.outside(self._branch)
                before = self._work.finding_of(item)
                body = events.Finding(item=item, value=plain(value), replaces=before, **call.closing())
                await self._work.close(self._branch, body)
            self._work.findings[item] = call.key

    def validate(self, value: M, checks: Sequence[Check]) -> Coroutine[Any, Any, M]:
        """The gate: only a value that passed here can be returned. Raises ValidationFailed, naming what failed."""
        return self._validate(value, checks, caller())

    async def _validate(self, value: M, checks: Sequence[Check], site: Site) -> M:
        work, name = self._work, digest(value)
        async with work.calling(self._branch, "validation", "validate", site, value) as call:
            fact = call.before
            if fact is None:
                await work.outside(self._branch)
                outcomes = await outcomes_of(work, checks, value)
                passed = all(outcome.passed for outcome in outcomes)
                body = events.Validation(passed=passed, checks=outcomes, value_digest=name, seqs=[], **call.closing())
                fact = await work.close(self._branch, body)
            else:
                work.memo.same_value(self._branch, call, name, site)
            if failed := [check["name"] for check in fact.data["checks"] if not check["passed"]]:
                raise ValidationFailed(failed).of(call.key)
            work.validated[name] = fact.seq
            return value

    def ask(
        self,
        name: str,
        question: str,
        *,
        to: str,
        choices: Sequence[str] = (),
        answer: type[BaseModel] | None = None,
        wait_s: float = ASK_S,
        default: Any = None,
    ) -> Coroutine[Any, Any, Answer]:
        """Ask a person and wait, for days if need be; no worker is held meanwhile."""
        asked = asking.Question(name, question, to, choices, answer, wait_s, default)
        return asking.ask(self._work, self._branch, caller(), asked)

    def sleep(self, name: str, seconds: float) -> Coroutine[Any, Any, None]:
        """Go on after so long, by the database's clock; no worker is held meanwhile."""
        return asking.sleep(self._work, self._branch, caller(), name, seconds)

    def child(
        self,
        workflow: str,
        value: BaseModel | Mapping[str, Any],
        *,
        name: str | None = None,
        returns: Any = Any,
        on_cancel: OnCancel = "cancel",
    ) -> Coroutine[Any, Any, Any]:
        """Have another workflow run below this one, and wait for its result; no worker is held meanwhile.

        It is opened once, for whoever started this run. Its failure is raised as WorkflowFailed, with its own code.
        When this run ends first it is stopped as well, unless `on_cancel="keep"`.
        """
        return ask_child(
            self._work, self._branch, caller(), name or workflow, child_order(workflow, value, returns, on_cancel)
        )

    def on_end(self, fn: Callable[..., Any], *args: Any, name: str | None = None) -> Coroutine[Any, Any, None]:
        """Have this done outside when the run ends, with a result, a failure, a cancel or a limit; not while it waits.

        It is done at least once, after the code has ended, within `on_end_s`; a StepContext tells its idempotency key.
        """
        return at_end.register(self._work, self._branch, caller(), name or fn.__name__, fn, args)

    def branch(
        self, name: str, fn: "Callable[[Run], Awaitable[T]]", *, retry: Retry | None = None
    ) -> Coroutine[Any, Any, T]:
        """A part of the run with names of its own; with `retry` it is tried again as a whole when it fails."""
        return self._one_branch(name, fn, retry, caller())

    async def _one_branch(self, name: str, fn: "Callable[[Run], Awaitable[T]]", retry: Retry | None, site: Site) -> T:
        await self._work.go_on(self._branch)
        with self._opening(f"branch {name}", site):
            [job] = jobs_of(self._branch, site, [(name, self._coded(fn))])
            value: T = await with_attempts(self._work, self._branch, job, retry, name)
            return value

    def gather(self, parts: "Mapping[str, Callable[[Run], Awaitable[T]]]") -> Coroutine[Any, Any, dict[str, T]]:
        """Parts that run beside each other, each in the branch that its name says. Answers their values by name."""
        return self._gather(parts, caller())

    async def _gather(self, parts: "Mapping[str, Callable[[Run], Awaitable[T]]]", site: Site) -> dict[str, T]:
        codes = [(name, self._coded(fn)) for name, fn in parts.items()]
        values = await self._group("gather", codes, site, self._work.parallel, collect=False, told=None)
        return dict(zip(parts, values, strict=True))

    @overload
    def each(
        self,
        items: Iterable[I],
        fn: "Callable[[Run, I], Awaitable[T]]",
        *,
        key: Callable[[I], object],
        parallel: int | None = None,
        milestone: str | None = None,
    ) -> Coroutine[Any, Any, list[T]]: ...

    @overload
    def each(
        self,
        items: Iterable[I],
        fn: "Callable[[Run, I], Awaitable[T]]",
        *,
        key: Callable[[I], object],
        parallel: int | None = None,
        milestone: str | None = None,
        on_error: Literal["collect"],
    ) -> Coroutine[Any, Any, list[T | Exception]]: ...

    def each(
        self,
        items: Iterable[I],
        fn: "Callable[[Run, I], Awaitable[T]]",
        *,
        key: Callable[[I], object],
        parallel: int | None = None,
        milestone: str | None = None,
        on_error: Literal["cancel", "collect"] = "cancel",
    ) -> Coroutine[Any, Any, Any]:
        """Do the same for each item, some beside each other; answers the values in the order of the items.

        Each item has a branch that `key` names. The first failure, by the log, stops the others and is raised; with
        `on_error="collect"` it stands in its item's place. With `milestone` that one tells how many are done.
        """
        every = [*items]
        codes: list[tuple[str, Code]] = [(str(key(item)), self._coded(fn, item)) for item in every]
        told, at_once = self._counting(milestone, len(every)), self._at_once(parallel)
        return self._group("each", codes, caller(), at_once, collect=on_error == "collect", told=told)

    def as_done(
        self,
        items: Iterable[I],
        fn: "Callable[[Run, I], Awaitable[T]]",
        *,
        key: Callable[[I], object],
        parallel: int | None = None,
        milestone: str | None = None,
    ) -> AsDone[T]:
        """Like `each`, but `async for` gives the values one by one, in the order in which the log has their ends.

        The first failure is raised in its turn and stops the others; so does leaving `async with run.as_done(...)`.
        """
        every = [*items]
        codes: list[tuple[str, Code]] = [(str(key(item)), self._coded(fn, item)) for item in every]
        told = self._counting(milestone, len(every))
        return AsDone(self._work, self._branch, codes, caller(), self._at_once(parallel), told)

    def _counting(self, milestone: str | None, total: int) -> Callable[[int], None] | None:
        """How many are done, told by this milestone."""
        if milestone is None:
            return None
        return lambda done: self._work.milestone(self._branch, milestone, None, done, total)

    def _at_once(self, parallel: int | None) -> int:
        return min(parallel or self._work.parallel, self._work.parallel)

    async def _group(
        self,
        what: str,
        codes: Sequence[tuple[str, Code]],
        site: Site,
        parallel: int,
        *,
        collect: bool,
        told: Callable[[int], None] | None,
    ) -> list[Any]:
        work, branch = self._work, self._branch
        await work.go_on(branch)
        with self._opening(what, site):
            jobs = jobs_of(branch, site, codes)
            return await Group(work, branch, jobs, parallel=parallel, collect=collect, told=told).run()

    def _coded(self, fn: Callable[..., Awaitable[Any]], *args: Any) -> Code:
        work = self._work

        def code(branch: Branch) -> Awaitable[Any]:
            return fn(Run(work, branch), *args)

        return code

    @contextmanager
    def _opening(self, what: str, site: Site) -> Iterator[None]:
        """Something that has no event of its own, made in order like all the rest."""
        try:
            with self._branch.doing(what, site):
                yield
        except Misused as halt:
            self._work.refuse(halt)
            raise
