# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""End an app and remove all that it has left, and nothing that is not its own."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from solenoid._errors import CleanError
from solenoid._releases import remove_tree
from solenoid._rundir import RunDir
from solenoid._stop import stop_locked

if TYPE_CHECKING:
    from solenoid._stop import Stopped


async def clean(
    run_dir: str | os.PathLike[str], *, pidfile: str | None = None
) -> list[Stopped]:
    """End the app of a run directory and remove its releases, logs and pidfile.

    What else is in the directory stays; it is removed if nothing does. Returns what
    has run; where there is no app, nothing is done. Raises LockError, StopError,
    CleanError, and RestrictError if the directory is not ours.
    """
    return await asyncio.to_thread(_clean, RunDir(run_dir), pidfile)


def _clean(run_dir: RunDir, pidfile: str | None) -> list[Stopped]:
    own = [path for path in run_dir.own() if os.path.lexists(path)]
    if not own:
        return []
    run_dir.check()
    with run_dir.locked():
        stopped = stop_locked(run_dir, pidfile)
        try:
            for path in own:
                if path.is_dir() and not path.is_symlink():
                    remove_tree(path)
                else:
                    path.unlink(missing_ok=True)
        except OSError as error:
            place = error.filename or run_dir
            raise CleanError(f"cannot remove {place}: {error.strerror}") from error
        run_dir.lock.unlink(missing_ok=True)
        with suppress(OSError):  # what is not ours is in it, or it is a mount
            run_dir.path.rmdir()
    return stopped
