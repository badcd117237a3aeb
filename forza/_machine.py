# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Read what the kernel tells of the machine, or of the cgroup that limits us on it."""

from __future__ import annotations

import os
from time import monotonic

from forza._files import Kept, number
from forza._mounts import cgroups

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# The 1-minute load's; `math` is not loaded otherwise.
_DAMPING_SECONDS = 60.0
_E = 2.718281828459045


class _Limits:
    """The limits of the cgroups that this process is in."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._own = Kept(f"{root}/proc/self/cgroup")
        self._where = b""
        self._groups: list[tuple[Kept, ...]] = []

    def _look(self) -> list[tuple[Kept, ...]]:
        """Return the files to read of each cgroup that can limit; limit first."""
        where = self._own.read()
        if where != self._where:  # at the start, or moved
            self.close()
            self._where = where
            self._groups = [group for group in self._find() if group[0].read()]
        return self._groups

    def _find(self) -> list[tuple[Kept, ...]]:
        raise NotImplementedError

    def close(self) -> None:
        """Close what is open; a further reading opens it again."""
        for group in (*self._groups, (self._own,)):
            for file in group:
                file.close()


class Memory(_Limits):
    """The memory of the machine, or of the cgroup whose limit is nearest."""

    def __init__(self, root: str = "") -> None:
        super().__init__(root)
        self._meminfo = Kept(f"{root}/proc/meminfo")

    def read(self) -> tuple[float, int, str]:
        """Return the used fraction, of how many bytes, and whose: machine, cgroup."""
        info = self._meminfo.must_read()
        total = number(info, b"MemTotal:") * 1024
        free = number(info, b"MemAvailable:") * 1024
        nearest = (0.0, 0, "")
        for limit, usage, stat in self._look():
            most = limit.read().strip()
            if most.isdigit() and 0 < int(most) < total:
                # Pages of files that nobody used lately go before anything fails.
                text = stat.read()
                spare = max(
                    number(text, b"total_inactive_file "),
                    number(text, b"inactive_file "),
                    0,
                )
                used = max(0, int(usage.read() or 0) - spare)
                nearest = max(nearest, (used / int(most), int(most), "cgroup"))
        return nearest if nearest[1] else ((total - free) / total, total, "machine")

    def _find(self) -> list[tuple[Kept, ...]]:
        version, point, folders = cgroups("memory", self._root)
        names = (
            ("memory.max", "memory.current", "memory.stat")
            if version == 2
            else ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat")
        )
        return [tuple(Kept(f"{point}{f}/{name}") for name in names) for f in folders]

    def close(self) -> None:
        super().close()
        self._meminfo.close()


class Load(_Limits):
    """The load of the machine, or of the cgroup with the smallest share of it."""

    def __init__(self, root: str = "", clock: Callable[[], float] = monotonic) -> None:
        super().__init__(root)
        self._loadavg = Kept(f"{root}/proc/loadavg")
        self._clock = clock
        self._limiting: tuple[Kept, ...] | None = None
        self._mean = self._weight = self._used = self._at = 0.0

    def read(self) -> tuple[float, float, str]:
        """Return the load, of how many cores, and whose: machine, cgroup.

        A machine's is the kernel's own over one minute. A cgroup's is the cores that
        it used, averaged alike: what is older counts for less, as e^(-age / 60 s). The
        first reading only begins that average, and returns the machine's load.
        """
        every = most = float(os.cpu_count() or 1)
        limiting = None
        for group in self._look():
            words = b" ".join(file.read() for file in group[:-1]).split()
            if len(words) == 2 and words[0].isdigit():  # not "max", not -1
                cores = int(words[0]) / int(words[1])
                if 0 < cores < most:
                    most, limiting = cores, group
        if limiting is None:
            self._limiting = None
        elif self._average(limiting):
            return self._mean / self._weight, most, "cgroup"
        return float(self._loadavg.must_read().split()[0]), every, "machine"

    def close(self) -> None:
        super().close()
        self._loadavg.close()

    def _average(self, group: tuple[Kept, ...]) -> bool:
        """Take a further reading in; False: there is no average yet."""
        text, now = group[-1].read().strip(), self._clock()
        used = int(text) / 1e9 if text.isdigit() else number(text, b"usage_usec") / 1e6
        if used < 0:
            return False
        elapsed = now - self._at
        if group is not self._limiting:
            self._mean = self._weight = 0.0
        elif elapsed > 0:
            fade = _E ** (-elapsed / _DAMPING_SECONDS)
            cores = max(0.0, used - self._used) / elapsed
            self._mean = self._mean * fade + cores * (1 - fade)
            # What all readings weigh together: without it, an average that began
            # at nothing would need minutes to become true.
            self._weight = self._weight * fade + 1 - fade
        self._limiting, self._used, self._at = group, used, now
        return self._weight > 0

    def _find(self) -> list[tuple[Kept, ...]]:
        version, point, folders = cgroups("cpu", self._root)
        if version == 2:
            names = "cpu.max", "cpu.stat"
            return [tuple(Kept(f"{point}{f}/{n}") for n in names) for f in folders]
        # What a cgroup uses is told by another controller, often mounted elsewhere.
        account = cgroups("cpuacct", self._root)[1]
        return [
            (
                Kept(f"{point}{folder}/cpu.cfs_quota_us"),
                Kept(f"{point}{folder}/cpu.cfs_period_us"),
                Kept(f"{account}{folder}/cpuacct.usage"),
            )
            for folder in folders
        ]
