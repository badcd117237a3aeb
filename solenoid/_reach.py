# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""See whether another user can read what it needs, by being that user for a while."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from solenoid._restrict import User

# Groups, access lists and mounts included, nobody knows better than the kernel.
_SCRIPT = 'for f; do [ -r "$f" ] && continue; printf %s "$f"; exit 1; done'


def unreachable(user: User, paths: Iterable[str]) -> str | None:
    """Return the first of the paths that the user cannot read, if there is one.

    Who is not root is the user already, and reads what we read.
    """
    if os.geteuid() != 0:
        return None
    ended = subprocess.run(
        ["/bin/sh", "-c", _SCRIPT, "sh", *paths],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env={},
        user=user.uid,
        group=user.gid,
        extra_groups=(),
    )
    return ended.stdout if ended.returncode else None


def barrier(path: str, user: User) -> str:
    """Return what keeps the user from the path: the folder it may not enter, or it."""
    folders = []
    real = os.path.realpath(path)
    above = os.path.dirname(real)
    while above != "/":
        folders.append(above)
        above = os.path.dirname(above)
    closed = unreachable(user, (f"{folder}/." for folder in reversed(folders)))
    return closed.removesuffix("/.") if closed else real
