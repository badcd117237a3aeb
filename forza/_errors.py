# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Name what can go wrong, one class for each thing a caller would do differently."""

from __future__ import annotations

# What forza leaves with when it could not do its work; docs/exit-codes.md has all.
EXIT_USAGE = 2
EXIT_PORT = 3
EXIT_SETUP = 125


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
    """The child could not be started; `errno` says why, as libuv's `uv_spawn`."""
