# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Types for those who write plugins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from forza._monitor import Monitor
from forza._process import Exit, Process, ProcessOptions

__all__ = ("Exit", "Monitor", "Plugin", "PluginFactory", "Process", "ProcessOptions")


class Plugin(Protocol):
    """What a plugin must have: one coroutine.

    `run` is started once the child runs, and cancelled when it has ended; returning
    early is fine. These methods are optional, looked up once, and called in the order
    in which the plugins were loaded. They are plain functions, and must not block:

    - `process_options(options: ProcessOptions)` before the spawn
    - `process_spawned(process: Process)` after it
    - `stdout_data(data: bytes)`, `stderr_data(data: bytes)`: each read, as it came
    - `ipc_data(data: bytes)`: a message of the app on descriptor 3
    - `process_exit(exit_status: int, term_signal: int)` when all output was read
    """

    async def run(self) -> None: ...


class PluginFactory(Protocol):
    """What a plugin's name stands for: a class, or a function that returns a plugin."""

    def __call__(self, monitor: Monitor, options: Mapping[str, str], /) -> Plugin: ...
