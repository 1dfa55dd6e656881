"""Code that blocks: it holds up no other, nor the process's end, and can be left at any time."""

import asyncio
import subprocess
import sys
import threading

import pytest

from tests.house import ROOT
from worker.threads import Threads, in_thread, kept_in, within

ENDS = """
import asyncio, threading
from worker.threads import in_thread

async def main():
    asyncio.ensure_future(in_thread(threading.Event().wait))
    await asyncio.sleep(0)

asyncio.run(main())
print("ended")
"""


async def test_many_that_hang_do_not_hold_up_another_one() -> None:
    free = threading.Event()
    hanging = [asyncio.ensure_future(in_thread(free.wait)) for _ in range(60)]
    async with asyncio.timeout(10):
        assert await in_thread(lambda: "answered") == "answered"
    free.set()
    await asyncio.gather(*hanging)


async def test_there_is_room_again_once_a_thread_has_ended_and_not_when_nobody_waits_for_it_any_more() -> None:
    threads, free = Threads(1), threading.Event()
    left = asyncio.ensure_future(threads.run(free.wait))
    await asyncio.sleep(0)
    left.cancel()
    other = asyncio.ensure_future(threads.run(str, 7))
    for _ in range(50):
        await asyncio.sleep(0)
    assert not other.done()
    free.set()
    async with asyncio.timeout(10):
        assert await other == "7"


async def test_what_is_raised_is_raised_here_and_nothing_ends_the_process() -> None:
    with pytest.raises(KeyError):
        await in_thread({}.__getitem__, "x")
    with pytest.raises(RuntimeError, match="StopIteration"):
        await in_thread(next, iter(()))
    with pytest.raises(RuntimeError, match="SystemExit"):
        await in_thread(sys.exit, 3)

    async def leaves() -> None:
        sys.exit(3)

    with pytest.raises(RuntimeError, match="end the process"):
        await kept_in(leaves())


async def test_waiting_is_over_in_time_whatever_the_code_does_with_being_cancelled() -> None:
    async def deaf() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.Event().wait()

    async def quick() -> int:
        return 1

    doing = asyncio.ensure_future(deaf())
    async with asyncio.timeout(10):
        assert not await within(doing, 0.01, 0.01)
    doing.cancel()
    assert await within(asyncio.ensure_future(quick()), 5.0, 0.0)


def test_a_thread_that_hangs_does_not_hold_up_the_process() -> None:
    done = subprocess.run([sys.executable, "-c", ENDS], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (0, "ended\n")
