# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Name what can go wrong, one class for each thing a caller would do differently."""

from __future__ import annotations

# What forza leaves with when it could not do its work; docs/exit-codes.md has all.
EXIT_USAGE = 2
EXIT_PORT = 3
EXIT_HELD = 4
EXIT_PARKED = 5
EXIT_CWD = 122
EXIT_USER = 123
EXIT_SETUP = 125
EXIT_NOT_EXECUTABLE = 126
EXIT_NOT_FOUND = 127
# The app was stopped for a failure of its own, and then ended with 0.
EXIT_STOPPED = 143


class ForzaError(Exception):
    """Any failure of forza's own."""


class UsageError(ForzaError):
    """The command line, or an argument, cannot be understood."""


class PortError(UsageError):
    """A port is no number from 1 to 65535."""


class PluginError(UsageError):
    """A plugin does not exist, cannot be loaded or refuses its options."""


class SinkError(ForzaError):
    """A sink cannot be opened, and no retry would mend it."""


class SpawnError(ForzaError, OSError):
    """The child could not be started; `errno` says why, as libuv's `uv_spawn`.

    `step` is what failed: `exec`, `cwd`, `user`, or `fork` for the lack of a process.
    """

    step = "exec"

    @property
    def code(self) -> int:
        """What forza leaves with."""
        if self.step == "cwd":
            return EXIT_CWD
        if self.step == "user":
            return EXIT_USER
        if self.step in ("fork", "limit"):
            return EXIT_SETUP
        missing = self.errno in (2, 20)  # ENOENT, ENOTDIR
        return EXIT_NOT_FOUND if missing else EXIT_NOT_EXECUTABLE

    @property
    def reason(self) -> str:
        """The reason in the exit event."""
        if self.step in ("cwd", "user", "limit"):
            return f"bad {self.step}"
        if self.step == "fork":
            return "no process"
        return "not found" if self.code == EXIT_NOT_FOUND else "not executable"
