# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Say how full the machine's memory is, and how much of it the app holds."""

from __future__ import annotations

from forza._machine import Memory
from forza._proc import Tree
from forza.plugins import number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from forza._monitor import Monitor


class Mem:
    """Send at once, then every `interval` (5 s):

    `health/machine/memory`, the used fraction of the machine's memory, or in a cgroup
    with a limit, of that. `meta.total` is its size in bytes, `meta.kind` whose it is:
    `machine` or `cgroup`.

    `health/process/memory`, the resident bytes of the app and all its descendants.
    `meta.kind` is `pss` where pages that several of them share count once, and `rss`
    where there is only one process, or the kernel does not tell.
    """

    def __init__(self, monitor: Monitor, options: Mapping[str, str]) -> None:
        self._monitor = monitor
        self._interval = number("mem", options, "interval", 5.0)
        self._memory = Memory()

    async def run(self) -> None:
        try:
            async for _ in self._monitor.every(self._interval):
                used, total, kind = self._memory.read()
                meta: dict[str, object] = {"total": total, "kind": kind}
                self._monitor.send("health/machine/memory", round(used, 4), meta=meta)
                self._send_process()
        finally:
            self._memory.close()

    def _send_process(self) -> None:
        tree = Tree.of(self._monitor)
        if tree is None or not tree.refresh(self):
            return
        resident, kind = tree.resident()
        if resident:
            meta: dict[str, object] = {"kind": kind}
            self._monitor.send("health/process/memory", float(resident), meta=meta)
