# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Call the plugins of one monitor, run their coroutines, switch off those that fail."""

from __future__ import annotations

from forza._wait import end
from forza.plugins import name_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import Task
    from collections.abc import Callable, Iterable
    from typing import Any

    from forza._monitor import Monitor
    from forza.typing import Plugin

_CALLBACKS = (
    "process_options",
    "process_spawned",
    "stdout_data",
    "stderr_data",
    "ipc_data",
    "process_exit",
)


class Hooks:
    """The plugins, in order. What one of them raises never reaches the caller."""

    __slots__ = ("_callbacks", "_monitor", "_plugins", "_tasks")

    def __init__(self, monitor: Monitor, plugins: Iterable[Plugin]) -> None:
        self._monitor = monitor
        self._plugins = list(plugins)
        self._tasks: dict[int, Task[None]] = {}  # by id: a plugin may compare oddly
        self._look_up()

    def call(self, name: str, *args: object) -> None:
        """Call the callback of that name of each plugin that has one."""
        for plugin, callback in self._callbacks[name]:
            try:
                callback(*args)
            except (Exception, SystemExit) as error:
                self._switch_off(plugin, error)

    def stdout(self, data: bytes) -> None:
        """Hand on what the app has written to its standard output."""
        self.call("stdout_data", data)

    def stderr(self, data: bytes) -> None:
        """Hand on what the app has written to its standard error."""
        self.call("stderr_data", data)

    def message(self, message: bytes) -> None:
        """Hand on what the app has said on descriptor 3."""
        self.call("ipc_data", message)

    def start(self) -> None:
        """Start every plugin's coroutine."""
        for plugin in self._plugins:
            task = self._monitor.loop.create_task(self._run(plugin))
            self._tasks[id(plugin)] = task

    async def stop(self) -> None:
        """Cancel the coroutines that still run; the callbacks stay."""
        for task in tuple(self._tasks.values()):
            await end(self._monitor.loop, task)

    async def _run(self, plugin: Plugin) -> None:
        try:
            await plugin.run()
        except (Exception, SystemExit) as error:
            self._switch_off(plugin, error)

    def _look_up(self) -> None:
        self._callbacks = {name: self._find(name) for name in _CALLBACKS}

    def _find(self, name: str) -> tuple[tuple[Plugin, Callable[..., Any]], ...]:
        found = ((plugin, getattr(plugin, name, None)) for plugin in self._plugins)
        return tuple((plugin, method) for plugin, method in found if method is not None)

    def _switch_off(self, plugin: Plugin, error: BaseException) -> None:
        others = [other for other in self._plugins if other is not plugin]
        if len(others) == len(self._plugins):
            return
        self._plugins = others
        self._look_up()
        task = self._tasks.pop(id(plugin), None)
        if task is not None:
            task.cancel()
        name = name_of(type(plugin))
        text = f"{type(error).__name__}: {error}"
        self._monitor.say(f"plugin {name} failed and is switched off: {text}")
        meta = {"plugin": name}
        self._monitor.send("telemetry/plugin", 0.0, text, meta, lifecycle=True)
