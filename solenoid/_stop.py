# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""End an app: its keeper, its monitor and all that it has started, and nothing else."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from solenoid._errors import LaunchError
from solenoid._keeper import Keeper
from solenoid._launch import Launch
from solenoid._pidfile import remove_pidfile
from solenoid._record import Record, records
from solenoid._rundir import STATE, RunDir

if TYPE_CHECKING:
    from collections.abc import Mapping

# A launch that is not known to say better; the contract's.
_PATIENCE = 10.0


@dataclass(frozen=True, slots=True)
class Stopped:
    """A release that was ended: the pid of its keeper, and whether it went by itself;
    else it was SIGKILL."""

    release: str
    keeper: int
    gracefully: bool


async def stop(
    run_dir: str | os.PathLike[str], *, pidfile: str | None = None
) -> list[Stopped]:
    """End the app of a run directory; return what has run, mostly one or none.

    Returns when all is gone, the pidfile too: the one that the start was told, and
    `pidfile` if it has the same pid. The releases and their logs stay. Raises
    AbsentError if there is no app, LockError, StopError.
    """
    return await asyncio.to_thread(_stop, RunDir(run_dir), pidfile)


def _stop(run_dir: RunDir, pidfile: str | None) -> list[Stopped]:
    run_dir.must_exist()
    with run_dir.locked():
        return stop_locked(run_dir, pidfile)


def stop_locked(run_dir: RunDir, pidfile: str | None) -> list[Stopped]:
    """Do what `stop` does, for who holds the lock of the run directory."""
    done = []
    for record in records(run_dir):
        stopped = stop_release(run_dir, record)
        if stopped is not None:
            done.append(stopped)
        elif path := _of(record).get("pidfile"):
            # Its keeper was killed, or had no reason to go on.
            remove_pidfile(path, record.keeper or 0)
        if pidfile is not None:
            remove_pidfile(pidfile, record.keeper or 0)
    return done


def stop_release(run_dir: RunDir, record: Record) -> Stopped | None:
    """End one release, if it runs. Raises StopError."""
    keeper = keeper_of(run_dir, record)
    if keeper is None:
        return None
    launch = _of(record)
    with keeper:
        gracefully = keeper.stop(patience_for(record))
    if path := launch.get("pidfile"):
        remove_pidfile(path, keeper.pid)
    return Stopped(record.id, keeper.pid, gracefully)


def patience_for(record: Record) -> float:
    """Return how long the end of a release may take before it is SIGKILL."""
    try:
        return Launch.from_json(_of(record)).patience
    except LaunchError:  # of another version of ours
        return _PATIENCE


def keeper_of(run_dir: RunDir, record: Record) -> Keeper | None:
    """Return the keeper of a release, if one lives."""
    user = _of(record).get("user")
    if user is None:  # it was never started
        return None
    return Keeper.find(run_dir.release(record.id) / STATE, user["uid"])


def _of(record: Record) -> Mapping[str, Any]:
    return record.launch or {}
