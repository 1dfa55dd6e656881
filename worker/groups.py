"""Branches that run beside each other, and what becomes of all when one fails.

Which branch failed first is decided by the log: by the last event that each had before it failed. So that a resumed run
decides the same, nobody is judged before all have been answered as far as the log goes (see `branches`).
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from tenacity import RetryCallState

from worker.branches import Branch, come_to_rest
from worker.history import is_within
from worker.reading import mend
from worker.steps import Retry, again, fault_of
from worker.stops import Halt, Left, Misused, Site, WorkflowFailed
from worker.threads import kept_in
from worker.work import Work

T = TypeVar("T")

PARALLEL_MAX: Final = 8

Code = Callable[[Branch], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Job:
    """What one branch shall do, and its path."""

    path: str
    code: Code


def jobs_of(branch: Branch, site: Site, codes: Sequence[tuple[str, Code]]) -> list[Job]:
    """Each with a path of its own; a key that comes twice would give two branches one name."""
    keys = [key for key, _ in codes]
    if twice := sorted({key for key in keys if keys.count(key) > 1}):
        raise Misused(f"two branches at {site} have the same key: {', '.join(map(repr, twice))}")
    if "" in keys:
        raise Misused(f"a branch at {site} has an empty key")
    return [Job(branch.below(key), code) for key, code in codes]


class Child:
    """One branch of a group."""

    def __init__(self, index: int, branch: Branch) -> None:
        self.index = index
        self.branch = branch
        self.task: asyncio.Task[None] | None = None
        self.value: Any = None
        self.fault: Exception | None = None
        self.halt: Halt | None = None

    def order(self) -> tuple[int, int]:
        """Its place among those that failed."""
        return self.branch.last_seq, self.index


class Group:
    """The branches that one call has opened below its own."""

    def __init__(
        self,
        work: Work,
        parent: Branch,
        jobs: Sequence[Job],
        *,
        parallel: int = PARALLEL_MAX,
        collect: bool = False,
        told: Callable[[int], None] | None = None,
    ) -> None:
        self._work = work
        self._parent = parent
        self._jobs = jobs
        self._parallel = max(1, parallel)
        self._collect = collect
        self._told = told
        self._next = 0
        self._living: list[Child] = []
        self._done: list[Child] = []
        self._failing = False
        self._ended = asyncio.Event()

    def at_rest(self) -> bool:
        """Whether every branch waits for something outside; not while one has just ended and that has consequences."""
        return (
            not self._failing
            and bool(self._living)
            and all(not child.branch.ended and child.branch.at_rest() for child in self._living)
        )

    def branches(self) -> Iterator[Branch]:
        """Those that have not ended."""
        return (child.branch for child in self._living)

    async def run(self) -> list[Any]:
        """The values in the order of the jobs; with `collect` a failure stands where the value would."""
        self._parent.groups.append(self)
        self._parent.joining = True
        stopped: list[Child] = []
        try:
            while self._next < len(self._jobs) or self._living:
                while self._next < len(self._jobs) and len(self._living) < self._parallel:
                    self._start()
                self._work.waits.look()  # the branch that ended last may have been the only one that did not wait
                await self._ended.wait()
                self._take()
                if self._failing:
                    raise await self._first_failure()
        finally:
            stopped = await self._stop()
            if self._work.halt is None and self._parent.halted() is None:
                await self._close_open(stopped)
                self._parent.groups.remove(self)
            self._parent.joining = False
        self._parent.now_us = max([self._parent.now_us, *(child.branch.now_us for child in self._done)])
        return [child.fault or child.value for child in sorted(self._done, key=lambda child: child.index)]

    async def shut(self) -> None:
        """`run` has seen to it."""

    def _start(self) -> None:
        job = self._jobs[self._next]
        child = Child(self._next, Branch(job.path, self._parent, self._parent.now_us))
        self._next += 1
        self._living.append(child)
        child.task = asyncio.create_task(self._carry(child, job.code), name=f"branch {job.path}")
        self._work.tasks.add(child.task)
        child.task.add_done_callback(self._work.tasks.discard)

    async def _carry(self, child: Child, code: Code) -> None:
        try:
            child.value = await live(self._work, child.branch, code)
        except asyncio.CancelledError:
            child.halt = Left("stopped")
            raise
        except Halt as halt:
            child.halt = halt
        except Exception as fault:  # noqa: BLE001 - it is raised again where the group was opened
            child.fault = fault
            self._failing = not self._collect
        finally:
            child.branch.ended = True
            self._ended.set()

    def _take(self) -> None:
        """Look at those that have ended, in the order of what they had before."""
        self._ended.clear()
        ended = [child for child in self._living if child.branch.ended]
        self._living = [child for child in self._living if not child.branch.ended]
        for child in sorted(ended, key=Child.order):
            self._done.append(child)
            if child.halt is not None:
                raise child.halt.again()
            if child.fault is None and self._told is not None:
                self._told(sum(one.fault is None for one in self._done))

    async def _first_failure(self) -> Exception:
        """Let all that the log can answer be answered, then look who failed first."""
        closed = self._work.history.closed
        known = [n for n, job in enumerate(self._jobs) if any(is_within(key, job.path) for key in closed)]
        while self._next <= max(known, default=-1):
            self._start()
        while True:
            await come_to_rest(*self.branches())
            if not any(child.branch.ended for child in self._living):
                break
            self._take()
        failed = [child for child in self._done if child.fault is not None]
        first = min(failed, key=Child.order)
        self._parent.now_us = max(self._parent.now_us, first.branch.now_us)
        assert first.fault is not None
        return first.fault

    async def _stop(self) -> list[Child]:
        """End those that still run. They may clean up for a moment; then they are left behind, unable to call."""
        tasks = []
        for child in self._living:
            if not child.branch.ended:
                child.branch.halt = child.branch.halt or Left("stopped")
                assert child.task is not None
                child.task.cancel()
            if child.task is not None:
                tasks.append(child.task)
        if tasks:
            graces = self._work.graces
            await asyncio.wait(tasks, timeout=graces.clean_up_s + (graces.effect_s if self._work.effects else 0.0))
        return self._living

    async def _close_open(self, stopped: Sequence[Child]) -> None:
        """Say of each call that was under way that no attempt follows."""
        for child in stopped:
            for branch in [*child.branch.all_below()]:
                for reading in branch.readings:
                    await reading.taken_back()
                if branch.open is not None:
                    await branch.open.taken_back()


async def live(work: Work, branch: Branch, code: Callable[[Branch], Awaitable[T]]) -> T:
    """Run a branch's code to its end; again from its beginning, each time that a stream breaks which it was reading."""
    while True:
        try:
            value = await kept_in(code(branch))
        except asyncio.CancelledError:
            raise
        except BaseException:
            if branch.broken is None or work.halt is not None:
                await _leave(work, branch)
                raise
        else:
            if (halt := _swallowed(work, branch)) is not None:
                raise halt.again()
            if branch.broken is None:
                await _leave(work, branch)
                return value
        finally:
            for reading in branch.readings:
                reading.cut()
            for group in [*branch.groups]:
                await group.shut()
        await mend(work, branch)


