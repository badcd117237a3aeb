# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Say regularly that the monitor and its app are there."""

from __future__ import annotations

from forza.plugins import number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from forza._monitor import Monitor


class Heartbeat:
    """Send `health/process/heartbeat` 1 at once, then every `interval` (90 s)."""

    def __init__(self, monitor: Monitor, options: Mapping[str, str]) -> None:
        self._monitor = monitor
        self._interval = number("heartbeat", options, "interval", 90.0)

    async def run(self) -> None:
        async for _ in self._monitor.every(self._interval):
            self._monitor.send("health/process/heartbeat", 1.0)
