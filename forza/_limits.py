# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Run the app within limits, from its first instruction on: descriptors, cores, data,
niceness, processors.

They are set between fork and exec, by the guard in C, or by `_direct` (`take_on`).
"""

from __future__ import annotations

import errno
import os
import resource

from forza._errors import SpawnError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any, TypeGuard

UNLIMITED = -1
SMALLEST_MEMORY = 16 * 1024 * 1024
_RESOURCES = {
    "nofile": resource.RLIMIT_NOFILE,
    "core": resource.RLIMIT_CORE,
    "data": resource.RLIMIT_DATA,
}
_NUMBERS = {"nofile": (16, 1_048_576), "nice": (-20, 19)}
_MEMORY = ("memory_soft", "memory_hard")
_KNOWN = ("core", "cpus", *_MEMORY, *_NUMBERS)
_MOST = 2**63 - 1


def check(limits: Mapping[str, Any]) -> None:
    """Raise UsageError for limits that cannot be meant, or contradict each other."""
    for name, value in limits.items():
        if name not in _KNOWN:
            there = ", ".join(sorted(_KNOWN))
            raise UsageError(f"unknown limit '{name}'; there are {there}")
        if value is not None:
            _check_one(name, value)
    soft, hard = (limits.get(name) for name in _MEMORY)
    if soft and hard and soft >= hard:
        raise UsageError("--memory-soft must be less than --memory-hard")


def _check_one(name: str, value: object) -> None:
    option = f"--{name.replace('_', '-')}"
    if name == "cpus":
        cpus = value if isinstance(value, list | tuple | set | range) else ()
        if not cpus or not all(_is_whole(cpu) and 0 <= cpu < 10_000 for cpu in cpus):
            raise UsageError(f"{option} must be a list of processors, not {value!r}")
    elif not _is_whole(value):
        raise UsageError(f"{option} must be a whole number, not {value!r}")
    elif name in _NUMBERS:
        least, most = _NUMBERS[name]
        if not least <= value <= most:
            raise UsageError(f"{option} must be from {least} to {most}, not {value}")
    elif name in _MEMORY:
        if not SMALLEST_MEMORY <= value <= _MOST:
            raise UsageError(f"{option} must be at least 16M, not {value}")
    elif not UNLIMITED <= value <= _MOST:
        raise UsageError(f"{option} must be bytes, or -1 for unlimited, not {value}")


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def for_child(limits: Mapping[str, Any], *, data: bool) -> dict[str, str]:
    """Return what the child is to take on, in this order, as words of the guard's.

    `data` says that RLIMIT_DATA has to do what no cgroup does for `memory_hard`.
    """
    found = {}
    for name in ("cpus", "nice", "core", "nofile"):
        value = limits.get(name)
        if value is not None:
            words = value if name == "cpus" else (value,)
            found[name] = ",".join(map(str, words))
    if data and (most := limits.get("memory_hard")) is not None:
        # RLIMIT_AS would count what is only reserved: 700 MB for a node that uses 40,
        # and more with WebAssembly. RLIMIT_DATA counts what may be written to, 49 MB
        # of that node, and an allocation beyond it fails in the app.
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        found["data"] = str(most if hard == UNLIMITED else min(most, hard))
    return found


def take_on(name: str, text: str) -> None:
    """Set one limit of this process. Raises OSError."""
    if name == "cpus":
        wanted = set(map(int, text.split(",")))
        os.sched_setaffinity(0, wanted)
        # The kernel leaves out what is not there, as long as one is.
        if os.sched_getaffinity(0) != wanted:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    elif name == "nice":
        os.setpriority(os.PRIO_PROCESS, 0, int(text))
    else:
        try:
            resource.setrlimit(_RESOURCES[name], (int(text), int(text)))
        except ValueError as error:  # which is what EPERM becomes here
            raise OSError(errno.EPERM, os.strerror(errno.EPERM)) from error


def refused(name: str, limits: Mapping[str, Any], error: OSError) -> SpawnError:
    """Say which limit the child could not have, and why."""
    value = limits["memory_hard" if name == "data" else name]
    why = (error.strerror or str(error)).lower()
    if name == "cpus":
        why = f"there are {_listed(os.sched_getaffinity(0))}"
        value = _listed(value)
    elif name in _RESOURCES:
        hard = resource.getrlimit(_RESOURCES[name])[1]
        if hard != UNLIMITED and not 0 <= value <= hard:
            why = f"the hard limit is {hard}"
    shown = "unlimited" if value == UNLIMITED else value
    option = "memory-hard" if name == "data" else name
    explained = SpawnError(error.errno, f"cannot set --{option} {shown}: {why}")
    explained.step = "limit"
    return explained


def _listed(cpus: Iterable[int]) -> str:
    return ",".join(map(str, sorted(cpus)))
