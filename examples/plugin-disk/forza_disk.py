# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Report how full a disk is: `--plugin disk --disk-path /var --disk-interval 60`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from forza import PluginError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from forza.typing import Monitor


class Disk:
    """Send `health/machine/disk`, the used fraction of a file system, every minute."""

    def __init__(self, monitor: Monitor, options: Mapping[str, str]) -> None:
        self.monitor = monitor
        self.path = options.get("path", "/")
        try:
            self.interval = float(options.get("interval", "60"))
            self.used()
        except (ValueError, OSError) as error:
            raise PluginError(f"disk: {error}") from error

    async def run(self) -> None:
        async for _ in self.monitor.every(self.interval):
            self.monitor.send(
                "health/machine/disk", self.used(), meta={"path": self.path}
            )

    def used(self) -> float:
        disk = os.statvfs(self.path)
        return 1 - disk.f_bavail / disk.f_blocks if disk.f_blocks else 0.0
