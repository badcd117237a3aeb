# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Run the app within limits: descriptors, cores, niceness, processors."""

from __future__ import annotations

import errno
import os
import resource

from forza._errors import SpawnError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    Ids = tuple[int, int, int]

UNLIMITED = -1
_KILL = 9
_RESOURCES = {"nofile": resource.RLIMIT_NOFILE, "core": resource.RLIMIT_CORE}


def check(limits: Mapping[str, Any]) -> None:
    """Raise UsageError for limits that contradict each other."""
    soft, hard = limits.get("memory_soft"), limits.get("memory_hard")
    if soft and hard and soft >= hard:
        raise UsageError("--memory-soft must be less than --memory-hard")


def spawn_within(limits: Mapping[str, Any], start: Callable[[], Ids]) -> Ids:
    """Start a child that is within its limits from its first instruction on.

    We take on what can be undone, for as long as the spawn takes: the child inherits
    it. It could then raise its soft limits as far as the hard ones, as node does by
    itself, and we may not lower our own hard limits, which an ordinary user could
    never raise again; so the child's are set from outside, once it is there.
    """
    undo: list[Callable[[], object]] = []
    try:
        _take_on(limits, undo)
        ids = start()
    finally:
        for step in reversed(undo):
            step()
    try:
        _impose(limits, ids[0])
    except BaseException:
        _end(ids)
        raise
    return ids


def _take_on(limits: Mapping[str, Any], undo: list[Callable[[], object]]) -> None:
    for name, which in _RESOURCES.items():
        value = limits.get(name)
        if value is None:
            continue
        before = resource.getrlimit(which)
        hard = before[1]
        if hard != UNLIMITED and (value == UNLIMITED or value > hard):
            hard = value
        try:
            resource.setrlimit(which, (value, hard))
        except (ValueError, OSError) as error:
            most = f"the hard limit is {before[1]}"
            raise _refused(name, value, most, errno.EPERM) from error
        undo.append(lambda w=which, b=before: resource.setrlimit(w, b))  # type: ignore[misc]
    if cpus := limits.get("cpus"):
        before_cpus = os.sched_getaffinity(0)
        try:
            os.sched_setaffinity(0, cpus)
        except OSError as error:
            there = f"there are {','.join(map(str, sorted(before_cpus)))}"
            text = ",".join(map(str, cpus))
            raise _refused("cpus", text, there, error.errno) from error
        # The kernel leaves out what is not there, as long as one is.
        missing = set(cpus) - os.sched_getaffinity(0)
        undo.append(lambda: os.sched_setaffinity(0, before_cpus))
        if missing:
            there = f"there are {','.join(map(str, sorted(before_cpus)))}"
            text = ",".join(map(str, cpus))
            raise _refused("cpus", text, there, errno.EINVAL)


def _impose(limits: Mapping[str, Any], pid: int) -> None:
    for name, which in _RESOURCES.items():
        if (value := limits.get(name)) is not None:
            try:
                resource.prlimit(pid, which, (value, value))
            except ProcessLookupError:  # it has ended already
                return
            except (ValueError, OSError) as error:
                raise _refused(name, value, str(error), errno.EPERM) from error
    if (nice := limits.get("nice")) is not None:
        try:
            os.setpriority(os.PRIO_PGRP, pid, nice)
        except ProcessLookupError:
            return
        except OSError as error:
            reason = os.strerror(error.errno or 0).lower()
            raise _refused("nice", nice, reason, error.errno) from error


def _end(ids: Ids) -> None:
    pid, child, reports = ids
    if reports >= 0:
        os.close(reports)
    try:
        os.kill(child or pid, _KILL)
        os.waitpid(child or pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


def _refused(name: str, value: object, why: str, number: int | None) -> SpawnError:
    value = "unlimited" if value == UNLIMITED else value
    error = SpawnError(number, f"cannot set --{name} {value}: {why}")
    error.step = "limit"
    return error
