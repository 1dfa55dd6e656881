"""Branches whose values are taken one by one, in the order in which the log says that they ended.

What ended first is not what this process saw first: it is whose last event stands first in the log. So before one is
taken, all the others have been answered as far as the log goes, and one begins only when another one is taken. A
resumed run then takes them in the same order, and begins each new one at the same moment.
"""

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Generic, TypeVar

from worker.branches import Branch, come_to_rest
from worker.groups import Child, Code, Group, Job, jobs_of
from worker.stops import Misused, Site
from worker.work import Work

T = TypeVar("T")


class Arriving(Group):
    """A group of which each branch is taken by itself."""

    def at_rest(self) -> bool:
        """Whether all wait for something outside. One that has ended has consequences only for whoever waits for it."""
        if self._parent.joining:
            return bool(self._living) and all(not each.branch.ended and each.branch.at_rest() for each in self._living)
        return all(each.branch.ended or each.branch.at_rest() for each in self._living)

    async def next(self) -> Child | None:
        """The branch that ended next, or None when all have been taken."""
        if self not in self._parent.groups:
            self._parent.groups.append(self)
            self._fill()
        self._parent.joining = True
        try:
            while self._living:
                self._ended.clear()
                await come_to_rest(*self.branches())
                if ended := [each for each in self._living if each.branch.ended]:
                    return self._arrived(min(ended, key=Child.order))
                self._work.waits.look()
                await self._ended.wait()
            return None
        finally:
            self._parent.joining = False

    def _arrived(self, child: Child) -> Child:
        self._living.remove(child)
        self._done.append(child)
        if child.halt is not None:
            raise child.halt.again()
        self._parent.now_us = max(self._parent.now_us, child.branch.now_us)
        if child.fault is None:
            self._fill()
            if self._told is not None:
                self._told(len(self._done))
        return child

    def _fill(self) -> None:
        """Begin as many as there is room for."""
        while self._next < len(self._jobs) and len(self._living) < self._parallel:
            self._start()

    async def shut(self) -> None:
        """Nobody takes any more: those that have not ended are stopped."""
        if self not in self._parent.groups:
            return
        if self._work.halt is None and self._parent.halted() is None:
            await come_to_rest(*self.branches())  # what the log has of them belongs to it, taken or not
        stopped = await self._stop()
        if self._work.halt is None and self._parent.halted() is None:
            await self._close_open(stopped)
            self._parent.groups.remove(self)


class AsDone(Generic[T]):
    """The values of branches, each as soon as it is in the log.

    With `async with` around the loop, those that have not ended when it is left are stopped there; otherwise they go on
    until the branch ends that has opened them.
    """

    def __init__(
        self,
        work: Work,
        branch: Branch,
        codes: Sequence[tuple[str, Code]],
        site: Site,
        parallel: int,
        told: Callable[[int], None] | None,
    ) -> None:
        self._work = work
        self._branch = branch
        self._codes = codes
        self._site = site
        self._parallel = parallel
        self._told = told
        self._group: Arriving | None = None

    def __aiter__(self) -> "AsDone[T]":
        return self

    async def __anext__(self) -> T:
        await self._work.go_on(self._branch)
        try:
            with self._branch.doing("as_done", self._site):
                child = await self._opened().next()
        except Misused as halt:
            self._work.refuse(halt)
            raise
        if child is None:
            await self.aclose()
            raise StopAsyncIteration
        if child.fault is not None:
            await self.aclose()
            raise child.fault
        value: T = child.value
        return value

    def _opened(self) -> Arriving:
        if self._group is None:
            jobs: Sequence[Job] = jobs_of(self._branch, self._site, self._codes)
            self._group = Arriving(self._work, self._branch, jobs, parallel=self._parallel, told=self._told)
        return self._group

    async def aclose(self) -> None:
        """Take no more."""
        if self._group is not None:
            await self._group.shut()

    async def __aenter__(self) -> "AsDone[T]":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
