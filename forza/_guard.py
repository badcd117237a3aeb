# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Have the guard start a child, and understand what it reports (_native/guard.c)."""

from __future__ import annotations

import errno
import os
from os import POSIX_SPAWN_DUP2, posix_spawn

from forza._native import path
from forza._process import REPORT_BYTES, parse_report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from forza._process import ProcessOptions

IPC_FD = 3
_KILL, _CONT = 9, 18
# It takes milliseconds to say that the child runs, or why not.
_LONG = 0.2


class GuardError(Exception):
    """It is the guard that cannot be run, or was not built."""


class StepError(OSError):
    """What failed is `step`: exec, cwd, user, fork, group (the cgroup), or a limit."""

    def __init__(self, number: int, text: str, step: str) -> None:
        super().__init__(number, text)
        self.step = step


def start(
    file: str,
    args: Sequence[str],
    env: Mapping[str, str],
    fds: Sequence[int],
    options: ProcessOptions,
    limits: Mapping[str, str],
    group: str,
) -> tuple[int, int, int]:
    """Return the child's pid, the guard's, and where to read the guard's reports.

    Raises OSError if the child can't be run, and GuardError if the guard can't.
    """
    guard = path("guard")
    if guard is None:
        raise GuardError
    uid = "" if options.uid is None else str(options.uid)
    gid = "" if options.gid is None else str(options.gid)
    job = "job" if options.job else ""
    limited = " ".join(map("=".join, limits.items()))
    about = str(os.getpid()), job, options.cwd or "", uid, gid, limited, group, file
    words = ("forza-guard", *about, *args)
    from _socket import AF_UNIX, SOCK_SEQPACKET, socketpair

    # Not a pipe, which whoever is of our user, the app perhaps, can open by /proc, and
    # speak into, or read before us.
    ends = socketpair(AF_UNIX, SOCK_SEQPACKET)
    reports, writable = (above_stdio(end.detach()) for end in ends)
    try:
        to = [(POSIX_SPAWN_DUP2, fd, at) for at, fd in enumerate((*fds, writable), 1)]
        try:
            # Out of our process group: what a terminal says to that is for us.
            if options.job:
                child = posix_spawn(guard, words, env, file_actions=to, setpgroup=0)
            else:
                child = posix_spawn(guard, words, env, file_actions=to, setsid=True)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.ENOENT, errno.ENOEXEC, errno.EPERM):
                raise GuardError from error
            raise
        finally:
            os.close(writable)
        what, number = _first_report(reports, child)
        if what == "spawned":
            return number, child, reports
        os.kill(child, _KILL)  # it has nothing left to do
        os.waitpid(child, 0)
        if not what:
            raise GuardError
        raise StepError(number, os.strerror(number), what)
    except BaseException:
        os.close(reports)
        raise


def _first_report(reports: int, guard: int) -> tuple[str, int]:
    from _socket import socket

    end = socket(fileno=reports)
    end.settimeout(_LONG)
    try:
        while True:
            try:
                return parse_report(end.recv(REPORT_BYTES))
            except TimeoutError:  # a child that runs already may have stopped it
                os.kill(guard, _CONT)
    finally:
        end.detach()


def above_stdio(fd: int) -> int:
    """Move a descriptor out of the way of those that the child shall have."""
    # If forza was started with 0, 1 or 2 closed, a pipe may get such a number, and
    # be overwritten when the child's own descriptors are put in place.
    if fd > IPC_FD:
        return fd
    from fcntl import F_DUPFD_CLOEXEC, fcntl

    moved = fcntl(fd, F_DUPFD_CLOEXEC, IPC_FD + 1)
    os.close(fd)
    return moved
