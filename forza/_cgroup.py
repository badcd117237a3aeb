# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Give the app a cgroup of its own, where a cgroup v2 was delegated to us."""

from __future__ import annotations

import os

from forza._machine import cgroups
from forza._proc import attempt, number, pids

_DELEGATED = ("user.delegate", "trusted.delegate")


class Cgroup:
    """The app's own cgroup."""

    def __init__(self, path: str) -> None:
        self.path = path

    def oom_kills(self) -> int:
        """Return how many of its processes the kernel has killed for their memory."""
        return number(attempt(f"{self.path}/memory.events"), b"oom_kill ")

    def remove(self) -> None:
        """Remove it; that fails if something still runs in it."""
        try:
            os.rmdir(self.path)
        except OSError:
            pass


def confine(pid: int, most: int, root: str = "") -> Cgroup | None:
    """Move a process and its descendants to a cgroup with this limit of memory.

    None if there is no cgroup v2 with a memory controller that was delegated to us:
    nothing is changed that belongs to somebody else.
    """
    version, mount, folders = cgroups("memory", root)
    if version != 2:
        return None
    # Limits are for cgroups without processes of their own to hand on: ours has us in
    # it, so that mostly it is the one above that may have another.
    for folder in folders[:2]:
        base = f"{mount}{folder}"
        if _is_ours(base, top=folders == [""]):
            made = _make(f"{base}/forza-{pid}", base, pid, most)
            if made is not None:
                return made
    return None


def _is_ours(base: str, *, top: bool) -> bool:
    if b"memory" not in attempt(f"{base}/cgroup.controllers").split():
        return False
    if top:  # of the machine, or of a container's own namespace
        return os.access(f"{base}/cgroup.procs", os.W_OK)
    try:
        owner = os.stat(base).st_uid
    except OSError:
        return False
    if owner == os.geteuid() != 0:
        return True
    for name in _DELEGATED:
        try:
            if os.getxattr(base, name) == b"1":
                return True
        except OSError:
            continue
    return False


def _make(path: str, base: str, pid: int, most: int) -> Cgroup | None:
    try:
        _write(f"{base}/cgroup.subtree_control", "+memory")
        os.mkdir(path)
    except OSError:
        return None
    made = Cgroup(path)
    try:
        _write(f"{path}/memory.max", str(most))
        _write(f"{path}/memory.oom.group", "1")
        for each in pids(pid):
            _write(f"{path}/cgroup.procs", str(each))
    except OSError:
        made.remove()
        return None
    return made


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
