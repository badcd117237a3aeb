# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""End an app and remove all that it has left, and nothing that is not its own."""

from __future__ import annotations

import asyncio
import fcntl
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from solenoid._errors import CleanError
from solenoid._releases import remove_tree
from solenoid._rundir import DEPLOY_LOCK, RunDir
from solenoid._stop import stop_locked

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from solenoid._stop import Stopped


async def clean(
    run_dir: str | os.PathLike[str], *, pidfile: str | None = None
) -> list[Stopped]:
    """End the app of a run directory and remove its releases, logs and pidfile.

    What else is in the directory stays, and so do the lock and the snapshot of a
    deployer that is at work; the directory is removed if nothing does. Returns what has
    run; where there is no app, nothing is done. Raises LockError, StopError,
    CleanError, and RestrictError if the directory is not ours.
    """
    return await asyncio.to_thread(_clean, RunDir(run_dir), pidfile)


def _clean(run_dir: RunDir, pidfile: str | None) -> list[Stopped]:
    own = [path for path in run_dir.own() if os.path.lexists(path)]
    if not run_dir.holds_something():
        return []
    run_dir.check()
    with run_dir.locked():
        stopped = stop_locked(run_dir, pidfile)
        try:
            _remove(own)
            with _no_deployer(run_dir) as alone:
                if alone:
                    _remove(run_dir.deployers())
        except OSError as error:
            place = error.filename or run_dir
            raise CleanError(f"cannot remove {place}: {error.strerror}") from error
        run_dir.lock.unlink(missing_ok=True)
        with suppress(OSError):  # what is not ours is in it, or it is a mount
            run_dir.path.rmdir()
    return stopped


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            remove_tree(path)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def _no_deployer(run_dir: RunDir) -> Iterator[bool]:
    """Say whether no deployer is at work; none begins before the block's end.

    One that waits for the lock meanwhile sees that it has got a file without a name.
    """
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        lock = os.open(run_dir.path / DEPLOY_LOCK, flags)
    except FileNotFoundError:
        yield True
        return
    try:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            alone = True
        except (BlockingIOError, PermissionError):
            alone = False
        yield alone
    finally:
        os.close(lock)
