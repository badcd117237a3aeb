# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Say how long the app has been running."""

from __future__ import annotations

from forza.plugins import number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from forza._monitor import Monitor


class Uptime:
    """Send `health/process/uptime`, the seconds since the spawn: at once, then every
    `interval` (5 s)."""

    def __init__(self, monitor: Monitor, options: Mapping[str, str]) -> None:
        self._monitor = monitor
        self._interval = number("uptime", options, "interval", 5.0)

    async def run(self) -> None:
        async for _ in self._monitor.every(self._interval):
            seconds = round(self._monitor.clock(), 3)
            self._monitor.send("health/process/uptime", seconds)
