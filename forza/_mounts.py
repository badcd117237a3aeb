# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Find the cgroups that this process is in."""

from __future__ import annotations

import os

from forza._files import attempt


def cgroups(controller: str, root: str = "") -> tuple[int, str, list[str]]:
    """Return which cgroups a controller may limit this process by.

    That is the hierarchy's version (1 or 2; 0 for none), where it is mounted, and
    the folders below: this process's own, then its parent, up to "", the mount point.
    """
    mine = {}
    for line in os.fsdecode(attempt(f"{root}/proc/self/cgroup")).split("\n"):
        if not line:
            continue
        _, names, path = line.split(":", 2)
        for name in names.split(","):
            mine[name] = path
    found: dict[tuple[int, bool], tuple[int, str, list[str]]] = {}
    # Not splitlines, to which half a dozen odd bytes in a folder's name are line ends.
    for line in os.fsdecode(attempt(f"{root}/proc/self/mountinfo")).split("\n"):
        if not line:
            continue
        mount, _, rest = line.partition(" - ")
        kind, _, options = rest.split(" ", 2)
        if kind == "cgroup" and controller in options.split(",") and controller in mine:
            version, path = 1, mine[controller]
        elif kind == "cgroup2" and "" in mine:
            version, path = 2, mine[""]
        else:
            continue
        top, point = mount.split(" ")[3:5]
        top = top.rstrip("/")
        # What is mounted may be a part of the hierarchy only (a container's), and a
        # cgroup namespace shows what lies outside of it as "/..": then only the top
        # of what is mounted is sure to be above this process.
        fits = f"{path}/".startswith(f"{top}/") and "/.." not in path[len(top) :]
        folders = [path[len(top) :].rstrip("/") if fits else ""]
        while folders[-1]:
            folders.append(folders[-1].rpartition("/")[0])
        point = root + point.replace("\\040", " ")
        found.setdefault((version, fits), (version, point, folders))
    # Where both are mounted, a controller that version 1 has is not in version 2.
    for key in ((1, True), (1, False), (2, True), (2, False)):
        if key in found:
            return found[key]
    return 0, "", []
