"""Code that blocks runs in threads of its own: one that hangs holds up no other, nor the process's end.

The interpreter's own pool has a few threads for everything and waits for all of them when the process ends; a few
steps that hang would stop every run of the process, and its orderly end as well.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import copy_context
from threading import Thread
from typing import Any, Final, TypeVar

T = TypeVar("T")

THREADS_MAX: Final = 128


class Threads:
    """So many threads at most; who comes later waits until one is free."""

    def __init__(self, most: int = THREADS_MAX) -> None:
        self._room = asyncio.Semaphore(most)

    async def run(self, fn: Callable[..., T], *args: Any) -> T:
        """What the function answers. Whoever stops waiting leaves the thread to itself: what it answers is dropped."""
        await self._room.acquire()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        context = copy_context()

        def settle(tell: Callable[[], None]) -> None:
            self._room.release()
            if not answer.done():
                tell()

        def work() -> None:
            try:
                value = context.run(fn, *args)
            except Exception as fault:  # noqa: BLE001 - it is raised again where it is awaited
                told = _raisable(fault)
                tell = lambda: answer.set_exception(told)  # noqa: E731
            except BaseException as fault:  # noqa: BLE001 - nobody but the process itself ends the process
                ended = RuntimeError(f"{type(fault).__name__} in a thread")
                tell = lambda: answer.set_exception(ended)  # noqa: E731
            else:
                tell = lambda: answer.set_result(value)  # noqa: E731
            with suppress(RuntimeError):  # the loop has gone meanwhile
                loop.call_soon_threadsafe(settle, tell)

        Thread(target=work, daemon=True, name=f"runwire {getattr(fn, '__name__', 'code')}").start()
        return await answer


def _raisable(fault: Exception) -> Exception:
    """A future does not take this one."""
    return RuntimeError("StopIteration in a thread") if isinstance(fault, StopIteration) else fault


_THREADS: Final = Threads()


async def in_thread(fn: Callable[..., T], *args: Any) -> T:
    """Run a function that may block."""
    return await _THREADS.run(fn, *args)


async def within(doing: "asyncio.Future[T]", seconds: float, leave_s: float) -> bool:
    """Wait so long for it, whatever it does with being cancelled; whether it has ended by itself.

    One that is late is cancelled, and then has `leave_s` to clean up. So is one whose waiter is cancelled.
    """
    try:
        await asyncio.wait([doing], timeout=seconds)
    except asyncio.CancelledError:
        await cut_off(doing, leave_s)
        raise
    if doing.done():
        return True
    await cut_off(doing, leave_s)
    return False


async def cut_off(doing: "asyncio.Future[Any]", leave_s: float) -> None:
    """Cancel it, and wait a moment for it to end."""
    doing.add_done_callback(_look_at)
    doing.cancel()
    await asyncio.wait([doing], timeout=leave_s)


def _look_at(doing: "asyncio.Future[Any]") -> None:
    if not doing.cancelled():
        doing.exception()


async def kept_in(awaited: Awaitable[T]) -> T:
    """What is awaited, but that it cannot end the whole process: `sys.exit()` in a run's code ends that run."""
    try:
        return await awaited
    except SystemExit as fault:
        raise RuntimeError("the code wanted to end the process") from fault
