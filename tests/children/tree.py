# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Grow a tree of processes of the kind that is named, say `ready`, and stay."""

import os
import signal
import sys
from collections.abc import Callable


def stay() -> None:
    """Be there until somebody ends it."""
    while True:
        signal.pause()


def fork(*first: Callable[[], object]) -> None:
    """Do this in a child, one step in each generation, and leave the last there."""
    if os.fork() == 0:
        for step in first:
            step()
        stay()


def ignore() -> None:
    """Ignore whatever can be ignored."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)


def orphan() -> None:
    """Leave the parent behind."""
    if os.fork():
        os._exit(0)


def ignores() -> None:
    """Ignore all signals, and have a child that does."""
    ignore()
    fork()


def double_forks() -> None:
    """Have orphans of the first and of the second degree."""
    fork(orphan)
    fork(orphan, orphan)
    os.wait()
    os.wait()


def sessions() -> None:
    """Have children and orphans in sessions of their own, deaf ones among them."""
    fork(os.setsid)
    fork(os.setsid, ignore)
    fork(os.setsid, orphan, os.setsid, ignore)
    os.wait()


def bomb() -> None:
    """Be two hundred, each of a session and many of another parent."""
    for number in range(200):
        steps = (os.setsid, orphan) if number % 2 else (os.setsid,)
        fork(*steps)
    for _ in range(100):
        os.wait()


def stopped() -> None:
    """Be stopped, and a child, too."""
    fork(lambda: os.kill(os.getpid(), signal.SIGSTOP))
    os.write(1, b"ready\n")
    os.kill(os.getpid(), signal.SIGSTOP)


def holds() -> None:
    """Have a grandchild that holds the output, and end as soon as asked to."""
    fork(os.setsid, orphan, ignore)
    os.wait()


globals()[sys.argv[1]]()
if sys.argv[1] != "stopped":
    os.write(1, b"ready\n")
stay()
