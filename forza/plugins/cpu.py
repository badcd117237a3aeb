# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Say how busy the machine is, and how busy the app keeps it."""

from __future__ import annotations

from forza._machine import Load
from forza._proc import Tree
from forza.plugins import number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from forza._monitor import Monitor


class Cpu:
    """Send at once, then every `interval` (5 s):

    `health/machine/cpu`, the 1-minute load. In a cgroup with a CPU limit: the cores
    that the cgroup uses, averaged alike. `meta.cores` is how many there are to use,
    `meta.kind` whose they are: `machine` or `cgroup`.

    `health/process/cpu`, the cores that the app and all its descendants have used
    since the last time; so not yet at once.
    """

    def __init__(self, monitor: Monitor, options: Mapping[str, str]) -> None:
        self._monitor = monitor
        self._interval = number("cpu", options, "interval", 5.0)
        self._load = Load()
        self._at = self._used = 0.0

    async def run(self) -> None:
        try:
            async for _ in self._monitor.every(self._interval):
                load, cores, kind = self._load.read()
                meta: dict[str, object] = {"cores": cores, "kind": kind}
                self._monitor.send("health/machine/cpu", round(load, 4), meta=meta)
                self._send_process()
        finally:
            self._load.close()

    def _send_process(self) -> None:
        tree = Tree.of(self._monitor)
        if tree is None or not tree.refresh(self):
            return
        at, used = tree.seen_at, tree.cpu_seconds()
        if self._at:
            cores = (used - self._used) / (at - self._at)
            self._monitor.send("health/process/cpu", round(cores, 4))
        self._at, self._used = at, used
