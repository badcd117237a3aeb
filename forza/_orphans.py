# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Look after processes that have lost their parents to us.

The guard adopts what the app leaves behind; this is for when there is no guard, or
somebody has killed it, and for PID 1, to whom all the orphans of a container come.
"""

from __future__ import annotations

import os

from forza._files import read
from forza._wait import wait

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future

    from forza._cgroup import Cgroup

_KILL = 9
_TURNS, _PAUSE = 100, 0.01


class Zombies:
    """Those that nobody else reaps; `child` is our own, and is not."""

    def __init__(self, child: int) -> None:
        self._child = child
        self._seen: set[int] = set()

    def reap(self) -> None:
        """Reap those that were there last time already: a plugin that has started a
        process shall learn how it ended."""
        try:
            there = children()
        except OSError:  # no descriptor is left: next time, then
            return
        dead = {pid for pid in there if pid != self._child and _is_dead(pid)}
        for pid in dead & self._seen:
            _reap(pid)
        self._seen = dead - self._seen


async def end(loop: AbstractEventLoop) -> None:
    """Kill all our children, and those that come to us on that."""
    for _ in range(_TURNS):
        try:
            left = children()
        except OSError:  # no descriptor is left, perhaps for a moment
            await _pause(loop)
            continue
        refused = 0
        for pid in left:
            try:
                os.kill(pid, _KILL)  # not reaped, so nobody else's pid
            except PermissionError:  # another user's, by a setuid program
                refused += 1
            _reap(pid)
        if len(left) == refused:
            return
        await _pause(loop)


async def end_group(loop: AbstractEventLoop, group: Cgroup) -> None:
    """Kill all in the app's cgroup, and remove that."""
    for _ in range(_TURNS):
        group.kill()
        if group.remove():
            return
        await _pause(loop)


async def _pause(loop: AbstractEventLoop) -> None:
    moment: Future[None] = loop.create_future()
    await wait(loop, moment, _PAUSE)


def children() -> list[int]:
    """Return the pids of this process's children, dead or alive. Raises OSError."""
    found: list[int] = []
    for thread in os.listdir("/proc/self/task"):
        found += map(int, read(f"/proc/self/task/{thread}/children").split())
    return found


def _is_dead(pid: int) -> bool:
    try:
        seen = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return seen is not None


def _reap(pid: int) -> None:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass
