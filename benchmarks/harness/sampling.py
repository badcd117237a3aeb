# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Read from the kernel what a set of processes costs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Memory", "Usage", "forget_peaks", "memory_of", "peak_of", "usage_of"]

MB = 1024 * 1024

# A clock id for the CPU time of any process (nanoseconds, ended threads
# included), as clock_getcpuclockid() makes it.
CPU_CLOCK_OF_PROCESS = 2


@dataclass(frozen=True)
class Memory:
    """The sums over some processes, in MB."""

    processes: int
    rss: float
    pss: float
    uss: float
    anonymous: float
    anonymous_once: float  # pages shared by fork divided, as PSS does

    def per(self, count: int) -> dict[str, float]:
        """Return the fields of a result line, for each of so many drones."""
        return {
            "rss_mb": round(self.rss / count, 3),
            "pss_mb": round(self.pss / count, 3),
            "uss_mb": round(self.uss / count, 3),
            "anonymous_mb": round(self.anonymous / count, 3),
            "anonymous_once_mb": round(self.anonymous_once / count, 3),
        }


def memory_of(pids: Iterable[int]) -> Memory:
    """Add up smaps_rollup; a process that has just gone counts nothing."""
    total = dict.fromkeys(("Rss", "Pss", "Private_Clean", "Private_Dirty"), 0)
    total |= {"Anonymous": 0, "Pss_Anon": 0}
    processes = 0
    for pid in pids:
        with suppress(OSError):
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            processes += 1
            for line in text.splitlines()[1:]:
                name, _, rest = line.partition(":")
                if name in total:
                    total[name] += int(rest.split()[0]) * 1024
    return Memory(
        processes,
        rss=total["Rss"] / MB,
        pss=total["Pss"] / MB,
        uss=(total["Private_Clean"] + total["Private_Dirty"]) / MB,
        anonymous=total["Anonymous"] / MB,
        anonymous_once=total["Pss_Anon"] / MB,
    )


def peak_of(pids: Iterable[int]) -> float:
    """Add up each process's own peak resident memory, in MB.

    VmHWM and not ru_maxrss, which for a process made by vfork starts at its
    parent's.
    """
    total = 0
    for pid in pids:
        with suppress(OSError):
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    total += int(line.split()[1]) * 1024
    return total / MB


def forget_peaks(pids: Iterable[int]) -> None:
    """Let each process's peak count from now on."""
    for pid in pids:
        with suppress(OSError):
            Path(f"/proc/{pid}/clear_refs").write_text("5")


@dataclass(frozen=True)
class Usage:
    """CPU seconds and voluntary context switches since the processes began."""

    cpu: float
    wakeups: int
    when: float

    def __sub__(self, earlier: Usage) -> Usage:
        return Usage(
            self.cpu - earlier.cpu,
            self.wakeups - earlier.wakeups,
            self.when - earlier.when,
        )


def usage_of(pids: Iterable[int]) -> Usage:
    """Add up CPU clocks and, over all threads, the times it went to sleep."""
    cpu = 0.0
    wakeups = 0
    for pid in pids:
        with suppress(OSError):
            cpu += time.clock_gettime((~pid << 3) | CPU_CLOCK_OF_PROCESS)
            for thread in os.listdir(f"/proc/{pid}/task"):
                status = Path(f"/proc/{pid}/task/{thread}/status").read_text()
                for line in status.splitlines():
                    if line.startswith("voluntary_ctxt_switches:"):
                        wakeups += int(line.split()[1])
    return Usage(cpu, wakeups, time.monotonic())
