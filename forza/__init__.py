# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Run one app and ship its metrics and logs.

    ended = await forza.run(["node", "app.js"], to=["tcp:127.0.0.1:1337"])

    async with forza.Monitor(["node", "app.js"], to=["stdout:"]) as monitor:
        await monitor.wait()

Importing this package imports nothing else; a name is loaded when it is used.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from forza._errors import (
        ForzaError,
        PluginError,
        PortError,
        SinkError,
        SpawnError,
        UsageError,
    )
    from forza._monitor import Monitor, run
    from forza._process import Exit, Process, ProcessOptions
    from forza._version import __version__

__all__ = (
    "Exit",
    "ForzaError",
    "Monitor",
    "PluginError",
    "PortError",
    "Process",
    "ProcessOptions",
    "SinkError",
    "SpawnError",
    "UsageError",
    "__version__",
    "run",
)

_HOMES = {
    "Exit": "_process",
    "ForzaError": "_errors",
    "Monitor": "_monitor",
    "PluginError": "_errors",
    "PortError": "_errors",
    "Process": "_process",
    "ProcessOptions": "_process",
    "SinkError": "_errors",
    "SpawnError": "_errors",
    "UsageError": "_errors",
    "__version__": "_version",
    "run": "_monitor",
}


if not TYPE_CHECKING:  # where a slip in a name shall be found

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module 'forza' has no attribute '{name}'")
        home = __import__(f"forza.{_HOMES[name]}", None, None, [name])
        value: object = getattr(home, name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
