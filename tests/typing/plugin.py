# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Write plugins and their tests, in every shape that the types must allow."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import assert_type

from forza import Monitor, Process, ProcessOptions
from forza.testing import FakeMonitor, MetricsServer, Sent, check_plugin
from forza.typing import Plugin, PluginFactory


class Disk:
    """A plugin with all there is to a plugin."""

    def __init__(self, monitor: Monitor, options: Mapping[str, str]) -> None:
        self.monitor = monitor
        self.path = options.get("path", "/")

    async def run(self) -> None:
        """Send how full the disk is, every five seconds."""
        async for tick in self.monitor.every(5.0):
            assert_type(tick, None)
            usage = shutil.disk_usage(self.path)
            used = usage.used / usage.total
            self.monitor.send("health/machine/disk", used, meta={"path": self.path})
            await self.monitor.sleep(1)

    def process_options(self, options: ProcessOptions) -> None:
        """Change what will be run."""
        options.env = {**(options.env or {}), "DISK": self.path}
        options.args = (*options.args, "--disk")

    def process_spawned(self, process: Process) -> None:
        """Look at what runs."""
        assert_type(process.pid, int)

    def stdout_data(self, data: bytes) -> None:
        """Read along."""
        self.monitor.send_lines("logs/copy", data)

    def process_exit(self, exit_status: int, term_signal: int) -> None:
        """Say goodbye."""
        self.monitor.say(f"{exit_status} {self.monitor.clock():.3f}")


@dataclass
class Quiet:
    """A data class will do."""

    monitor: Monitor
    options: Mapping[str, str]

    async def run(self) -> None:
        """Return early."""


def make_disk(monitor: Monitor, options: Mapping[str, str]) -> Disk:
    """Make a plugin by a function."""
    return Disk(monitor, {"path": "/", **options})


FACTORIES: tuple[PluginFactory, ...] = (Disk, Quiet, make_disk)


async def tests() -> None:
    """Test it as the guide says."""
    sent = await check_plugin(Disk, {"path": "/"})
    assert_type(sent, list[Sent])
    assert sent[0].meta["path"] == "/"
    monitor = FakeMonitor()
    plugin: Plugin = Disk(monitor, {})
    await plugin.run()
    await monitor.advance(5.0)
    assert_type(monitor.said, list[str])
    async with MetricsServer() as server:
        event = await server.wait_for("health/machine/disk")
        assert event["metric"] <= 1
