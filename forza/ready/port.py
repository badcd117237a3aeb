# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Watch where the processes of the app listen, without a word from them."""

from __future__ import annotations

import os

from forza.ready._sockets import Diagnosis, holders, listening_by_proc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from forza._process import Process
    from forza.plugins.start import Start
    from forza.ready._sockets import Listening

# Between two looks an eighth of the app's age passes, so that what there is to see is
# seen late by an eighth at most: 9 looks in the first 0.2 s, 17 in the first second.
# Until the app has started it is never more than a quarter of a second, afterwards
# never more than half a minute, and with the plugins' readings, which wake the monitor
# anyway: hence from a second's pause on. A look at which nothing is new takes 0.1 ms.
_SHARE = 8
_SHORTEST, _LONGEST, _LONGEST_ONCE_STARTED = 0.02, 0.25, 30.0
_RARE, _TICK = 1.0, 5.0
# A unix socket may be there for the app's own ends (worker processes, a loader): if a
# TCP socket follows within this time, that one is where the app has started.
_PREFER_TCP = 1.0
# A process that is born during the look may be missed by it, so look again.
_TRIES = 3


class Ports:
    """Find the listening sockets of an app's processes, each once."""

    def __init__(self, process: Process, say: Callable[[str], object]) -> None:
        self._process = process
        self._say = say
        self._blind = False
        self._tries: dict[int, int] = {}
        self._diagnosis: Diagnosis | None = None
        try:
            self._diagnosis = Diagnosis()
        except OSError:  # a kernel, or an imitation of one, that lacks it
            pass

    def look(self) -> list[dict[str, object]]:
        """Return those that are new: TCP first, the oldest first.

        None is new while nothing can be seen, for want of descriptors, say.
        """
        try:
            return self._look()
        except OSError as error:
            if not self._blind:  # once is enough
                reason = (error.strerror or "").lower()
                self._say(f"cannot see where the app listens, trying again: {reason}")
                self._blind = True
            return []

    def _look(self) -> list[dict[str, object]]:
        # Of a host's sockets only the numbers, of the app's the rest, too: where a
        # thousand others listen, that is 0.4 MB less.
        listening = self._inodes()
        tries = {inode: self._tries.get(inode, _TRIES) for inode in listening}
        unknown = {inode for inode, left in tries.items() if left}
        found: list[dict[str, object]] = []
        if unknown:
            held = holders(self._process.family(), unknown)
            for inode in unknown:
                tries[inode] = 0 if inode in held else tries[inode] - 1
            where = self._where(held) if held else {}
            order = sorted(where, key=lambda inode: ("path" in where[inode], inode))
            found += [_absolute(where[inode], held[inode]) for inode in order]
        self._tries = tries
        return found

    def close(self) -> None:
        if self._diagnosis is not None:
            self._diagnosis.close()

    def _inodes(self) -> set[int]:
        if self._diagnosis is not None:
            try:
                return self._diagnosis.inodes()
            except OSError:
                self._diagnosis.close()
                self._diagnosis = None
        return set(listening_by_proc(self._process.pid))

    def _where(self, inodes: Container[int]) -> Listening:
        if self._diagnosis is not None:
            return self._diagnosis.where(inodes)
        listening = listening_by_proc(self._process.pid)
        return {inode: listening[inode] for inode in listening if inode in inodes}


def _absolute(where: dict[str, object], pid: int) -> dict[str, object]:
    path = where.get("path")
    if isinstance(path, str) and path[0] not in "/@":
        try:
            path = os.path.join(os.readlink(f"/proc/{pid}/cwd"), path)
        except OSError:
            pass
        return {"path": path}
    return where


async def watch(start: Start, _: str = "") -> None:
    """Tell `start` of each socket that the app listens on."""
    monitor = start.monitor
    if monitor.process is None:  # a plugin's author tests without an app
        return
    ports = Ports(monitor.process, monitor.say)
    waiting: list[dict[str, object]] = []
    wait_until = 0.0
    try:
        while True:
            news = ports.look()
            if news:  # the bind hook may have more to say of the same ports
                start.drain()
            for where in news:
                if "port" in where or start.reported:
                    start.hear("port", where)
                else:
                    wait_until = wait_until or monitor.clock() + _PREFER_TCP
                    waiting.append(where)
            if waiting and (start.reported or monitor.clock() >= wait_until):
                for where in waiting:
                    start.hear("port", where)
                waiting.clear()
            longest = _LONGEST_ONCE_STARTED if start.reported else _LONGEST
            pause = min(max(monitor.clock() / _SHARE, _SHORTEST), longest)
            if not start.reported or pause < _RARE:
                await monitor.sleep(pause)
                continue
            due = monitor.clock() + pause
            async for _tick in monitor.every(_TICK):
                if monitor.clock() >= due:
                    break
    finally:
        ports.close()
