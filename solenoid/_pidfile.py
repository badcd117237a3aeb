# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Keep the file that has the keeper's pid: in decimal, and without a newline."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from solenoid._errors import LaunchError
from solenoid._target import Target
from solenoid._theirs import read_tail


def check_pidfile(path: str) -> None:
    """Raise LaunchError if it could not be written: it would be late to see it then."""
    folder = os.path.dirname(path)
    if os.path.isdir(path) or not os.path.isdir(folder):
        raise LaunchError(f"cannot write {path}: no such folder", blame="user")
    if not os.access(folder, os.W_OK):
        raise LaunchError(f"cannot write {path}: permission denied", blame="user")


def write_pidfile(path: str, pid: int) -> None:
    """Write it, whole or not at all. Raises OSError."""
    with Target(Path(path)) as target:
        os.fchmod(target.descriptor, 0o644)
        target.write([str(pid).encode()], 0)
        target.commit()


def remove_pidfile(path: str, pid: int) -> None:
    """Remove it, if it has this pid or none."""
    with suppress(OSError):
        # Their folder it may be.
        found = read_tail(Path(path), 32).decode("utf-8", "replace").strip()
        if found == str(pid) or not found.isdigit():
            os.unlink(path)
