"""Keeps the tie between a child process and its parent: when the parent dies, however it dies, the child does too.

Run as a script (`python -I -S tether.py PARENT SIGNAL UID GID program argument ...`) it ties itself to its parent,
drops to the wanted user and becomes the program. A small program of its own, and not subprocess's preexec_fn, because
Python code between fork and exec may hang when the parent has threads.

Three traps of PR_SET_PDEATHSIG decide the order of the steps. A change of user clears it, so it is set after that. If
the parent died before it was set, no signal ever comes, so the parent is looked at afterwards. And the kernel means the
parent *thread*: the child ends with the thread that started it, so only the main thread may start one.
"""

import ctypes
import os
import shutil
import signal
import sys
import threading
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1


def tethered(argv: Sequence[str], death_signal: signal.Signals, user: tuple[int, int] | None = None) -> list[str]:
    """The command that runs `argv` tied to this process, as (uid, gid) `user` if one is given."""
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("only the main thread may start tethered processes: they end together with their thread")
    uid, gid = user if user is not None else (-1, -1)
    numbers = (os.getpid(), int(death_signal), uid, gid)
    # The program is looked up here: after the change of user Python may be unable to import what a look-up needs.
    program = shutil.which(argv[0]) or argv[0]
    return [sys.executable, "-I", "-S", __file__, *map(str, numbers), program, *argv[1:]]


def _become(parent: int, death_signal: int, uid: int, gid: int, argv: list[str]) -> None:
    if uid != -1:
        os.setgroups([gid])
        os.setgid(gid)
        os.setuid(uid)
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        sys.exit("the process that started this one is gone already")
    os.execv(argv[0], argv)  # noqa: S606  # no shell is what we want


if __name__ == "__main__":
    try:
        parent, death_signal, uid, gid = map(int, sys.argv[1:5])
        _become(parent, death_signal, uid, gid, sys.argv[5:])
    except OSError as error:
        sys.exit(f"cannot start {sys.argv[5]}: {error}")
