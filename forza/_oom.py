# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Tell whether it was the kernel that has killed the app, for want of memory."""

from __future__ import annotations

from forza._files import attempt, number
from forza._mounts import cgroups

# Where each version counts the processes of a cgroup that were killed so.
_COUNTERS = {1: "memory.oom_control", 2: "memory.events"}


def oom_kills(root: str = "") -> int:
    """Return how many processes of our cgroup, which is the app's, were killed so far.

    A cgroup counts the victims of its own limit and of the whole machine's shortage
    alike. The topmost has no such count: then it is all of the machine's; else -1.
    """
    version, mount, folders = cgroups("memory", root)
    count = -1
    if version:
        path = f"{mount}{folders[0]}/{_COUNTERS[version]}"
        count = number(attempt(path), b"oom_kill ")
    return count if count >= 0 else number(attempt(f"{root}/proc/vmstat"), b"oom_kill ")
