# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Give the app a cgroup of its own, where a cgroup v2 was delegated to us.

It is made before the app, which joins it before its exec. Then all of the app's
processes can be killed at once, and held to a limit of memory.
"""

from __future__ import annotations

import os

from forza._files import attempt, number
from forza._mounts import cgroups

_DELEGATED = ("user.delegate", "trusted.delegate")
# The guard's own bound is PATH_MAX, with the names of files.
_LONGEST = 3000
_LEFT_OVER = 100


class Cgroup:
    """The app's own cgroup; `limited` says that the kernel keeps it to its memory."""

    __slots__ = ("_kills", "limited", "path")

    def __init__(self, path: str, *, limited: bool) -> None:
        self.path = path
        self.limited = limited
        self._kills = -1

    def oom_kills(self) -> int:
        """Return how many of its processes the kernel has killed for their memory."""
        count = number(attempt(f"{self.path}/memory.events"), b"oom_kill ")
        return max(count, self._kills)

    def kill(self) -> None:
        """Kill all that are in it, at once."""
        try:
            _write(f"{self.path}/cgroup.kill", "1")
        except OSError:  # it is gone
            pass

    def remove(self) -> bool:
        """Remove it; say whether it is gone. That fails while something lives in it."""
        self._kills = self.oom_kills()
        try:
            os.rmdir(self.path)
        except FileNotFoundError:
            pass
        except OSError:
            return False
        return True


def make(most: int | None = None, root: str = "") -> Cgroup | None:
    """Make a cgroup for the app; with `most`, one that limits its memory to that.

    None if no cgroup v2 was delegated to us: nothing is changed that belongs to
    somebody else. Without a memory controller there, it is a cgroup without a limit.
    """
    version, mount, folders = cgroups("", root)
    if version != 2:
        return None
    # Limits are for cgroups without processes of their own to hand on: ours has us in
    # it, so that mostly it is the one above that may have another.
    bases = [f"{mount}{folder}" for folder in folders[:2]]
    ours = [base for base in bases if _is_ours(base, top=folders == [""])]
    if most is not None:
        for base in ours:
            if b"memory" in attempt(f"{base}/cgroup.controllers").split():
                made = _make(base, most)
                if made is not None:
                    return made
    return _make(ours[0], None) if ours[:1] == bases[:1] else None


def _is_ours(base: str, *, top: bool) -> bool:
    """Say whether a cgroup was delegated to this user, or is a container's own."""
    # The root of the whole machine is nobody's, and has no type.
    if top and os.access(f"{base}/cgroup.type", os.F_OK):
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


def _make(base: str, most: int | None) -> Cgroup | None:
    try:
        if most is not None:
            _write(f"{base}/cgroup.subtree_control", "+memory")
        path = _new_folder(f"{base}/forza-{os.getpid()}")
    except OSError:
        return None
    made = Cgroup(path, limited=most is not None)
    try:
        if most is not None:
            _write(f"{path}/memory.max", str(most))
            _write(f"{path}/memory.oom.group", "1")
        if not os.access(f"{path}/cgroup.kill", os.W_OK):  # before Linux 5.14
            raise FileNotFoundError
    except OSError:
        made.remove()
        return None
    return made


def _new_folder(path: str) -> str:
    """Make a folder of this name, or with a number behind it: several monitors may be
    in one process, and one of before may have left one of the same pid."""
    if len(path) > _LONGEST:
        raise OSError(path)
    for count in range(_LEFT_OVER):
        name = f"{path}-{count}" if count else path
        try:
            os.mkdir(name)
        except FileExistsError:
            continue
        return name
    raise FileExistsError(path)


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
