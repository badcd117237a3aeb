# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Run a command again and again until it succeeds."""

from __future__ import annotations

import os

from forza._wait import settle, wait
from forza.ready.tcp import PATIENCE, repeat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import Future

    from forza._monitor import Monitor
    from forza._process import ProcessOptions
    from forza.plugins.start import Start

_KILL = 9


async def watch(start: Start, command: str) -> None:
    """Tell `start` when the command has ended with status 0."""

    async def try_once() -> bool:
        return await run(start.monitor, command)

    await repeat(start, "exec", try_once)


async def run(monitor: Monitor, command: str) -> bool:
    """Run a shell command in the app's place, and say whether it ended with 0.

    It gets the app's environment, no input and no output, and PATIENCE seconds; then
    it and what it has started are killed.
    """
    try:
        pid = _spawn(monitor.options, command)
    except OSError:  # no process is left: try again
        return False
    ended: Future[None] = monitor.loop.create_future()
    pidfd = os.pidfd_open(pid)
    monitor.loop.add_reader(pidfd, settle, ended)
    try:
        await wait(monitor.loop, ended, PATIENCE)
    finally:
        monitor.loop.remove_reader(pidfd)
        os.close(pidfd)
        status = _kill(pid)
    return status == 0


def _spawn(options: ProcessOptions, command: str) -> int:
    words = ["sh", "-c", command]
    if options.cwd is not None:
        words = ["sh", "-c", 'cd -- "$0" && exec sh -c "$1"', options.cwd, command]
    null = os.devnull
    return os.posix_spawn(
        "/bin/sh",
        words,
        os.environ if options.env is None else options.env,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, null, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, null, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
        setsigmask=(),
        setsigdef=tuple(n for n in range(1, 32) if n not in (9, 19)),
    )


def _kill(pid: int) -> int:
    """Kill what is left of the command; return its status."""
    try:
        os.killpg(pid, _KILL)  # not reaped yet, so the group is still its own
    except ProcessLookupError:
        pass
    try:
        return os.waitpid(pid, 0)[1]
    except ChildProcessError:  # whoever reaps all was faster
        return -1
