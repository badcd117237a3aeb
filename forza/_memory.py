# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Keep the app and its monitor within a limit of memory."""

from __future__ import annotations

import os

from forza._files import attempt
from forza._proc import Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from forza._cgroup import Cgroup
    from forza._monitor import Monitor
    from forza._process import Process

SERVICE = "health/process/memory-limit"
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_KILL = 9
# How often to look: the nearer the limit, the oftener.
_FAR, _NEAR = 1.0, 0.2


class MemoryGuard:
    """Stop the app when it passes its soft limit, kill it when it passes the hard one.

    What counts is the resident memory of the app's whole process tree, pages that
    several share counted once, and the monitor's own. The kernel keeps to the hard
    limit by itself where it can: a cgroup of the app's own, else RLIMIT_DATA.
    """

    def __init__(self, monitor: Monitor, limits: Mapping[str, Any]) -> None:
        self._monitor = monitor
        self._soft: int | None = limits.get("memory_soft")
        self._hard: int | None = limits.get("memory_hard")
        self._cgroup: Cgroup | None = None

    def process_spawned(self, process: Process) -> None:
        if process.group is not None and process.group.limited:
            self._cgroup = process.group

    async def run(self) -> None:
        least = min(limit for limit in (self._soft, self._hard) if limit is not None)
        while True:
            used, kind, own = self._read()
            if used and used + own > least:
                tree = Tree.of(self._monitor)
                if tree is not None and kind != "pss":
                    used, kind = tree.exactly()
                self._judge(used + own, kind, own)
            near = used + own > least / 2
            await self._monitor.sleep(_NEAR if near else _FAR)

    def process_exit(self, exit_status: int, term_signal: int) -> None:
        if self._cgroup is None:
            return
        kills = self._cgroup.oom_kills()
        if kills > 0:
            assert self._hard is not None
            self._send(self._hard, "hard", self._hard, "cgroup", 0, "oom")
            if term_signal == _KILL and self._monitor.ended is not None:
                self._monitor.ended.reason = "oom"

    def _read(self) -> tuple[int, str, int]:
        """Return the bytes of the tree, how they were counted, and our own."""
        tree = Tree.of(self._monitor)
        if tree is None or not tree.refresh(self):
            return 0, "", 0
        words = attempt("/proc/self/statm").split()
        own = int(words[1]) * _PAGE_BYTES if words else 0
        return (*tree.resident(), own)

    def _judge(self, used: int, kind: str, own: int) -> None:
        if self._hard is not None and used > self._hard:
            self._send(used, "hard", self._hard, kind, own, "kill")
            self._monitor.stop(_KILL, "memory")
            self._monitor.stop()  # a second time: the whole tree, at once
            self._hard = None
        elif self._soft is not None and used > self._soft:
            self._send(used, "soft", self._soft, kind, own, "stop")
            self._soft = None
            self._monitor.stop(reason="memory")

    def _send(
        self, used: int, limit: str, bound: int, kind: str, own: int, action: str
    ) -> None:
        text = f"{used / 1e6:.1f} MB, {limit} limit {bound / 1e6:.1f} MB: {action}"
        meta: dict[str, object] = {
            "limit": limit,
            "bytes": bound,
            "kind": kind,
            "own": own,
            "action": action,
        }
        self._monitor.send(SERVICE, float(used), text, meta, lifecycle=True)