def _swallowed(work: Work, branch: Branch) -> Halt | None:
    above = branch.parent.halted() if branch.parent is not None else None
    own = branch.halt if branch.broken is None else None
    return work.halt or own or above


async def _leave(work: Work, branch: Branch) -> None:
    """The code has ended: a stream that it did not read to its end ends here as well."""
    if work.halt is None and branch.halted() is None:
        for reading in [*branch.readings]:
            await reading.leave()


async def with_attempts(work: Work, parent: Branch, job: Job, retry: Retry | None, name: str) -> Any:
    """One branch, tried again as a whole when it fails; what a failed attempt made is taken back."""
    if retry is None:
        return (await Group(work, parent, [job]).run())[0]
    key = f"{job.path}/"

    def covers(fault: BaseException) -> bool:
        worth = retry.covers(fault) or (isinstance(fault, WorkflowFailed) and fault.retryable)
        return worth and not _has_effect(work, job.path)

    async def once() -> Any:
        return (await Group(work, parent, [job]).run())[0]

    async def announce(state: RetryCallState) -> None:
        fault = fault_of(state)
        code = fault.code if isinstance(fault, WorkflowFailed) else "branch_failed"
        await work.writer.flush()
        await work.learn_milestones()
        dead = work.history.made_in(job.path)
        attempt = work.history.attempts.get(key, 0) + 1
        why = (code, f"{name} failed and begins again.")
        await work.retry("step", key, why, dead, attempt, again=True, wait_s=state.upcoming_sleep)

    return await again(retry, work.history.spent[key], covers, announce)(once)


def _has_effect(work: Work, path: str) -> bool:
    history = work.history
    known = [*history.intents.items(), *history.closed.items()]
    return any(is_within(key, path) and told.effect for key, told in known)
